"""The router's kind: Destination."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import Count, EventType, Metadata, Reference, Strict, Url
from cdi_cli.peers import Peers, ask

Seconds = Annotated[float, Field(ge=0.0)]


class RetrySpec(Strict):
    """When to try again; what is left out takes the router's default."""

    initial_seconds: Seconds = 0.0
    max_seconds: Seconds = 0.0
    give_up_after_seconds: Seconds = 0.0
    give_up_after_attempts: Count = 0


class WebhookDeletionSpec(Strict):
    """How an endpoint is told to delete a person; with ``{id}`` in the address one request per id."""

    url: Url
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    id_types: list[str] = Field(default=[])


class WebhookSpec(Strict):
    """An HTTP endpoint. ``headers`` may and ``signingSecret`` must hold ``env:NAME``, read by the router."""

    url: Url
    headers: dict[str, str] = Field(default={})
    signing_secret: Reference = ""
    max_batch_events: int = Field(default=0, ge=0, le=1_000)
    concurrency: Count = 0
    timeout_seconds: Seconds = 0.0
    deletion: WebhookDeletionSpec | None = None


class DestinationSpec(Strict):
    """Where events go beside the warehouse."""

    enabled: bool = True
    purposes: list[str] = Field(default=[])
    event_types: list[EventType] = Field(default=[])
    event_names: list[str] = Field(default=[])
    retry: RetrySpec = RetrySpec()
    webhook: WebhookSpec


class DestinationDocument(Document):
    """Kind Destination."""

    kind: Literal["Destination"]
    metadata: Metadata
    spec: DestinationSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        destination = destination_pb2.Destination(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            enabled=self.spec.enabled,
            purposes=self.spec.purposes,
            event_types=self.spec.event_types,
            event_names=self.spec.event_names,
            retry=destination_pb2.RetryPolicy(**self.spec.retry.model_dump()),
            webhook=destination_pb2.Webhook(**self.spec.webhook.model_dump(exclude_none=True)),
        )
        request = router_service_pb2.ApplyDestinationRequest(destination=destination)
        answer = await ask((await peers.router()).ApplyDestination, request)
        return Applied(answer.destination.version, answer.changed)
