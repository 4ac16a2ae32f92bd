"""Country, and region and city where the operator's file has them, from the IP address."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import maxminddb

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import ReferenceFiles, Subject

_CACHED_ADDRESSES = 65_536


class GeoEnricher:
    """Looks an address up in a MaxMind DB file: flat country records, or the GeoIP2 and DB-IP layout with names."""

    def __init__(self, files: ReferenceFiles) -> None:
        self._reader = maxminddb.open_database(files.geo_database)
        self._locate = lru_cache(maxsize=_CACHED_ADDRESSES)(self._locate_once)

    def __call__(self, subject: Subject, found: event_pb2.Enrichments) -> None:
        """Sets ``geo`` for a public address that the file knows."""
        if subject.client_ip and (place := self._locate(subject.client_ip)) is not None:
            found.geo.CopyFrom(place)

    def _locate_once(self, text: str) -> event_pb2.Geo | None:
        try:
            address = ip_address(text.strip())
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if not is_public(address):
            return None
        record = self._reader.get(address)
        return _place(record) if isinstance(record, dict) else None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address can belong to one place: not private, reserved, for documentation or for many receivers."""
    return address.is_global and not address.is_multicast and not address.is_reserved


def _place(record: Mapping[str, Any]) -> event_pb2.Geo | None:
    country = record.get("country_code") or _at(record, "country", "iso_code")
    if not isinstance(country, str):
        return None
    region = _at(record, "subdivisions", 0, "names", "en") or _at(record, "subdivisions", 0, "iso_code") or record.get("state1")
    city = _at(record, "city", "names", "en") or record.get("city")
    return event_pb2.Geo(
        country=country.upper(),
        region=region if isinstance(region, str) else "",
        city=city if isinstance(city, str) else "",
    )


def _at(record: Any, *path: str | int) -> Any:
    """The value at a path of keys and positions, ``None`` where the path ends early."""
    for step in path:
        if isinstance(step, str) and isinstance(record, dict):
            record = record.get(step)
        elif isinstance(step, int) and isinstance(record, list) and step < len(record):
            record = record[step]
        else:
            return None
    return record
