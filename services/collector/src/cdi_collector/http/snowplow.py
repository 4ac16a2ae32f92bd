"""Snowplow's trackers: POST of a payload, the pixel, and the redirect; the cookie of the network user; ``SP-Anonymous``.

Trackers send no key: the app id is the write key. Deliberately absent: Snowplow's webhook adapters and its cross-domain policy.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain.client_event import Item
from cdi_collector.domain.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from cdi_collector.domain.redirects import checked_target
from cdi_collector.domain.snowplow import Visitor, read_event, redirected
from cdi_collector.domain.snowplow_payload import Parameters, assigned, raw_items, read_payload, without_person
from cdi_collector.http.base import GET, GET_OR_POST, Parcel, Request, Route, Routes
from cdi_collector.http.responses import Header, Response, as_text, pixel, refused_pixel
from cdi_collector.settings import Settings
from cdi_kernel.faults import Fault, TooLarge

STANDARD_PATH: Final = "/com.snowplowanalytics.snowplow/tp2"
PIXEL_PATH: Final = "/i"
REDIRECT_PATH: Final = "/r/tp2"

_DAY_SECONDS: Final = 86_400
# What may be sent back as a cookie: also what other collectors made, since a browser keeps it for a year.
_NETWORK_ID: Final = re.compile(rb"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, slots=True)
class Door:
    """What the operator decides about Snowplow's trackers.

    Attributes:
        cookie_name: of the network user id.
        cookie_seconds: how long a browser keeps it; 0: there is no cookie.
        redirect_hosts: where a redirect may lead.
    """

    cookie_name: str
    cookie_seconds: int
    redirect_hosts: Sequence[str]

    def read_tracker(self, request: Request) -> Parcel:
        """A payload, or with GET one event in the query."""
        if request.method == "GET":
            return self.read_pixel(request)
        items = read_payload(request.body)
        if len(items) > MAX_BATCH_EVENTS:
            metadata = {"limit": str(MAX_BATCH_EVENTS), "size": str(len(items))}
            raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the payload has more than {MAX_BATCH_EVENTS} events", metadata=metadata)
        return self._parcel(request, items, partial(raw_items, request.body, anonymous=_is_anonymous(request)), as_text("ok"))

    def read_pixel(self, request: Request) -> Parcel:
        """One event in the query."""
        return self._single(request, request.query.values(), pixel())

    def read_redirect(self, request: Request) -> Parcel:
        """A link that was followed; where it leads is decided before anything is stored."""
        parameters = request.query.values()
        target = parameters.get("u", "")
        location = checked_target(target, self.redirect_hosts)
        return self._single(request, redirected(parameters, target), Response(302, b"", ((b"location", location.encode()),)))

    def _single(self, request: Request, parameters: Parameters, answer: Response) -> Parcel:
        """A pixel or a link is no place to answer for an event: a bad one is stored as rejected, like one of a payload."""
        if _is_anonymous(request):
            parameters = without_person(parameters)
        return self._parcel(request, [parameters], lambda: [msgspec.json.encode(parameters)], answer)

    def _parcel(
        self, request: Request, items: Sequence[Parameters | Fault], payloads: Callable[[], Sequence[bytes]], answer: Response
    ) -> Parcel:
        source, owned = assigned(items, request.sources)
        if anonymous := _is_anonymous(request):
            owned = [item if isinstance(item, Fault) else without_person(item) for item in owned]
        visitor = self._visitor(request, anonymous=anonymous)
        if visitor.network_id:
            answer = msgspec.structs.replace(answer, headers=(*answer.headers, self._cookie(request, visitor.network_id)))
        events: list[Item] = [item if isinstance(item, Fault) else read_event(item, visitor) for item in owned]
        return Parcel(events, None, None, payloads, answer, source, "" if anonymous else None)

    def _visitor(self, request: Request, *, anonymous: bool) -> Visitor:
        made = str(uuid.uuid4())
        if anonymous or not self.cookie_seconds:
            return Visitor("", False, made)
        known = _cookie_value(request.headers.get(b"cookie", b""), self.cookie_name.encode())
        return Visitor(known or made, bool(known), made)

    def _cookie(self, request: Request, network_id: str) -> Header:
        """Readable by nobody but the collector. A browser takes a cookie from another site over TLS only, and only if it says so."""
        secure = request.header(b"x-forwarded-proto").partition(",")[0].strip().lower() == "https"
        flags = "; SameSite=None; Secure" if secure else ""
        return b"set-cookie", f"{self.cookie_name}={network_id}; Max-Age={self.cookie_seconds}; Path=/; HttpOnly{flags}".encode()


def routes(settings: Settings) -> Routes:
    """The paths of an installation: the standard ones, and the operator's own in the place of ``STANDARD_PATH``."""
    door = Door(settings.snowplow_cookie_name, settings.snowplow_cookie_days * _DAY_SECONDS, settings.snowplow_redirect_hosts)
    tracker = Route(MAX_BATCH_BYTES, door.read_tracker, GET_OR_POST, basic=False)
    image = Route(0, door.read_pixel, GET, basic=False, refuse=refused_pixel)
    return {
        **dict.fromkeys((STANDARD_PATH, *settings.snowplow_post_paths), tracker),
        PIXEL_PATH: image,
        REDIRECT_PATH: Route(0, door.read_redirect, GET, basic=False),
    }


def _is_anonymous(request: Request) -> bool:
    # Trackers send ``*``; whoever sends anything else means it too.
    return b"sp-anonymous" in request.headers


def _cookie_value(header: bytes, name: bytes) -> str:
    """The network user id of a Cookie header; empty if there is none that may be sent back."""
    for pair in header.split(b";"):
        found, _, value = pair.strip().partition(b"=")
        if found == name and _NETWORK_ID.fullmatch(value):
            return value.decode()
    return ""
