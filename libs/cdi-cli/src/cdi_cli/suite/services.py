"""The six services: which needs which, in which order they start and drain, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How one service is placed among the others.

    Attributes:
        name: as in the repository.
        database: its Postgres database; ``None`` for a service that needs none.
        targets: setting → service whose gRPC address it gets; those services start first.
        settings: further settings of an embedded suite.
        reserved: setting → service that starts later and gets an address that is known beforehand.
    """

    name: str
    database: str | None
    targets: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)


SPECS: Final[Mapping[str, ServiceSpec]] = {
    spec.name: spec
    for spec in (
        ServiceSpec("consent", "cdi_consent", reserved={"CDI_IDENTITY_TARGET": "identity"}),
        ServiceSpec("warehouse-loader", None, {"CDI_CONSENT_TARGET": "consent"}, reserved={"CDI_ENRICHMENT_TARGET": "enrichment"}),
        ServiceSpec("identity", "cdi_identity", {"CDI_WAREHOUSE_ADDRESS": "warehouse-loader", "CDI_CONSENT_TARGET": "consent"}),
        ServiceSpec("collector", "cdi_collector", {"CDI_CONSENT_TARGET": "consent"}, settings={"CDI_HTTP_ADDRESS": "127.0.0.1:0"}),
        ServiceSpec(
            "enrichment",
            "cdi_enrichment",
            {"CDI_CONSENT_TARGET": "consent", "CDI_IDENTITY_TARGET": "identity"},
        ),
        ServiceSpec("router", "cdi_router", {"CDI_CONSENT_TARGET": "consent"}),
    )
}
"""In start order: who is called on the way of an event stands before who calls."""

SERVICES: Final[tuple[str, ...]] = tuple(SPECS)

DRAIN_ORDER: Final[tuple[tuple[str, ...], ...]] = (
    ("collector",),
    ("enrichment",),
    ("router",),
    ("identity",),
    ("warehouse-loader",),
    ("consent",),
)
"""Who lets events in stops first; who is called stops last. The services of one step drain side by side."""


def start_waves(names: tuple[str, ...]) -> list[list[str]]:
    """The services in steps: each one stands after the services that it calls."""
    waves: list[list[str]] = []
    left = [name for name in SERVICES if name in names]
    while left:
        wave = [name for name in left if not set(SPECS[name].targets.values()) & set(left)]
        waves.append(wave)
        left = [name for name in left if name not in wave]
    return waves
