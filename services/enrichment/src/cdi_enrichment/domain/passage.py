"""One event on its way through a batch: what has been read of it, and what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.claims import Place, claim_key
from cdi_enrichment.domain.columns import drop
from cdi_enrichment.domain.consent import NOTHING_SAID, Carried, carried
from cdi_enrichment.domain.context import NOTHING, EventContext, Page, read_context, read_page
from cdi_enrichment.domain.identifiers import email_of, external_ids
from cdi_enrichment.domain.rejection import Rejection, of_fault
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_kernel.faults import Rejected

_NO_PAGE: Final = Page()
_OURS: Final = ("external_ids", "validation", "consent", "identity", "enrichments")

_validation = wire.field(event_pb2.Event, "validation")
_traceparent = wire.field(event_pb2.Event, "traceparent")


class Subject(msgspec.Struct, frozen=True, gc=False):
    """What has been read of an event: enrichers look at it, and consent and identity are asked about it.

    Attributes:
        page: the page of the event: from the context, else from a page event's properties.
        context: the decoded context.
        user_agent: of the person's own device; empty if unknown.
        client_ip: of the person's own device; empty if unknown.
        email: the person's address in lower case; ``None`` if unknown.
        said: of consent.
        external: type and value of the external ids.
    """

    page: Page = _NO_PAGE
    context: EventContext = NOTHING
    user_agent: str = ""
    client_ip: str = ""
    email: str | None = None
    said: Carried = NOTHING_SAID
    external: Sequence[tuple[str, str]] = ()


_UNREAD: Final = Subject()


class Passage(msgspec.Struct, gc=False):
    """An event, where it stands, and what was found out about it.

    The event stays as the collector wrote it. What this service adds are fields in protobuf's encoding, each set by its step and set
    anew when the step is done again; ``serialized`` appends them.

    Attributes:
        event: the event.
        place: in COLLECTED.
        partition: of the topology.
        collected: the event as the collector serialized it; made of ``event`` when empty.
        traceparent: of the event's ``enrich`` span; empty unless it is sampled.
        workspace_id, message_id: of the event, read once, because reading a field of a message costs a decoding each time.
        key: of its claim.
        subject: set by ``validate``.
        linkable: set by consent: the event may be written into the identity graph.
        suppressed: set by consent: the event goes nowhere.
        validation, consent, enrichments, external_ids, identity: fields of ``Event``.
    """

    event: event_pb2.Event
    place: Place
    partition: int
    collected: bytes = b""
    traceparent: str = ""
    workspace_id: str = ""
    message_id: str = ""
    key: bytes = b""
    subject: Subject = _UNREAD
    linkable: bool = False
    suppressed: bool = False
    validation: bytes = b""
    consent: bytes = b""
    enrichments: bytes = b""
    external_ids: bytes = b""
    identity: bytes = b""

    def __post_init__(self) -> None:
        event = self.event
        self.workspace_id = workspace_id = event.workspace_id
        self.message_id = message_id = event.message_id
        self.key = claim_key(workspace_id, message_id)

    def validate(self, plans: PlanSnapshot) -> Rejection | None:
        """Checks the event against the tracking plan of its source and reads what later steps need; a rejection ends its way."""
        try:
            verdict = plans.check(self.event) if plans.by_source else None
            if isinstance(verdict, Rejection):
                return verdict
            if self.event.HasField("consent"):  # it came out of here before, with all that this service adds
                _clear_own(self.event)
                self.collected = b""
            self.subject = _read(self.event)
        except Rejected as fault:
            return of_fault(fault)
        self.validation = b"" if verdict is None else _validation(verdict.SerializeToString())
        return None

    def drop(self, columns: Sequence[str]) -> None:
        """Takes out members whose purpose is denied: no later step reads them, and nothing of them goes on. Raises ``Rejected``."""
        drop(self.event, columns)
        self.collected = b""
        self.subject = _read(self.event)

    def serialized(self) -> bytes:
        """The event with everything that was found out, and with the ``enrich`` span as its trace parent if it is sampled."""
        collected = self.collected or self.event.SerializeToString()
        traceparent = _traceparent(self.traceparent.encode()) if self.traceparent else b""
        return b"".join((collected, self.external_ids, self.validation, self.consent, self.identity, self.enrichments, traceparent))


def _read(event: event_pb2.Event) -> Subject:
    context = read_context(event.context)
    user_agent, client_ip = device_address(event, context)
    page = context.page or _NO_PAGE
    if not (page.url and page.referrer) and event.type == event_pb2.EVENT_TYPE_PAGE:
        page = _completed(page, read_page(event.properties))
    said = carried(event, context)
    external = external_ids(context) if context.external_ids is not None else ()
    return Subject(page, context, user_agent, client_ip, email_of(event, context), said, external)


def _clear_own(event: event_pb2.Event) -> None:
    """Takes away what a first pass added to an event that is sent again."""
    for name in _OURS:
        event.ClearField(name)


def device_address(event: event_pb2.Event, context: EventContext) -> tuple[str, str]:
    """User agent and IP address of the person's own device, each empty if unknown.

    What the SDK put into the context wins. The request's own header and address belong to the person only when a browser sent it;
    a server-side SDK's describe that server.
    """
    if context.user_agent and context.ip:
        return context.user_agent, context.ip
    by_browser = event.user_agent.startswith("Mozilla/")
    user_agent = context.user_agent or (event.user_agent if by_browser else "")
    return user_agent, context.ip or (event.client_ip if by_browser else "")


def _completed(page: Page, own: Page) -> Page:
    """The page: server-side SDKs put a page event's address only into its properties."""
    return Page(page.url or own.url, page.referrer or own.referrer, page.search or own.search)
