"""Country, and region and city where the operator's file has them, from the IP address."""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

import maxminddb

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import ReferenceFiles, Subject

# Addresses that belong to no one place: private, shared, reserved, for documentation, for many receivers.
# Source: IANA's registries of special-purpose addresses.
_NOT_PUBLIC_V4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
)  # fmt: skip
# Outside 2000::/3 nothing is assigned to anybody's place.
_NOT_PUBLIC_V6 = ("::/3", "2001::/23", "2001:db8::/32", "4000::/2", "8000::/1")
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, an IPv4 address in IPv6 (RFC 4291, 2.5.5.2)


class GeoEnricher:
    """Looks an address up in a MaxMind DB file: flat country records, or the GeoIP2 and DB-IP layout with names."""

    remembered = 32_768

    def __init__(self, files: ReferenceFiles) -> None:
        self._reader = maxminddb.open_database(files.geo_database)

    def key(self, subject: Subject) -> str | None:
        """The address as text."""
        return subject.client_ip or None

    def find(self, key: str) -> event_pb2.Geo | None:
        """The place of a public address that the file knows."""
        record = self._record(key)
        return _place(record) if record is not None else None

    def region(self, key: str) -> str:
        """The country of an address and, where the file has it, the part of it by ISO 3166-2; empty if unknown."""
        record = self._record(key)
        place = _place(record) if record is not None else None
        if place is None:
            return ""
        part = _at(record, "subdivisions", 0, "iso_code")
        return f"{place.country}-{part.upper()}" if isinstance(part, str) and part else place.country

    def _record(self, key: str) -> Mapping[str, Any] | None:
        text = public_address(key.strip())
        record = self._reader.get(text) if text else None
        return record if isinstance(record, dict) else None


def public_address(text: str) -> str:
    """An address that can belong to one place, an IPv4 one out of IPv6 if it is one; else empty."""
    try:
        if ":" not in text:
            return "" if _within(_RANGES_V4, socket.inet_pton(socket.AF_INET, text)) else text
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return ""
    if packed.startswith(_MAPPED):
        return public_address(socket.inet_ntop(socket.AF_INET, packed[-4:]))
    return "" if _within(_RANGES_V6, packed) else text


def _ranges(networks: Iterable[str]) -> list[bytes]:
    """Where networks begin and where the addresses after them begin, in turn. The last network ends with the last address."""
    found: list[bytes] = []
    for network in map(ip_network, networks):
        size = network.max_prefixlen // 8
        found += (network.network_address.packed, (int(network.broadcast_address) + 1).to_bytes(size + 1, "big")[-size:])
    return found[:-1]


def _within(ranges: list[bytes], packed: bytes) -> bool:
    return bisect_right(ranges, packed) % 2 == 1


_RANGES_V4 = _ranges(_NOT_PUBLIC_V4)
_RANGES_V6 = _ranges(_NOT_PUBLIC_V6)


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
