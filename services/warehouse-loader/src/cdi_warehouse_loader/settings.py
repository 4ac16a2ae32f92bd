"""What the loader is told from outside."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from cdi_runtime.service import Listed, ServiceSettings
from cdi_warehouse_loader.warehouses import KINDS
from cdi_warehouse_loader.warehouses.base import Options

MAIN: Final = "main"
"""Name of the connection to the embedded warehouse."""

ConnectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
"""Part of the names of readers and of metrics."""


def _known_kinds(urls: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, url in urls.items():
        if (kind := Options(url.get_secret_value()).kind) not in KINDS:
            raise ValueError(f"{name}: there is no kind of warehouse {kind!r}, but {', '.join(KINDS)}")
    return urls


class Settings(ServiceSettings):
    """Settings of the warehouse loader. It keeps all its state in the warehouses and needs no database.

    Attributes:
        duckdb_path: file of the embedded warehouse, the connection ``main``; made when it does not exist. Empty: there is none, and the
            first of ``warehouses`` is the loader's first connection.
        warehouses: further connections, URL by name, as JSON: ``{"analytics": "postgresql://user:password@host/database"}``.
        duckdb_memory_limit: what DuckDB may use beside the process itself; rows that wait for a checkpoint spill to disk beyond it.
        duckdb_threads: threads of DuckDB; queries and loads are single-threaded with 1.
        checkpoint_threshold: size of DuckDB's write-ahead log at which it is folded into the file. Larger: fewer and longer stalls.
        archive: the connection that keeps everything that was accepted, besides what it is loaded with; empty: none does.
        load_linger_seconds: how long an event may wait for more to share its load; the first part of the freshness.
        load_max_events: events in one load, the measure of the loader's memory; one that touches hundreds of tables may hold twenty times
            as many, up to 80,000. None: what suits the engine, and a load waits for no more than 4,000.
        query_seconds: time that one query may take.
        partner_address: where only clean rooms are served, ``host:port``; announced as ``partners``. Empty: they are at the gRPC address
            only.
        admin_token_hashes: SHA-256, in hexadecimal, of the tokens that may query and administer, separated by commas. None: nobody may.
        consent_target: gRPC target of the consent service, which privacy orders are reported to; empty: none are obeyed.
        enrichment_target: gRPC target of enrichment, whose tracking plans give types to new columns; empty: the first value does.
        rewrite_after_seconds: how long erased rows may lie in the file, unreadable, until it is written anew, for which loads wait.
    """

    service_name: ClassVar[str] = "warehouse-loader"

    duckdb_path: str = "warehouse.duckdb"
    warehouses: Annotated[dict[ConnectionName, SecretStr], AfterValidator(_known_kinds)] = Field(default={})
    archive: str = ""
    duckdb_memory_limit: str = Field(default="48MB", pattern=r"^\d+(\.\d+)?[KMG]i?B$")
    duckdb_threads: int = Field(default=1, ge=1, le=64)
    checkpoint_threshold: str = Field(default="64MB", pattern=r"^\d+(\.\d+)?[KMG]i?B$")
    load_linger_seconds: float = Field(default=0.75, ge=0.0, le=60.0)
    load_max_events: int | None = Field(default=None, ge=1, le=100_000)
    query_seconds: float = Field(default=10.0, gt=0.0, le=600.0)
    partner_address: str = ""
    admin_token_hashes: Listed = ()
    consent_target: str = ""
    enrichment_target: str = ""
    rewrite_after_seconds: float = Field(default=3_600.0, ge=0.0, le=86_400.0 * 30)

    @model_validator(mode="after")
    def _has_connections(self) -> Self:
        if self.duckdb_path and MAIN in self.warehouses:
            raise ValueError(f"{MAIN} is the connection of CDI_DUCKDB_PATH; empty it, or take another name")
        if not self.duckdb_path and not self.warehouses:
            raise ValueError("a loader needs CDI_DUCKDB_PATH or CDI_WAREHOUSES")
        if self.archive and self.archive not in self.warehouses and not (self.archive == MAIN and self.duckdb_path):
            raise ValueError(f"the archive is to be kept by {self.archive}, which is no connection")
        return self
