"""Campaign parameters and click ids, from ``context.campaign`` and the page's URL."""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import unquote_plus

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain.context import Campaign
from cdi_enrichment.enrichers.base import MAX_VALUE_LENGTH, ReferenceFiles, Subject

CLICK_IDS = (
    "gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "twclid", "li_fat_id", "igshid", "epik", "rdt_cid",
    "ScCid", "irclickid", "yclid",
)  # fmt: skip
"""Parameters that advertising networks add to a link. When a URL has several, the first of this list counts."""

_UTM = {"utm_source": "source", "utm_medium": "medium", "utm_campaign": "name", "utm_term": "term", "utm_content": "content"}
_PARAMETER = re.compile(rf"(?:^|[?&;])({'|'.join([*_UTM, *CLICK_IDS])})=([^&#;]*)")


_MAX_QUERY = 4_096

Asked: TypeAlias = tuple[str, str, Campaign | None]


class CampaignEnricher:
    """A parameter that ``context.campaign`` names wins over the URL's."""

    remembered = 2_048

    def __init__(self, _: ReferenceFiles) -> None:
        return

    def key(self, subject: Subject) -> Asked | None:
        """The query of the page, and what the client itself says."""
        page, given = subject.page, subject.context.campaign
        query = page.url.partition("?")[2] if page.url else ""
        search = page.search or ""
        return (query[:_MAX_QUERY], search[:_MAX_QUERY], given) if query or search or given is not None else None

    def find(self, key: Asked) -> event_pb2.Campaign | None:
        """A campaign with at least one parameter."""
        query, search, given = key
        parameters = _parameters(query, search)
        if given is not None:
            own = {"source": given.source, "medium": given.medium, "name": given.name, "term": given.term, "content": given.content}
            parameters |= {name: value[:MAX_VALUE_LENGTH] for name, value in own.items() if value}
        return event_pb2.Campaign(**parameters) if parameters else None


def _parameters(query: str, search: str) -> dict[str, str]:
    """Fields of ``Campaign`` from the query of the page; the first occurrence of a parameter counts."""
    fields: dict[str, str] = {}
    clicks: dict[str, str] = {}
    for name, value in _PARAMETER.findall(f"{query}&{search.lstrip('?')}"):
        if value:
            into, key = (fields, _UTM[name]) if name in _UTM else (clicks, name)
            into.setdefault(key, unquote_plus(value)[:MAX_VALUE_LENGTH])
    for name in CLICK_IDS:
        if name in clicks:
            return fields | {"click_id_type": name, "click_id": clicks[name]}
    return fields
