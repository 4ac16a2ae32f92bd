"""What the router is told from outside, and the only reader of environment names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from cdi_runtime.service import ServiceSettings


class Settings(ServiceSettings):
    """Settings of the router.

    Attributes:
        consent_target: gRPC target of the consent service.
        consent_timeout_seconds: deadline of one EvaluateConsent call.
        database_pool_size: connections to Postgres; each busy partition of a destination uses one for a moment per batch.
    """

    service_name: ClassVar[str] = "router"
    migrations: ClassVar[str | None] = "cdi_router.migrations"

    consent_target: str = "127.0.0.1:8084"
    consent_timeout_seconds: float = Field(default=5.0, gt=0.0, le=60.0)
    database_pool_size: int = Field(default=8, ge=1, le=100)


def environment() -> Mapping[str, str]:
    """What ``env:NAME`` in a destination refers to."""
    return os.environ
