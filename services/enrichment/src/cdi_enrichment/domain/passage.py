"""One event on its way through a batch: what has been read of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.context import NOTHING, EventContext, Page, read_context, read_page
from cdi_enrichment.domain.identifiers import email_of, external_ids
from cdi_enrichment.domain.rejection import Rejection, of_fault
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_kernel.faults import Rejected

_NO_PAGE: Final = Page()


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


@dataclass(slots=True, eq=False)
class Passage:
    """An event, where it stands, and what was found out about it.

    Attributes:
        event: results are written into it; doing so twice gives the same.
        place: in COLLECTED.
        partition: of the topology.
        key: of its claim.
        traceparent: of the event's ``enrich`` span; empty unless it is sampled.
        subject: set by ``read``.
        external: set by ``read``: type and value of the external ids.
    """

    event: event_pb2.Event
    place: Place
    partition: int
    key: bytes
    traceparent: str = ""
    subject: Subject = _UNREAD
    external: Sequence[tuple[str, str]] = ()

    def validate(self, plans: PlanSnapshot) -> Rejection | None:
        """Checks the event against the tracking plan of its source and reads what later steps need; a rejection ends its way."""
        try:
            verdict = plans.check(self.event)
            if isinstance(verdict, Rejection):
                return verdict
            self._read()
        except Rejected as fault:
            return of_fault(fault)
        self.event.ClearField("validation")
        if verdict is not None:
            self.event.validation.CopyFrom(verdict)
        return None

    def _read(self) -> None:
        event = self.event
        context = read_context(event.context)
        self.external = external_ids(context) if context.external_ids else ()
        user_agent, client_ip = device_address(event, context)
        self.subject = Subject(_page_of(event, context), context, user_agent, client_ip, email_of(event, context))


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


def _page_of(event: event_pb2.Event, context: EventContext) -> Page:
    """The page: server-side SDKs put a page event's address only into its properties."""
    page = context.page
    if event.type != event_pb2.EVENT_TYPE_PAGE or (page is not None and page.url and page.referrer):
        return page or _NO_PAGE
    own = read_page(event.properties)
    if page is None:
        return own
    return Page(page.url or own.url, page.referrer or own.referrer, page.search or own.search)
