"""PostHog's capture API, and what its SDKs ask for beside it: their configuration, and feature flags, of which there are none."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from cdi_collector.domain import posthog, posthog_body
from cdi_collector.domain.limits import MAX_LARGE_BATCH_BYTES
from cdi_collector.http.base import GET_OR_POST, Page, Parcel, Query, Request, Route, Routes
from cdi_collector.http.responses import Header, Response, as_json
from cdi_kernel.clock import parse_instant

_CAPTURE: Final = ("/batch", "/e", "/i/v0/e", "/i/v0/ai/batch", "/capture", "/track")
_PEOPLE: Final = ("/engage",)
_FLAGS: Final = ("/flags", "/decide")

_STORED: Final = as_json({"status": "Ok"})
_SCRIPT: Final[Header] = (b"content-type", b"application/javascript; charset=utf-8")

_NO_FLAGS: Final = {"flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": False}
# Everything of posthog-js that needs a PostHog server is off; what only sends events is left to the page. Surveys are off because nothing
# is said of them: at "false" the SDK would load their script all the same.
_CONFIGURATION: Final = {
    "supportedCompression": ["gzip", "gzip-js", "base64"],
    "hasFeatureFlags": False,
    "analytics": {"endpoint": "/e/"},
    "elementsChainAsString": True,
    "autocapture_opt_out": False,
    "autocaptureExceptions": False,
    "capturePerformance": False,
    "captureDeadClicks": False,
    "sessionRecording": False,
    "heatmaps": False,
    "productTours": False,
    "conversations": False,
    "logs": {"captureConsoleLogs": False},
    "defaultIdentifiedOnly": True,
    "isAuthenticated": False,
    "toolbarParams": {},
    "siteApps": [],
}


def read(unnamed: str | None, request: Request) -> Parcel:
    """The events of a request. A GET has them in the query, as very old SDKs and pixels send them.

    Args:
        unnamed: the name of an event that has none; ``None`` where every event needs one.
        request: the request.
    """
    body = request.body or (request.query.get("data") or "").encode()
    posted = posthog_body.read(posthog_body.unwrapped(body), _sent_us(request.query), unnamed)
    raws = posted.raws
    payloads = None if raws is None else lambda: [bytes(raw) for raw in raws]
    return Parcel(posted.items, posted.write_key, posted.sent_us, payloads, _STORED)


def configuration(request: Request) -> Response:
    """What posthog-js asks for when it starts. The same for every key: nobody learns which ones exist."""
    return as_json({"token": request.params["key"], **_CONFIGURATION})


def configuration_script(request: Request) -> Response:
    """The same as a script, which posthog-js prefers where a page may load scripts."""
    key = _in_script(request.params["key"])
    content = _in_script({"config": {"token": request.params["key"], **_CONFIGURATION}, "siteApps": []})
    script = b"(window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{})[%s]=%s;\n" % (key, content)
    return Response(200, script, (_SCRIPT,))


def flags(_: Request) -> Response:
    """No feature flag, in the words of every version."""
    return as_json(_NO_FLAGS)


def _in_script(content: object) -> bytes:
    # The key is a stranger's: it must not end the script that it may be put into.
    return msgspec.json.encode(content).replace(b"<", b"\\u003c")


def _sent_us(query: Query) -> int | None:
    """When the client sent the request, if its URL says it: milliseconds since 1970."""
    for name in ("sent_at", "_"):
        value = query.get(name) or ""
        if value.isascii() and value.isdigit() and (sent_us := parse_instant(int(value[:20]))) is not None:
            return sent_us
    return None


def _slashed(*paths: str) -> list[str]:
    return [path + slash for path in paths for slash in ("", "/")]


ROUTES: Final[Routes] = {
    **dict.fromkeys(_slashed(*_CAPTURE), Route(MAX_LARGE_BATCH_BYTES, partial(read, None), GET_OR_POST)),
    **dict.fromkeys(_slashed(*_PEOPLE), Route(MAX_LARGE_BATCH_BYTES, partial(read, posthog.IDENTIFY), GET_OR_POST)),
    **dict.fromkeys(_slashed(*_FLAGS), Page(flags, GET_OR_POST)),
}

PATTERNS: Final[Routes] = {
    "/array/{key}/config": Page(configuration),
    "/array/{key}/config.js": Page(configuration_script),
}
