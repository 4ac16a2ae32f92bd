"""Browser, operating system, device and bot flag from the user agent (uap-core rules, crawler-detect rules)."""

from __future__ import annotations

from functools import lru_cache

import ua_parser
from crawlerdetect import CrawlerDetect
from ua_parser.core import OS
from ua_parser.core import UserAgent as ParsedAgent

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import ReferenceFiles, Subject

_CACHED_AGENTS = 4_096
_MAX_LENGTH = 512
_UNKNOWN = "Other"


class UserAgentEnricher:
    """Parses each distinct user agent once; real traffic repeats a few thousand of them."""

    def __init__(self, _: ReferenceFiles) -> None:
        # Made now, so that no event waits for the compilation of the rules.
        self._parser = ua_parser.Parser.from_matchers(ua_parser.load_builtins())
        self._crawlers = CrawlerDetect()
        self._parse = lru_cache(maxsize=_CACHED_AGENTS)(self._parse_once)
        self._parse("")

    def __call__(self, subject: Subject, found: event_pb2.Enrichments) -> None:
        """Sets ``user_agent``; a part of it that the rules do not know stays empty."""
        if subject.user_agent:
            found.user_agent.CopyFrom(self._parse(subject.user_agent[:_MAX_LENGTH]))

    def _parse_once(self, user_agent: str) -> event_pb2.UserAgent:
        result = self._parser(user_agent, ua_parser.Domain.ALL)
        browser, system, device = result.user_agent, result.os, result.device
        return event_pb2.UserAgent(
            browser=browser.family if browser is not None else "",
            browser_version=_version(browser),
            os=system.family if system is not None else "",
            os_version=_version(system),
            device=device.family if device is not None and device.family != _UNKNOWN else "",
            bot=self._crawlers.is_crawler(user_agent),
        )


def _version(part: ParsedAgent | OS | None) -> str:
    """Major and minor version as far as known."""
    if part is None or part.major is None:
        return ""
    return part.major if part.minor is None else f"{part.major}.{part.minor}"
