"""What the consent service is told from outside."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cdi_runtime.service import ServiceSettings


class Settings(ServiceSettings):
    """The common settings, the size of the pool and where identity is.

    Attributes:
        database_connections: the pool; one of them is held by the outbox relay.
        identity_target: gRPC target of the identity service, for what a person allows by all ids.
    """

    service_name: ClassVar[str] = "consent"
    migrations: ClassVar[str | None] = "cdi_consent.migrations"

    database_connections: int = Field(default=8, ge=2, le=100)
    identity_target: str = "127.0.0.1:8083"
