"""What a family of SDKs is to the HTTP door: paths, and for each how a request becomes events, or an answer without events.

A ``Route`` takes events, a ``Page`` only answers. Both are functions of a ``Request`` whose body has been read and decompressed; neither
waits for anything. A family is one file that exposes ``ROUTES`` (exact paths) and, if it needs them, ``PATTERNS`` (paths with
placeholders). CORS, HEAD, sizes, gzip, credentials, storing and errors are the application's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from cdi_collector.domain.client_event import Item
from cdi_collector.domain.sources import Source, SourceSnapshot
from cdi_collector.http.responses import SUCCESS, Response, rendered
from cdi_kernel.faults import Fault

POST: Final = frozenset({"POST"})
GET: Final = frozenset({"GET"})
GET_OR_POST: Final = GET | POST

_MAX_HEADER_TEXT: Final = 1_024
_BASIC: Final = b"basic "
_REMEMBERED: Final = 1_024


class Query:
    """A query string, or a form-encoded body, which is taken apart when it is first asked for a name.

    Attributes:
        raw: as the client sent it, without the question mark.
    """

    __slots__ = ("_values", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._values: dict[str, str] | None = None

    def values(self) -> Mapping[str, str]:
        """Every name with its value, decoded; the last one where a name repeats. What is not UTF-8 becomes U+FFFD."""
        if self._values is None:
            self._values = dict(parse_qsl(self.raw.decode("latin-1"), keep_blank_values=True)) if self.raw else {}
        return self._values

    def get(self, name: str) -> str | None:
        """The value of a name, or ``None``."""
        return self.values().get(name) if self.raw else None


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request that has arrived whole.

    Attributes:
        method: in capitals; a HEAD to a page says GET.
        path: decoded, without the query.
        params: values of the placeholders of the route's path.
        query: the query string.
        headers: by lower-case name, the last one where a name repeats; bytes of a stranger, see ``header``.
        body: decompressed, however it was labelled.
        sources: for what has to know the source before it can read.
        client_ip: where the request came from.
        wire_body: the body as it came, for signatures over it.
    """

    method: str
    path: str
    params: Mapping[str, str]
    query: Query
    headers: Mapping[bytes, bytes]
    body: bytes
    sources: SourceSnapshot
    client_ip: str
    wire_body: bytes = b""

    def header(self, name: bytes) -> str:
        """A header as text that may be kept: cut, and without U+0000; empty if it is absent."""
        return header_text(self.headers.get(name, b""))


class Parcel(msgspec.Struct):
    """The events of a request.

    The garbage collector has to see it: a fault among the items knows the frames that it came through, and one of these holds the parcel.

    Attributes:
        items: the events, or why what stands in the place of one is none.
        write_key: as body, query or a header of the family's own give it; Basic credentials win over it.
        sent_us: when the client sent it, by its own clock; ``None`` if it did not say.
        payloads: the bytes of the items, asked for only when one is refused. ``None`` on a path for one event, whose refusal is
            the answer to the request.
        answer: what is sent when the events are durable.
        source: for a family that knows its source without a write key, such as by a signature: nothing else is authenticated.
        client_ip: in the place of the request's, for a client that asks not to be known by it.
    """

    items: Sequence[Item]
    write_key: str | None
    sent_us: int | None
    payloads: Callable[[], Sequence[bytes]] | None
    answer: Response = SUCCESS
    source: Source | None = None
    client_ip: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A path that takes events.

    Attributes:
        max_bytes: of the body, as it comes and after decompression.
        read: makes the parcel; raises the ``Fault`` that answers a request which is wrong as a whole.
        methods: what it takes. HEAD never is: it must not store.
        known_max_bytes: the same as ``max_bytes``, for a request whose Basic credentials are a write key; 0: no other limit.
        basic: whether Basic credentials are the write key. Without it they are the family's to look at.
        refuse: makes the answer to a request that is refused.
    """

    max_bytes: int
    read: Callable[[Request], Parcel]
    methods: frozenset[str] = POST
    known_max_bytes: int = 0
    basic: bool = True
    refuse: Callable[[Fault], Response] = rendered


@dataclass(frozen=True, slots=True)
class Page:
    """A path that answers without taking events: settings, configurations, flags.

    Attributes:
        respond: makes the answer; raises the ``Fault`` that is the answer otherwise.
        methods: what it takes. HEAD comes with GET.
        max_bytes: of the body, as for a route; 0: nobody looks at one.
        refuse: makes the answer to a request that is refused.
    """

    respond: Callable[[Request], Response]
    methods: frozenset[str] = GET
    max_bytes: int = 0
    refuse: Callable[[Fault], Response] = rendered


Handler: TypeAlias = Route | Page
Routes: TypeAlias = Mapping[str, Handler]
"""Handlers by exact path, or by a path with ``{placeholders}`` that each stand for one whole segment."""

_NO_PARAMS: Final[Mapping[str, str]] = {}


class RouteTable:
    """All paths of the door. An exact path costs one look-up; only what is none is held against the patterns, in their order."""

    def __init__(self, exact: Routes, patterns: Routes) -> None:
        self._exact = {path: (handler, _NO_PARAMS) for path, handler in exact.items()}
        self._patterns = [(path.split("/"), handler) for path, handler in patterns.items()]

    def find(self, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """The handler of a path and the values of its placeholders, which are never empty; ``None`` if there is none."""
        if (found := self._exact.get(path)) is not None:
            return found
        segments = path.split("/")
        for pattern, handler in self._patterns:
            if (params := _params(pattern, segments)) is not None:
                return handler, params
        return None

    def extended(self, exact: Routes) -> RouteTable:
        """The table with more exact paths. Raises ``ValueError`` for one that it has already."""
        if taken := exact.keys() & self._exact.keys():
            raise ValueError(f"the door has these paths already: {', '.join(sorted(taken))}")
        return RouteTable(dict(self._fixed()) | dict(exact), dict(self._open()))

    def __iter__(self) -> Iterator[tuple[str, Handler]]:
        """Every path, as written, with its handler."""
        yield from self._fixed()
        yield from self._open()

    def _fixed(self) -> Iterator[tuple[str, Handler]]:
        return ((path, handler) for path, (handler, _) in self._exact.items())

    def _open(self) -> Iterator[tuple[str, Handler]]:
        return (("/".join(pattern), handler) for pattern, handler in self._patterns)


@lru_cache(_REMEMBERED)
def basic_user(authorization: bytes) -> str | None:
    """The user name of Basic credentials, which is the write key; ``None`` if there are none, empty if they cannot be read.

    Remembered: a server sends the same header with every request.
    """
    if authorization[:6].lower() != _BASIC:
        return None
    try:
        credentials = base64.b64decode(authorization[6:].strip(), validate=True)
    except binascii.Error:
        return ""
    return credentials.partition(b":")[0].decode("utf-8", "replace")


def header_text(value: bytes) -> str:
    """A header as text that may be kept: cut, and without U+0000."""
    return value[:_MAX_HEADER_TEXT].decode("latin-1").replace("\0", "")


def _params(pattern: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params = {}
    for expected, found in zip(pattern, segments, strict=True):
        if expected[:1] == "{" and found:
            params[expected[1:-1]] = found
        elif expected != found:
            return None
    return params
