"""What identity is told from outside."""

from __future__ import annotations

from typing import ClassVar

from pydantic import SecretStr

from cdi_runtime.service import ServiceSettings


class Settings(ServiceSettings):
    """The names that every service has, with a database of its own, and this.

    Attributes:
        consent_target: gRPC target of the consent service, which audiences need; empty: they are unavailable.
    """

    service_name: ClassVar[str] = "identity"
    migrations: ClassVar[str | None] = "cdi_identity.migrations"

    database_url: SecretStr
    consent_target: str = ""
