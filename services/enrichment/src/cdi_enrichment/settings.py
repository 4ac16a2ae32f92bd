"""What enrichment is told from outside."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from cdi_enrichment.enrichers import REGISTRY
from cdi_runtime.service import ServiceSettings


def packaged_countries() -> Path:
    """The MaxMind DB file that comes with the service; its origin stands beside it."""
    return Path(str(files("cdi_enrichment.reference") / "geo-whois-asn-country.mmdb"))


class Settings(ServiceSettings):
    """The names that every service has, and these.

    Attributes:
        identity_target: gRPC target of the identity service.
        consent_target: gRPC target of the consent service.
        geo_database: a MaxMind DB file of countries or cities; the packaged one knows countries.
        disabled_enrichers: names of enrichers to leave out, as a JSON list.
        max_events: events that one batch holds at most, unless a single message holds more.
    """

    service_name: ClassVar[str] = "enrichment"
    migrations: ClassVar[str | None] = "cdi_enrichment.migrations"

    database_url: SecretStr
    identity_target: str
    consent_target: str
    geo_database: Path = Field(default_factory=packaged_countries)
    disabled_enrichers: frozenset[str] = frozenset()
    max_events: int = Field(default=2_000, ge=1, le=5_000)

    @field_validator("disabled_enrichers")
    @classmethod
    def _known(cls, names: frozenset[str]) -> frozenset[str]:
        unknown = names - REGISTRY.keys()
        if unknown:
            raise ValueError(f"unknown enrichers {sorted(unknown)}; there are {sorted(REGISTRY)}")
        return names
