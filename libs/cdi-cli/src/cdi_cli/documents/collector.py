"""The collector's kind: Source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdi.collector.v1 import collector_service_pb2, source_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import Count, Metadata, Reference, Resolved, Strict, Text
from cdi_cli.peers import Peers, ask


class WebhookSignatureSpec(Strict):
    """How a service signs its requests; what is left out takes the collector's default. ``secrets`` are read by the collector."""

    header: Text
    template: str = ""
    separator: str = ""
    signed: str = ""
    timestamp: str = ""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    tolerance_seconds: Count = 0
    secrets: list[Reference] = Field(min_length=1)


class WebhookMappingSpec(Strict):
    """Where an event is in the JSON of a web hook: JSON pointers, ``header:Name``, or constants."""

    type: str = ""
    event: str = ""
    user_id: str = ""
    anonymous_id: str = ""
    group_id: str = ""
    message_id: str = ""
    timestamp: str = ""
    properties: str = ""
    traits: str = ""
    consent: Literal["", "onetrust", "cookiebot"] = ""


class SourceWebhookSpec(Strict):
    """The web hooks of a service that is no SDK."""

    signature: WebhookSignatureSpec | None = None
    mapping: WebhookMappingSpec = WebhookMappingSpec()


class RateLimitSpec(Strict):
    """How fast events may come."""

    events_per_second: Annotated[float, Field(gt=0.0, le=1_000_000.0)]
    burst: Count = 0


class SourceSpec(Strict):
    """Who may send: ``writeKeys`` are values or ``env:NAME``, read here, kept as hashes by the collector."""

    write_keys: list[Resolved] = Field(min_length=1)
    disabled: bool = False
    webhook: SourceWebhookSpec | None = None
    allowed_origins: list[str] = Field(default=[])
    ip_handling: Literal["keep", "truncate", "drop"] = "keep"
    rate_limit: RateLimitSpec | None = None


class SourceDocument(Document):
    """Kind Source."""

    kind: Literal["Source"]
    metadata: Metadata
    spec: SourceSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        source = source_pb2.Source(
            workspace_id=self.metadata.workspace,
            source_id=self.metadata.name,
            write_keys=self.spec.write_keys,
            disabled=self.spec.disabled,
            webhook=None if self.spec.webhook is None else _webhook(self.spec.webhook),
            allowed_origins=self.spec.allowed_origins,
            ip_handling=source_pb2.IpHandling.Value(f"IP_HANDLING_{self.spec.ip_handling.upper()}"),
            rate_limit=None if (rate := self.spec.rate_limit) is None else source_pb2.RateLimit(**rate.model_dump()),
        )
        answer = await ask((await peers.sources()).ApplySource, collector_service_pb2.ApplySourceRequest(source=source))
        return Applied(answer.source.version, answer.changed)


def _webhook(spec: SourceWebhookSpec) -> source_pb2.Webhook:
    webhook = source_pb2.Webhook(mapping=source_pb2.WebhookMapping(**spec.mapping.model_dump()))
    if spec.signature is not None:
        fields = spec.signature.model_dump() | {
            "algorithm": source_pb2.HmacAlgorithm.Value(f"HMAC_ALGORITHM_{spec.signature.algorithm.upper()}"),
            "encoding": source_pb2.SignatureEncoding.Value(f"SIGNATURE_ENCODING_{spec.signature.encoding.upper()}"),
        }
        webhook.signature.CopyFrom(source_pb2.WebhookSignature(**fields))
    return webhook
