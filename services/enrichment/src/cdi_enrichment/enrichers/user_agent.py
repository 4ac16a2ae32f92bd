"""Browser, operating system, device and bot flag from the user agent (uap-core rules, crawler-detect rules)."""

from __future__ import annotations

import ua_parser
from crawlerdetect import CrawlerDetect
from ua_parser.core import OS
from ua_parser.core import UserAgent as ParsedAgent

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import ReferenceFiles, Subject

_MAX_LENGTH = 512
_UNKNOWN = "Other"


class UserAgentEnricher:
    """Real traffic repeats a few thousand user agents."""

    remembered = 4_096

    def __init__(self, _: ReferenceFiles) -> None:
        # Made now, so that no event waits for the compilation of the rules.
        self._parser = ua_parser.Parser.from_matchers(ua_parser.load_builtins())
        self._crawlers = CrawlerDetect()
        self.find("")

    def key(self, subject: Subject) -> str | None:
        """The user agent, as far as rules look."""
        return subject.user_agent[:_MAX_LENGTH] or None

    def find(self, key: str) -> event_pb2.UserAgent:
        """What the rules tell; a part that they do not know stays empty."""
        result = self._parser(key, ua_parser.Domain.ALL)
        browser, system, device = result.user_agent, result.os, result.device
        return event_pb2.UserAgent(
            browser=browser.family if browser is not None else "",
            browser_version=_version(browser),
            os=system.family if system is not None else "",
            os_version=_version(system),
            device=device.family if device is not None and device.family != _UNKNOWN else "",
            bot=self._crawlers.is_crawler(key),
        )


def _version(part: ParsedAgent | OS | None) -> str:
    """Major and minor version as far as known."""
    if part is None or part.major is None:
        return ""
    return part.major if part.minor is None else f"{part.major}.{part.minor}"
