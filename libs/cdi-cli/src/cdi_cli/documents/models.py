"""The kinds of documents. Field names are those of the protos in camel case; nothing unknown is let through."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


class DocumentError(RuntimeError):
    """A document is wrong; the text names file, line and field."""


def _resolved(value: object) -> object:
    """The value behind ``env:NAME`` in the environment of the command; any other value as it is."""
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    if not _REFERENCE.fullmatch(value):
        raise ValueError("expected env:NAME")
    found = os.environ.get(value.removeprefix("env:"))
    if not found:
        raise ValueError(f"the environment has no {value.removeprefix('env:')}")
    return found


def _reference(value: object) -> object:
    """A secret that is passed on by name; its service reads it."""
    if isinstance(value, str) and not _REFERENCE.fullmatch(value):
        raise ValueError("a secret is given by reference: env:NAME")
    return value


Resolved = Annotated[str, BeforeValidator(_resolved), Field(min_length=1)]
Reference = Annotated[str, BeforeValidator(_reference)]
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Policy = Literal["block", "forward"]
DefaultPolicy = Literal["require", "allow", "segment"]
LegalBasis = Literal["consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"]
EventType = Literal["track", "identify", "page", "screen", "group", "alias"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(_Strict):
    """Whose document it is."""

    workspace: Name = "main"
    name: Name


class PolicyMetadata(_Strict):
    """Whose policy it is; a workspace has one."""

    workspace: Name = "main"
    name: Literal["default"] = "default"


class WebhookSignatureSpec(_Strict):
    """How a service signs its requests; what is left out takes the collector's default. ``secrets`` are read by the collector."""

    header: Annotated[str, Field(min_length=1)]
    template: str = ""
    separator: str = ""
    signed: str = ""
    timestamp: str = ""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    tolerance_seconds: int = Field(default=0, ge=0)
    secrets: list[Reference] = Field(min_length=1)


class WebhookMappingSpec(_Strict):
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


class SourceWebhookSpec(_Strict):
    """The web hooks of a service that is no SDK."""

    signature: WebhookSignatureSpec | None = None
    mapping: WebhookMappingSpec = WebhookMappingSpec()


class RateLimitSpec(_Strict):
    """How fast events may come."""

    events_per_second: float = Field(gt=0.0, le=1_000_000.0)
    burst: int = Field(default=0, ge=0)


class SourceSpec(_Strict):
    """Who may send: ``writeKeys`` are values or ``env:NAME``, read here, kept as hashes by the collector."""

    write_keys: list[Resolved] = Field(min_length=1)
    disabled: bool = False
    webhook: SourceWebhookSpec | None = None
    allowed_origins: list[str] = []
    ip_handling: Literal["keep", "truncate", "drop"] = "keep"
    rate_limit: RateLimitSpec | None = None


class EventRuleSpec(_Strict):
    """What one event must look like: a JSON Schema over its properties, traits and context."""

    type: EventType
    event: str = ""
    json_schema: dict[str, Any] = Field(alias="schema")


class TrackingPlanSpec(_Strict):
    """Which events the sources may send."""

    sources: list[Name]
    rules: list[EventRuleSpec] = []
    unplanned_events: Policy = "block"
    violations: Policy = "block"


class WarehouseRuleSpec(_Strict):
    """What a warehouse may have only where the purpose is granted."""

    name: Name
    rows: bool = False
    columns: list[str] = []


class PurposeSpec(_Strict):
    """What data may be used for."""

    description: str = ""
    categories: list[str] = []
    default_policy: DefaultPolicy | None = None
    regional_defaults: dict[str, DefaultPolicy] = {}
    required_for_linking: bool = False
    legal_basis: LegalBasis | None = None
    destinations: list[str] = []
    columns: list[str] = []
    warehouses: list[WarehouseRuleSpec] = []


class ConsentPolicySpec(_Strict):
    """What holds where a purpose says nothing of its own."""

    default_policy: DefaultPolicy = "require"
    regional_defaults: dict[str, DefaultPolicy] = {}


class RetrySpec(_Strict):
    """When to try again; what is left out takes the router's default."""

    initial_seconds: float = Field(default=0.0, ge=0.0)
    max_seconds: float = Field(default=0.0, ge=0.0)
    give_up_after_seconds: float = Field(default=0.0, ge=0.0)
    give_up_after_attempts: int = Field(default=0, ge=0)


class WebhookDeletionSpec(_Strict):
    """How an endpoint is told to delete a person; with ``{id}`` in the address one request per id."""

    url: Annotated[str, BeforeValidator(_resolved), Field(pattern=r"^https?://\S+$")]
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    id_types: list[str] = []


class WebhookSpec(_Strict):
    """An HTTP endpoint. ``headers`` may and ``signingSecret`` must hold ``env:NAME``, read by the router."""

    url: Annotated[str, BeforeValidator(_resolved), Field(pattern=r"^https?://\S+$")]
    headers: dict[str, str] = {}
    signing_secret: Reference = ""
    max_batch_events: int = Field(default=0, ge=0, le=1_000)
    concurrency: int = Field(default=0, ge=0)
    timeout_seconds: float = Field(default=0.0, ge=0.0)
    deletion: WebhookDeletionSpec | None = None


