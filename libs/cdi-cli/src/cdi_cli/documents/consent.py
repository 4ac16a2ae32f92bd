"""Consent's kinds: ConsentPolicy and Purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import Metadata, Name, Strict, WorkspaceMetadata
from cdi_cli.peers import Peers, ask

DefaultPolicy = Literal["require", "allow", "segment"]
LegalBasis = Literal["consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"]

_DEFAULTS: Final = {
    None: purpose_pb2.DEFAULT_POLICY_UNSPECIFIED,
    "require": purpose_pb2.DEFAULT_POLICY_REQUIRE,
    "allow": purpose_pb2.DEFAULT_POLICY_ALLOW,
    "segment": purpose_pb2.DEFAULT_POLICY_SEGMENT,
}


class WarehouseRuleSpec(Strict):
    """What a warehouse may have only where the purpose is granted."""

    name: Name
    rows: bool = False
    columns: list[str] = Field(default=[])


class PurposeSpec(Strict):
    """What data may be used for."""

    description: str = ""
    categories: list[str] = Field(default=[])
    default_policy: DefaultPolicy | None = None
    regional_defaults: dict[str, DefaultPolicy] = Field(default={})
    required_for_linking: bool = False
    legal_basis: LegalBasis | None = None
    destinations: list[str] = Field(default=[])
    columns: list[str] = Field(default=[])
    warehouses: list[WarehouseRuleSpec] = Field(default=[])


class ConsentPolicySpec(Strict):
    """What holds where a purpose says nothing of its own."""

    default_policy: DefaultPolicy = "require"
    regional_defaults: dict[str, DefaultPolicy] = Field(default={})


class PurposeDocument(Document):
    """Kind Purpose."""

    kind: Literal["Purpose"]
    metadata: Metadata
    spec: PurposeSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        purpose = purpose_pb2.Purpose(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            description=self.spec.description,
            categories=self.spec.categories,
            default_policy=_DEFAULTS[self.spec.default_policy],
            required_for_linking=self.spec.required_for_linking,
            legal_basis=purpose_pb2.LegalBasis.Value(f"LEGAL_BASIS_{(self.spec.legal_basis or 'unspecified').upper()}"),
            destinations=self.spec.destinations,
            columns=self.spec.columns,
            regional_defaults=_regional(self.spec.regional_defaults),
            warehouses=[
                purpose_pb2.WarehouseRule(warehouse=rule.name, rows=rule.rows, columns=rule.columns) for rule in self.spec.warehouses
            ],
        )
        answer = await ask((await peers.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
        return Applied(answer.purpose.version, answer.changed)


class ConsentPolicyDocument(Document):
    """Kind ConsentPolicy. A workspace has one; its name is "default"."""

    kind: Literal["ConsentPolicy"]
    metadata: WorkspaceMetadata
    spec: ConsentPolicySpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        policy = purpose_pb2.ConsentPolicy(
            workspace_id=self.metadata.workspace,
            default_policy=_DEFAULTS[self.spec.default_policy],
            regional_defaults=_regional(self.spec.regional_defaults),
        )
        request = consent_service_pb2.ApplyConsentPolicyRequest(policy=policy)
        answer = await ask((await peers.consent()).ApplyConsentPolicy, request)
        return Applied(answer.policy.version, answer.changed)


def _regional(defaults: Mapping[str, DefaultPolicy]) -> list[purpose_pb2.RegionalDefault]:
    return [purpose_pb2.RegionalDefault(region=region, default_policy=_DEFAULTS[policy]) for region, policy in defaults.items()]
