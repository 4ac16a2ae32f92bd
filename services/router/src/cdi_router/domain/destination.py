"""A destination as the router works with it: checked, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdi_router.domain.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class DeletionCall:
    """How an endpoint is told to delete a person.

    Attributes:
        url: with ``{id}`` one request per id, in which ``{type}`` and ``{id}`` are put; without it one per person.
        method: of HTTP.
        id_types: only ids of these types; empty means all.
    """

    url: str
    method: str = "POST"
    id_types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Webhook:
    """An HTTP endpoint.

    Attributes:
        url: http or https.
        headers: sent with every request; values may be references ``env:NAME``.
        signing_secret: a reference ``env:NAME``; empty means unsigned.
        max_batch_events: events per request.
        concurrency: requests under way at once per partition.
        timeout_seconds: until a request counts as failed.
        deletion: how it is told to delete a person; ``None``: it is not.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    signing_secret: str = ""
    max_batch_events: int = 100
    concurrency: int = 4
    timeout_seconds: float = 10.0
    deletion: DeletionCall | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where events go.

    Attributes:
        workspace_id: whose events.
        name: unique in the workspace.
        enabled: whether anything is delivered.
        purposes: all must be granted.
        event_types: values of ``cdi.event.v1.EventType``; empty means all.
        event_names: names of track events; empty means all.
        retry: when to try again.
        webhook: the endpoint.
        kind: the name of the kind in the document.
        version: rises with every change.
    """

    workspace_id: str
    name: str
    webhook: Webhook
    enabled: bool = True
    purposes: tuple[str, ...] = ()
    event_types: frozenset[int] = frozenset()
    event_names: frozenset[str] = frozenset()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    kind: str = "webhook"
    version: int = 1

    @property
    def can_delete(self) -> bool:
        """Whether its document says how it is told to delete a person."""
        return self.webhook.deletion is not None
