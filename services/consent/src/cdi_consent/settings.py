"""What the consent service is told from outside."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cdi_runtime.service import ServiceSettings


class Settings(ServiceSettings):
    """The common settings, and the size of the pool.

    Attributes:
        database_connections: the pool; one of them is held by the outbox relay.
    """

    service_name: ClassVar[str] = "consent"
    migrations: ClassVar[str | None] = "cdi_consent.migrations"

    database_connections: int = Field(default=8, ge=2, le=100)
