"""What identity is told from outside."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from cdi_runtime.service import ServiceSettings


class Settings(ServiceSettings):
    """The names that every service has, with a database of its own, and this.

    Attributes:
        warehouse_address: gRPC target of the warehouse-loader, for the events of a person; without it they are not available.
        warehouse_token: a token whose hash the loader has (its ``CDI_ADMIN_TOKEN_HASHES``); it answers no query without one.
        consent_target: gRPC target of the consent service, which audiences need; empty: they are unavailable.
        demotion_days: how long decisions are kept that changed nothing and only left identifiers out; without it for ever.
    """

    service_name: ClassVar[str] = "identity"
    migrations: ClassVar[str | None] = "cdi_identity.migrations"

    database_url: SecretStr
    warehouse_address: str | None = None
    warehouse_token: SecretStr = SecretStr("")
    consent_target: str = ""
    demotion_days: int | None = Field(default=None, ge=1)
