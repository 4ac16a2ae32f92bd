"""Documents as requests to the services that own them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cdi.collector.v1 import collector_service_pb2, source_pb2
from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi.enrichment.v1 import enrichment_service_pb2, tracking_plan_pb2
from cdi.identity.v1 import computed_traits_service_pb2
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi.warehouse.v1 import clean_room_pb2, clean_room_service_pb2, warehouse_service_pb2
from cdi_cli.documents.models import (
    KINDS,
    CleanRoomDocument,
    CleanRoomTableSpec,
    ComputedTraitDocument,
    ConsentPolicyDocument,
    DefaultPolicy,
    DestinationDocument,
    Document,
    PurposeDocument,
    SourceDocument,
    SourceWebhookSpec,
    TrackingPlanDocument,
    WarehouseDocument,
)
from cdi_cli.peers import Peers, ask

APPLY_ORDER: Final = {kind: place for place, kind in enumerate(KINDS)}
"""Kind → its place among the kinds of one `cdi apply`."""

_POLICIES: Final = {"block": tracking_plan_pb2.VIOLATION_POLICY_BLOCK, "forward": tracking_plan_pb2.VIOLATION_POLICY_FORWARD}
_DEFAULTS: Final = {
    None: purpose_pb2.DEFAULT_POLICY_UNSPECIFIED,
    "require": purpose_pb2.DEFAULT_POLICY_REQUIRE,
    "allow": purpose_pb2.DEFAULT_POLICY_ALLOW,
    "segment": purpose_pb2.DEFAULT_POLICY_SEGMENT,
}


@dataclass(frozen=True, slots=True)
class Applied:
    """What a service made of a document.

    Attributes:
        version: the document's version there.
        changed: false: it was like this already.
    """

    version: int
    changed: bool

    @property
    def outcome(self) -> str:
        """``created``, ``changed`` or ``unchanged``."""
        if not self.changed:
            return "unchanged"
        return "created" if self.version == 1 else "changed"


async def apply_document(peers: Peers, document: Document) -> Applied:
    """Send one document to the service that owns its kind.

    Raises:
        Fault: the service refused it or does not answer.
    """
    match document:
        case SourceDocument():
            return await _source(peers, document)
        case TrackingPlanDocument():
            return await _tracking_plan(peers, document)
        case ConsentPolicyDocument():
            return await _policy(peers, document)
        case PurposeDocument():
            return await _purpose(peers, document)
        case DestinationDocument():
            return await _destination(peers, document)
        case WarehouseDocument():
            return await _warehouse(peers, document)
        case ComputedTraitDocument():
            return await _computed_trait(peers, document)
        case CleanRoomDocument():
            return await _clean_room(peers, document)


async def _source(peers: Peers, document: SourceDocument) -> Applied:
    source = source_pb2.Source(
        workspace_id=document.metadata.workspace,
        source_id=document.metadata.name,
        write_keys=document.spec.write_keys,
        disabled=document.spec.disabled,
        webhook=None if document.spec.webhook is None else _webhook(document.spec.webhook),
        allowed_origins=document.spec.allowed_origins,
        ip_handling=source_pb2.IpHandling.Value(f"IP_HANDLING_{document.spec.ip_handling.upper()}"),
        rate_limit=None if (rate := document.spec.rate_limit) is None else source_pb2.RateLimit(**rate.model_dump()),
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


async def _tracking_plan(peers: Peers, document: TrackingPlanDocument) -> Applied:
    spec = document.spec
    plan = tracking_plan_pb2.TrackingPlan(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        source_ids=spec.sources,
        rules=[
            tracking_plan_pb2.EventRule(type=rule.type, event=rule.event, json_schema=json.dumps(rule.json_schema)) for rule in spec.rules
        ],
        unplanned_events=_POLICIES[spec.unplanned_events],
        violations=_POLICIES[spec.violations],
    )
    request = enrichment_service_pb2.ApplyTrackingPlanRequest(tracking_plan=plan)
    answer = await ask((await peers.enrichment()).ApplyTrackingPlan, request)
    return Applied(answer.tracking_plan.version, answer.changed)


async def _purpose(peers: Peers, document: PurposeDocument) -> Applied:
    spec = document.spec
    purpose = purpose_pb2.Purpose(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        description=spec.description,
        categories=spec.categories,
        default_policy=_DEFAULTS[spec.default_policy],
        required_for_linking=spec.required_for_linking,
        legal_basis=purpose_pb2.LegalBasis.Value(f"LEGAL_BASIS_{(spec.legal_basis or 'unspecified').upper()}"),
        destinations=spec.destinations,
        columns=spec.columns,
        regional_defaults=_regional(spec.regional_defaults),
        warehouses=[purpose_pb2.WarehouseRule(warehouse=rule.name, rows=rule.rows, columns=rule.columns) for rule in spec.warehouses],
    )
    answer = await ask((await peers.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
    return Applied(answer.purpose.version, answer.changed)


async def _policy(peers: Peers, document: ConsentPolicyDocument) -> Applied:
    spec = document.spec
    policy = purpose_pb2.ConsentPolicy(
        workspace_id=document.metadata.workspace,
        default_policy=_DEFAULTS[spec.default_policy],
        regional_defaults=_regional(spec.regional_defaults),
    )
    request = consent_service_pb2.ApplyConsentPolicyRequest(policy=policy)
    answer = await ask((await peers.consent()).ApplyConsentPolicy, request)
    return Applied(answer.policy.version, answer.changed)


def _regional(defaults: Mapping[str, DefaultPolicy]) -> list[purpose_pb2.RegionalDefault]:
    return [purpose_pb2.RegionalDefault(region=region, default_policy=_DEFAULTS[policy]) for region, policy in defaults.items()]


async def _destination(peers: Peers, document: DestinationDocument) -> Applied:
    spec = document.spec
    destination = destination_pb2.Destination(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        enabled=spec.enabled,
        purposes=spec.purposes,
        event_types=spec.event_types,
        event_names=spec.event_names,
        retry=destination_pb2.RetryPolicy(**spec.retry.model_dump()),
        webhook=destination_pb2.Webhook(**spec.webhook.model_dump(exclude_none=True)),
    )
    answer = await ask((await peers.router()).ApplyDestination, router_service_pb2.ApplyDestinationRequest(destination=destination))
    return Applied(answer.destination.version, answer.changed)


async def _warehouse(peers: Peers, document: WarehouseDocument) -> Applied:
    warehouse = warehouse_service_pb2.Warehouse(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        purposes=document.spec.purposes,
        duckdb=warehouse_service_pb2.DuckDb(schema=document.spec.duckdb.schema_name),
    )
    answer = await ask((await peers.warehouse()).ApplyWarehouse, warehouse_service_pb2.ApplyWarehouseRequest(warehouse=warehouse))
    return Applied(answer.warehouse.version, answer.changed)


async def _computed_trait(peers: Peers, document: ComputedTraitDocument) -> Applied:
    spec = document.spec
    trait = computed_traits_service_pb2.ComputedTrait(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        aggregation=computed_traits_service_pb2.Aggregation.Value(f"AGGREGATION_{_constant(spec.aggregation)}"),
        event_type=spec.event_type,
        event_names=spec.event_names,
        path=spec.path,
        conditions=[
            computed_traits_service_pb2.Condition(
                path=condition.path,
                operator=computed_traits_service_pb2.ConditionOperator.Value(f"CONDITION_OPERATOR_{_constant(condition.operator)}"),
                values=map(json.dumps, condition.values),
            )
            for condition in spec.conditions
        ],
    )
    if spec.window_seconds:
        trait.window.FromSeconds(spec.window_seconds)
    request = computed_traits_service_pb2.ApplyComputedTraitRequest(trait=trait)
    answer = await ask((await peers.computed_traits()).ApplyComputedTrait, request)
    return Applied(answer.trait.version, answer.changed)


def _constant(word: str) -> str:
    """``notIn`` → ``NOT_IN``."""
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in word)


async def _clean_room(peers: Peers, document: CleanRoomDocument) -> Applied:
    """Of the partners' tokens only the digests leave the command."""
    spec = document.spec
    room = clean_room_pb2.CleanRoom(
        workspace_id=document.metadata.workspace,
        name=document.metadata.name,
        schema=spec.schema_name,
        purposes=spec.purposes,
        tables=map(_clean_room_table, spec.tables),
        minimum_group_size=spec.minimum_group_size,
        period_days=spec.period_days,
        partners=[
            clean_room_pb2.Partner(
                name=partner.name,
                token_hashes=[sha256(token.encode()).hexdigest() for token in partner.tokens],
                epsilon=partner.epsilon,
            )
            for partner in spec.partners
        ],
    )
    answer = await ask((await peers.clean_rooms()).ApplyCleanRoom, clean_room_service_pb2.ApplyCleanRoomRequest(clean_room=room))
    return Applied(answer.clean_room.version, answer.changed)


def _clean_room_table(table: CleanRoomTableSpec) -> clean_room_pb2.CleanRoomTable:
    return clean_room_pb2.CleanRoomTable(
        name=table.name,
        keys=[clean_room_pb2.KeyColumn(column=key.column, values=key.values) for key in table.keys],
        numbers=[clean_room_pb2.NumberColumn(**number.model_dump()) for number in table.numbers],
        filters=table.filters,
        max_groups_per_person=table.max_groups_per_person,
        max_rows_per_person=table.max_rows_per_person,
    )
