"""The columns of enrichments: each part is decoded once per distinct value, since a person's events share most of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from cdi.event.v1 import event_pb2
from cdi_kernel.shallow import shallow
from cdi_warehouse_loader.domain.batch_columns import BatchColumn, Coded, distinct
from cdi_warehouse_loader.domain.columns import ARROW
from cdi_warehouse_loader.domain.layout import ENRICHMENT_COLUMNS

_PARTS: Final[tuple[tuple[str, Callable[[bytes], Any], tuple[tuple[str, str], ...]], ...]] = (
    (
        "user_agent",
        event_pb2.UserAgent.FromString,
        (
            ("ua_browser", "browser"),
            ("ua_browser_version", "browser_version"),
            ("ua_os", "os"),
            ("ua_os_version", "os_version"),
            ("ua_device", "device"),
            ("ua_bot", "bot"),
        ),
    ),
    (
        "campaign",
        event_pb2.Campaign.FromString,
        (
            ("campaign_source", "source"),
            ("campaign_medium", "medium"),
            ("campaign_name", "name"),
            ("campaign_term", "term"),
            ("campaign_content", "content"),
            ("campaign_click_id_type", "click_id_type"),
            ("campaign_click_id", "click_id"),
        ),
    ),
    (
        "referrer",
        event_pb2.Referrer.FromString,
        (("referrer_medium", "medium"), ("referrer_source", "source"), ("referrer_host", "host"), ("referrer_term", "term")),
    ),
    ("geo", event_pb2.Geo.FromString, (("geo_country", "country"), ("geo_region", "region"), ("geo_city", "city"))),
    (
        "email_quality",
        event_pb2.EmailQuality.FromString,
        (
            ("email_valid_syntax", "valid_syntax"),
            ("email_disposable", "disposable"),
            ("email_role_account", "role_account"),
            ("email_free_provider", "free_provider"),
        ),
    ),
)
"""Per part of ``Enrichments``: its field, how it is parsed, and its columns with the field that each comes from."""

_read: Final = shallow(event_pb2.Enrichments).FromString


def enrichment_columns(enrichments: Sequence[bytes]) -> dict[str, BatchColumn]:
    """The columns for which at least one event has a value.

    Args:
        enrichments: per event, a serialized ``Enrichments``.
    """
    wholes, place_of = distinct(enrichments)
    read: list[Any] = [_read(whole) for whole in wholes]
    columns: dict[str, BatchColumn] = {}
    for part, parse, names in _PARTS:
        contents, place_in = distinct([getattr(one, part) if one.HasField(part) else None for one in read])
        parsed = [None if content is None else parse(content) for content in contents]
        if not any(parsed):
            continue
        places = list(map(place_in.__getitem__, place_of))
        for name, field in names:
            values = [None if one is None else _value(getattr(one, field)) for one in parsed]
            if any(value is not None for value in values):
                columns[name] = Coded(pa.array(values, ARROW[ENRICHMENT_COLUMNS[name]]), places)
    return columns


def _value(value: str | bool) -> str | bool | None:
    """An empty text is none, a false boolean is an answer."""
    return None if value == "" else value
