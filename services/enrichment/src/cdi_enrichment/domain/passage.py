"""One event on its way through a batch: what has been read of it, and what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.claims import Place, claim_key
from cdi_enrichment.domain.context import NOTHING, EventContext, Page, read_context, read_page
from cdi_enrichment.domain.identifiers import email_of, external_ids
from cdi_enrichment.domain.rejection import Rejection, of_fault
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_kernel.faults import Rejected

_NO_PAGE: Final = Page()
_OURS: Final = ("validation", "consent", "identity", "enrichments")

_validation = wire.field(event_pb2.Event, "validation")
_traceparent = wire.field(event_pb2.Event, "traceparent")


class Subject(NamedTuple):
    """What enrichers may look at.

    Attributes:
        page: the page of the event: from the context, else from a page event's properties.
        context: the decoded context.
        user_agent: of the person's own device; empty if unknown.
        client_ip: of the person's own device; empty if unknown.
        email: the person's address in lower case; ``None`` if unknown.
    """

    page: Page = _NO_PAGE
    context: EventContext = NOTHING
    user_agent: str = ""
    client_ip: str = ""
    email: str | None = None


_UNREAD: Final = Subject()


class Passage:
    """An event, where it stands, and what was found out about it.

    The event stays as the collector wrote it. What this service adds are fields in protobuf's encoding, each set by its step and set
    anew when the step is done again; ``serialized`` appends them.

    Attributes:
        event: the event; its ids are read once, because reading a field of a message costs a decoding each time.
        place: in COLLECTED.
        partition: of the topology.
        key: of its claim.
        traceparent: of the event's ``enrich`` span; empty unless it is sampled.
        subject: set by ``validate``.
        external: set by ``validate``: type and value of the external ids.
        linkable: set by consent: the event may be written into the identity graph.
        validation, consent, enrichments, external_ids, identity: fields of ``Event``.
    """

    __slots__ = (
        "anonymous_id", "consent", "enrichments", "event", "external", "external_ids", "identity", "key", "linkable", "message_id",
        "partition", "place", "subject", "traceparent", "user_id", "validation", "workspace_id",
    )  # fmt: skip

    def __init__(self, event: event_pb2.Event, place: Place, partition: int, traceparent: str = "") -> None:
        self.event = event
        self.place = place
        self.partition = partition
        self.traceparent = traceparent
        self.workspace_id = workspace_id = event.workspace_id
        self.message_id = message_id = event.message_id
        self.key = claim_key(workspace_id, message_id)
        self.user_id = event.user_id
        self.anonymous_id = event.anonymous_id
        self.subject = _UNREAD
        self.external: Sequence[tuple[str, str]] = ()
        self.linkable = False
        self.validation = self.consent = self.enrichments = self.external_ids = self.identity = b""

    def validate(self, plans: PlanSnapshot) -> Rejection | None:
        """Checks the event against the tracking plan of its source and reads what later steps need; a rejection ends its way."""
        try:
            verdict = plans.check(self.event) if plans.by_source else None
            if isinstance(verdict, Rejection):
                return verdict
            self._read()
        except Rejected as fault:
            return of_fault(fault)
        self.validation = b"" if verdict is None else _validation(verdict.SerializeToString())
        return None

    def serialized(self) -> bytes:
        """The event with everything that was found out, and with the ``enrich`` span as its trace parent if it is sampled."""
        parts = [self.event.SerializeToString(), self.external_ids, self.validation, self.consent, self.identity, self.enrichments]
        if self.traceparent:
            parts.append(_traceparent(self.traceparent.encode()))
        return b"".join(parts)

    def _read(self) -> None:
        event = self.event
        _clear_own(event)
        context = read_context(event.context)
        if context.external_ids is not None:
            self.external = external_ids(context)
        user_agent, client_ip = device_address(event, context)
        page = context.page or _NO_PAGE
        if not (page.url and page.referrer) and event.type == event_pb2.EVENT_TYPE_PAGE:
            page = _completed(page, read_page(event.properties))
        self.subject = Subject(page, context, user_agent, client_ip, email_of(event, context))


def _clear_own(event: event_pb2.Event) -> None:
    """An event that is sent again may hold what its first pass added."""
    if event.HasField("consent") or event.HasField("validation") or event.HasField("identity") or event.HasField("enrichments"):
        for name in _OURS:
            event.ClearField(name)
    if event.external_ids:
        event.ClearField("external_ids")


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
