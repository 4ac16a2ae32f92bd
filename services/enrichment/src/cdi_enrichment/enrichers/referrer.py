"""Where a visit came from: the referring site, its kind, and the search words when its URL still tells them."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import MAX_VALUE_LENGTH, ReferenceFiles, Subject
from cdi_enrichment.reference.referring_sites import SITES, Site

_MAX_URL_LENGTH = 2_048
_HOST = re.compile(r"(?:https?|android-app|ios-app)://(?:[^/?#@]*@)?([^/?#:@\s]+)", re.IGNORECASE)
# Country domains: google.de, google.co.uk, yahoo.com.br: the same site under another ending.
_COUNTRY_ENDING = re.compile(r"(?:^|\.)((?:search\.|mail\.)?(?:google|yahoo|bing|yandex|amazon|ebay))\.(?:com?\.)?[a-z]{2,3}$")


class ReferrerEnricher:
    """Knows a small table of sites; every other host is ``other``."""

    remembered = 4_096

    def __init__(self, _: ReferenceFiles) -> None:
        return

    def key(self, subject: Subject) -> tuple[str, str] | None:
        """The referrer, and the host of the page itself."""
        page = subject.page
        if not page.referrer:
            return None
        return page.referrer[:_MAX_URL_LENGTH], host_of(page.url[:_MAX_URL_LENGTH]) if page.url else ""

    def find(self, key: tuple[str, str]) -> event_pb2.Referrer | None:
        """A referrer that is a web address or an app."""
        referrer, own_host = key
        host = host_of(referrer)
        if not host:
            return None
        if host == own_host:
            return event_pb2.Referrer(medium="internal", host=host)
        site = _site(host)
        if site is None:
            return event_pb2.Referrer(medium="other", host=host)
        return event_pb2.Referrer(medium=site.medium, source=site.name, host=host, term=_term(referrer, site.parameters))


def host_of(url: str) -> str:
    """The host of a URL in lower case, without port, user and a leading ``www.``; empty if it has none."""
    match = _HOST.match(url)
    return match[1].lower().rstrip(".").removeprefix("www.")[:MAX_VALUE_LENGTH] if match else ""


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
