"""What a request says of its sender: wishes about tracking, and whether it is a crawler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from crawlerdetect import CrawlerDetect

from cdi.event.v1 import event_pb2

_MAX_LENGTH: Final = 256
_REMEMBERED: Final = 4_096
# crawler-detect takes HTTP libraries for crawlers. Here they are how servers send: through an SDK, or without one.
_LIBRARY: Final = re.compile(
    r"(python|analytics|rudder|posthog|snowplow|segment|jitsu|node|axios|undici|got|go-http-client|okhttp|apache-httpclient|java|ruby|faraday"
    r"|php|guzzle|curl|wget|aiohttp|httpx|grpc|dart|reqwest|\.net|unirest|libwww-perl|cfnetwork|postmanruntime)\b",
    re.IGNORECASE,
)
# Words that no user agent has: hundreds of rules are tried at each of their characters, which adds up to tens of milliseconds.
_LONG_WORD: Final = re.compile(r"([^\s/;()]{24})[^\s/;()]+")
_crawlers: Final = CrawlerDetect()
# Compiles the rules now, so that no request waits for it.
_crawlers.is_crawler("-")


@dataclass(frozen=True, slots=True)
class Signals:
    """What is said by headers.

    Attributes:
        do_not_track: ``DNT: 1``.
        global_privacy_control: ``Sec-GPC: 1``.
    """

    do_not_track: bool = False
    global_privacy_control: bool = False

    def field(self, user_agent: str) -> event_pb2.ClientSignals | None:
        """The field of an event; ``None`` if there is nothing to say."""
        bot = is_bot(user_agent[:_MAX_LENGTH])
        if not (bot or self.do_not_track or self.global_privacy_control):
            return None
        return event_pb2.ClientSignals(do_not_track=self.do_not_track, global_privacy_control=self.global_privacy_control, bot=bot)


NO_SIGNALS: Final = Signals()


@lru_cache(maxsize=_REMEMBERED)
def is_bot(user_agent: str) -> bool:
    """Whether a user agent is that of a crawler or a monitor. Remembered: real traffic repeats a few thousand of them."""
    if not user_agent or _LIBRARY.match(user_agent) is not None:
        return False
    return bool(_crawlers.is_crawler(_LONG_WORD.sub(r"\1", user_agent)))