class DestinationSpec(_Strict):
    """Where events go beside the warehouse."""

    enabled: bool = True
    purposes: list[str] = []
    event_types: list[EventType] = []
    event_names: list[str] = []
    retry: RetrySpec = RetrySpec()
    webhook: WebhookSpec


class DuckDbSpec(_Strict):
    """The embedded warehouse."""

    schema_name: str = Field(default="", alias="schema")


class WarehouseSpec(_Strict):
    """Where rows are loaded."""

    purposes: list[str] = []
    duckdb: DuckDbSpec


class ConditionSpec(_Strict):
    """What an event has to fulfil."""

    path: str = Field(min_length=1)
    operator: Literal["in", "notIn", "less", "greater", "contains", "exists"]
    values: list[Any] = []


class ComputedTraitSpec(_Strict):
    """What the events of a person come to."""

    aggregation: Literal["eventCounter", "sum", "average", "min", "max", "mostFrequent", "first", "last", "uniqueList", "uniqueCount"]
    event_type: Literal["track", "page", "screen", "identify", "group"] = "track"
    event_names: list[str] = []
    path: str = ""
    conditions: list[ConditionSpec] = []
    window_seconds: int = Field(default=0, ge=0)


class KeyColumnSpec(_Strict):
    """A column to group by, with all its groups."""

    column: Annotated[str, Field(min_length=1)]
    values: list[str] = Field(min_length=1)


class NumberColumnSpec(_Strict):
    """A column to sum, and between which bounds."""

    column: Annotated[str, Field(min_length=1)]
    lower: float
    upper: float
    step: float = Field(default=0.0, ge=0.0)


class CleanRoomTableSpec(_Strict):
    """What partners may use of a table of events."""

    name: Annotated[str, Field(min_length=1)]
    keys: list[KeyColumnSpec] = []
    numbers: list[NumberColumnSpec] = []
    filters: list[str] = []
    max_groups_per_person: int = Field(default=0, ge=0)
    max_rows_per_person: int = Field(default=0, ge=0)


class PartnerSpec(_Strict):
    """Who may ask, for how much: ``tokens`` are values or ``env:NAME``, read here, sent and kept as hashes."""

    name: Name
    tokens: list[Resolved] = Field(min_length=1)
    epsilon: float = Field(gt=0.0)


class CleanRoomSpec(_Strict):
    """What partners may learn of the warehouse; what is left out takes the loader's default."""

    schema_name: str = Field(default="", alias="schema")
    purposes: list[str] = Field(min_length=1)
    tables: list[CleanRoomTableSpec] = Field(min_length=1)
    minimum_group_size: int = Field(default=0, ge=0)
    period_days: int = Field(default=0, ge=0)
    partners: list[PartnerSpec] = Field(min_length=1)


class SourceDocument(_Strict):
    """Kind Source, for the collector."""

    api_version: Literal["cdi/v1"]
    kind: Literal["Source"]
    metadata: Metadata
    spec: SourceSpec


class TrackingPlanDocument(_Strict):
    """Kind TrackingPlan, for enrichment."""

    api_version: Literal["cdi/v1"]
    kind: Literal["TrackingPlan"]
    metadata: Metadata
    spec: TrackingPlanSpec


class PurposeDocument(_Strict):
    """Kind Purpose, for consent."""

    api_version: Literal["cdi/v1"]
    kind: Literal["Purpose"]
    metadata: Metadata
    spec: PurposeSpec


class ConsentPolicyDocument(_Strict):
    """Kind ConsentPolicy, for consent. A workspace has one; its name is "default"."""

    api_version: Literal["cdi/v1"]
    kind: Literal["ConsentPolicy"]
    metadata: PolicyMetadata
    spec: ConsentPolicySpec


class DestinationDocument(_Strict):
    """Kind Destination, for the router."""

    api_version: Literal["cdi/v1"]
    kind: Literal["Destination"]
    metadata: Metadata
    spec: DestinationSpec


class WarehouseDocument(_Strict):
    """Kind Warehouse, for the loader."""

    api_version: Literal["cdi/v1"]
    kind: Literal["Warehouse"]
    metadata: Metadata
    spec: WarehouseSpec


class ComputedTraitDocument(_Strict):
    """Kind ComputedTrait, for identity."""

    api_version: Literal["cdi/v1"]
    kind: Literal["ComputedTrait"]
    metadata: Metadata
    spec: ComputedTraitSpec


class CleanRoomDocument(_Strict):
    """Kind CleanRoom, for the loader."""

    api_version: Literal["cdi/v1"]
    kind: Literal["CleanRoom"]
    metadata: Metadata
    spec: CleanRoomSpec


Document = (
    SourceDocument
    | TrackingPlanDocument
    | ConsentPolicyDocument
    | PurposeDocument
    | DestinationDocument
    | WarehouseDocument
    | ComputedTraitDocument
    | CleanRoomDocument
)

KINDS: Final[dict[str, type[Document]]] = {
    "ConsentPolicy": ConsentPolicyDocument,
    "Purpose": PurposeDocument,
    "TrackingPlan": TrackingPlanDocument,
    "Warehouse": WarehouseDocument,
    "ComputedTrait": ComputedTraitDocument,
    "CleanRoom": CleanRoomDocument,
    "Destination": DestinationDocument,
    "Source": SourceDocument,
}
"""In the order in which they are applied: what an event needs stands before the source that lets it in."""
