"""CORS: what a browser is told so that its SDK may send from any page, and read the answer.

The origin is echoed and credentials are allowed: ``*`` would shut out the SDKs that send cookies (reference: Fetch, the CORS protocol).
That gives nothing away, since no answer depends on a cookie and nothing can be read here.
"""

from __future__ import annotations

from typing import Final

from cdi_collector.http.responses import Header, Response

_METHODS: Final = b"GET, POST, OPTIONS"
# From the preflights of real SDKs: Segment's, RudderStack's, Snowplow's, Jitsu's.
_HEADERS: Final = (
    b"authorization, content-type, x-retry-count, anonymousid, sentat, rsa-retry-attempt, rsa-retry-reason, rsa-since-first-attempt, "
    b"rsa-since-last-attempt, sp-anonymous, x-write-key, x-ip-policy, x-enable-debug"
)
_DAY: Final = b"86400"
_PREFLIGHT: Final = Response(
    204,
    b"",
    ((b"access-control-allow-methods", _METHODS), (b"access-control-allow-headers", _HEADERS), (b"access-control-max-age", _DAY)),
)
_SHARED: Final[tuple[Header, ...]] = (
    (b"access-control-allow-credentials", b"true"),
    # Without it a browser hides from the SDK how long it should wait.
    (b"access-control-expose-headers", b"Retry-After, X-RateLimit-Reset"),
    (b"vary", b"Origin"),
)


def preflight() -> Response:
    """The answer to OPTIONS, the same for every path."""
    return _PREFLIGHT


def cors_headers(origin: bytes) -> tuple[Header, ...]:
    """What is added to every answer to a request with an Origin."""
    return ((b"access-control-allow-origin", origin), *_SHARED)
