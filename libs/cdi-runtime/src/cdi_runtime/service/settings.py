"""Settings that every service has, and the check that no name is misspelled.

Names are ``CDI_<FIELD>``, nested ones ``CDI_<FIELD>__<FIELD>``. A ``CDI_*`` name that no field has aborts the start: a
misspelled limit that is silently ignored is worse than a service that does not start. ``OTEL_*`` names stay OpenTelemetry's own.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "CDI_"
NESTED = "__"


def _split(given: object) -> object:
    return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given


Listed = typing.Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Texts separated by commas, such as the SHA-256 of tokens."""


class ServiceSettings(BaseSettings):
    """What every service is told from outside. Subclass it, set ``service_name``, add fields.

    Attributes:
        service_name: the public name, as in the folder ``services/<name>``.
        migrations: the package that holds the service's ``versions`` folder; ``None`` for a service without a database.
        log_level: DEBUG, INFO, WARNING or ERROR.
        grpc_address: where the gRPC server listens, ``host:port``; port 0 takes a free one.
        ops_address: where ``/livez``, ``/readyz`` and ``/metrics`` are served.
        nats_url: the message bus, several servers separated by commas.
        database_url: ``postgresql://user:password@host:port/database``.
        partitions: number of partitions of the topology; the same in every service of one installation.
        trace_sample_ratio: share of events that are traced when the caller did not decide, 0 to 1.
        drain_seconds: time between SIGTERM and the end, for work in progress.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=NESTED, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    service_name: ClassVar[str]
    migrations: ClassVar[str | None] = None

    log_level: typing.Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    grpc_address: str = "127.0.0.1:0"
    ops_address: str = "127.0.0.1:0"
    nats_url: str = "nats://127.0.0.1:4222"
    database_url: SecretStr | None = None
    partitions: int = Field(default=8, ge=1, le=1024)
    trace_sample_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    drain_seconds: float = Field(default=20.0, gt=0.0, le=600.0)


def effective_settings(settings: ServiceSettings) -> dict[str, Any]:
    """The values in force by environment name, JSON-ready, with secrets masked."""
    values = settings.model_dump(mode="json")
    return {PREFIX + name.upper(): value for name, value in values.items()}


def unknown_names(settings: type[ServiceSettings], environment: Mapping[str, str]) -> dict[str, str | None]:
    """The ``CDI_*`` names in ``environment`` that no field reads, each with the nearest known name if one is near."""
    exact, open_ended = _known_names(settings, PREFIX)
    unknown = sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX) and name.upper() not in exact and not name.upper().startswith(tuple(open_ended))
    )
    return {name: next(iter(difflib.get_close_matches(name.upper(), exact, n=1)), None) for name in unknown}


def _known_names(model: type[BaseModel], prefix: str) -> tuple[set[str], set[str]]:
    """All full names of a model's fields, and the prefixes below which any name is allowed (fields that are mappings)."""
    exact: set[str] = set()
    open_ended: set[str] = set()
    for field, declared in model.model_fields.items():
        name = prefix + field.upper()
        exact.add(name)
        for part in _parts(declared.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                deeper_exact, deeper_open = _known_names(part, name + NESTED)
                exact |= deeper_exact
                open_ended |= deeper_open
            elif isinstance(part, type) and issubclass(part, Mapping):
                open_ended.add(name + NESTED)
    return exact, open_ended


def _parts(annotation: Any) -> Iterable[Any]:
    """The classes that an annotation names: unions and ``Annotated`` opened, ``dict[str, X]`` as ``dict``."""
    origin = typing.get_origin(annotation)
    if origin is None:
        yield annotation
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield origin
    elif origin is typing.Annotated:
        yield from _parts(typing.get_args(annotation)[0])
    elif not isinstance(origin, type) or origin.__name__ == "UnionType":
        for argument in typing.get_args(annotation):
            yield from _parts(argument)
