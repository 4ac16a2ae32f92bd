"""Web hooks: any JSON that another service posts, told by its signature or by a write key in the address."""

from __future__ import annotations

import time
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_collector.domain.client_event import Item
from cdi_collector.domain.limits import MAX_BATCH_BYTES
from cdi_collector.domain.sources import Source
from cdi_collector.domain.webhooks import SignatureRule, WebhookRule, map_event, verify
from cdi_collector.http.base import Parcel, Request, Route, Routes
from cdi_collector.settings import environment
from cdi_kernel.faults import Fault, NotFound, Unavailable

_REFERENCE: Final = "env:"
_UNSIGNED: Final = WebhookRule()


def of_source(request: Request) -> Parcel:
    """A hook at the name of its source, which anyone may know: only a signature tells whose it is."""
    source = request.sources.named(request.params["workspace"], request.params["source"])
    if source.webhook is None or source.webhook.signature is None:
        # The same answer as for a source that does not exist.
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is no such source", metadata={"resource": "source"})
    return _parcel(request, source)


def of_key(request: Request) -> Parcel:
    """A hook at a write key of its source, for services that cannot sign."""
    return _parcel(request, request.sources.authenticate(request.params["key"]))


def _parcel(request: Request, source: Source) -> Parcel:
    rule = source.webhook or _UNSIGNED
    if rule.signature is not None:
        verify(rule.signature, _secrets(rule.signature), request.headers, request.wire_body, time.time_ns() // 1_000)
    # Services send again what they see refused, and then give up on the hook: what is theirs is kept, as an event or as rejected.
    item: Item
    try:
        item = map_event(rule.mapping, request.headers, request.body, source.source_id)
    except Fault as fault:
        item = fault
    return Parcel((item,), None, None, lambda: (request.body,), source=source)


def _secrets(rule: SignatureRule) -> list[bytes]:
    """The secrets that the environment has; it may lack one that is not used any more.

    Raises:
        Unavailable: it has none, so nothing can be said about the request.
    """
    known = environment()
    found = [known[name].encode() for reference in rule.secrets if known.get(name := reference.removeprefix(_REFERENCE))]
    if not found:
        raise Unavailable("environment", "the collector's environment lacks the secret of this web hook")
    return found


PATTERNS: Final[Routes] = {
    "/v1/webhook/{key}": Route(MAX_BATCH_BYTES, of_key, basic=False),
    "/v1/webhook/{workspace}/{source}": Route(MAX_BATCH_BYTES, of_source, basic=False),
}
