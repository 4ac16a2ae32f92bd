"""CloudEvents over HTTP: structured, batched and binary mode at one path (source: the CloudEvents HTTP binding)."""

from __future__ import annotations

from typing import Final

from cdi_collector.domain import cloudevents
from cdi_collector.domain.limits import MAX_BATCH_BYTES
from cdi_collector.http.base import Parcel, Request, Route, Routes

_MEDIA_TYPE: Final = "application/cloudevents"
_VERSION: Final = cloudevents.HEADER + b"specversion"


def read(request: Request) -> Parcel:
    """The event, or the events, of a request.

    The write key is the user name of Basic credentials, or ``writeKey`` in the URL for senders that can give nothing else.
    """
    write_key = request.query.get("writeKey")
    declared = request.header(b"content-type").lower().startswith(_MEDIA_TYPE)
    if _VERSION in request.headers and not declared:
        return Parcel((cloudevents.read_binary(request.headers, request.body),), write_key, None, None)
    if request.body.lstrip()[:1] != b"[":
        return Parcel((cloudevents.read_structured(request.body),), write_key, None, None)
    raws, items = cloudevents.read_batch(request.body)
    return Parcel(items, write_key, None, lambda: [bytes(raw) for raw in raws])


ROUTES: Final[Routes] = {"/v1/cloudevents": Route(MAX_BATCH_BYTES, read)}
