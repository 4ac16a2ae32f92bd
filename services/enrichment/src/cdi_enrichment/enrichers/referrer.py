"""Where a visit came from: the referring site, its kind, and the search words when its URL still tells them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import MAX_VALUE_LENGTH, ReferenceFiles, Subject
from cdi_enrichment.reference.referring_sites import SITES, Site

_CACHED_REFERRERS = 4_096
_MAX_URL_LENGTH = 2_048
_HOST = re.compile(r"(?:https?|android-app|ios-app)://(?:[^/?#@]*@)?([^/?#:@\s]+)", re.IGNORECASE)
# Country domains: google.de, google.co.uk, yahoo.com.br: the same site under another ending.
_COUNTRY_ENDING = re.compile(r"(?:^|\.)((?:search\.|mail\.)?(?:google|yahoo|bing|yandex|amazon|ebay))\.(?:com?\.)?[a-z]{2,3}$")


class _Origin(NamedTuple):
    host: str
    medium: str
    source: str
    term: str


class ReferrerEnricher:
    """Knows a small table of sites; every other host is ``other``."""

    def __init__(self, _: ReferenceFiles) -> None:
        return

    def __call__(self, subject: Subject, found: event_pb2.Enrichments) -> None:
        """Sets ``referrer`` when the page has one that is a web address or an app."""
        referrer = subject.page.referrer
        if not referrer:
            return
        origin = _origin(referrer[:_MAX_URL_LENGTH])
        if origin is None:
            return
        part = found.referrer
        part.host = origin.host
        if subject.page.url and host_of(subject.page.url[:_MAX_URL_LENGTH]) == origin.host:
            part.medium = "internal"
        else:
            part.medium, part.source, part.term = origin.medium, origin.source, origin.term


@lru_cache(maxsize=_CACHED_REFERRERS)
def host_of(url: str) -> str:
    """The host of a URL in lower case, without port, user and a leading ``www.``; empty if it has none."""
    match = _HOST.match(url)
    return match[1].lower().rstrip(".").removeprefix("www.")[:MAX_VALUE_LENGTH] if match else ""


@lru_cache(maxsize=_CACHED_REFERRERS)
def _origin(referrer: str) -> _Origin | None:
    host = host_of(referrer)
    if not host:
        return None
    site = _site(host)
    if site is None:
        return _Origin(host, "other", "", "")
    return _Origin(host, site.medium, site.name, _term(referrer, site.parameters))


def _site(host: str) -> Site | None:
    """The site of a host or of the nearest of its parents: ``m.facebook.com`` is ``facebook.com``."""
    rest = host
    while rest:
        if rest in SITES:
            return SITES[rest]
        _, _, rest = rest.partition(".")
    match = _COUNTRY_ENDING.search(host)
    return SITES.get(f"{match[1]}.com") if match else None


def _term(referrer: str, parameters: tuple[str, ...]) -> str:
    _, _, query = referrer.partition("?")
    for pair in query.partition("#")[0].split("&") if parameters else ():
        name, _, value = pair.partition("=")
        if name in parameters and value:
            return unquote_plus(value)[:MAX_VALUE_LENGTH]
    return ""
