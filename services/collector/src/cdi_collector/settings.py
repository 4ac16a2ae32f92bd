"""What the collector is told from outside; names as in its README."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field

from cdi_collector.domain.redirects import HOST
from cdi_runtime.service import Listed, ServiceSettings

_PATH: Final = re.compile(r"/[A-Za-z0-9._~-]+/[A-Za-z0-9._~-]+")


def _paths(given: tuple[str, ...]) -> tuple[str, ...]:
    paths = tuple(path if path.startswith("/") else f"/{path}" for path in given)
    if wrong := [path for path in paths if not _PATH.fullmatch(path)]:
        raise ValueError(f"paths have the form /vendor/version: {', '.join(wrong)}")
    return paths


def _hosts(given: tuple[str, ...]) -> tuple[str, ...]:
    hosts = tuple(host.lower() for host in given)
    if wrong := [host for host in hosts if not HOST.fullmatch(host)]:
        raise ValueError(f"hosts have the form shop.example or *.shop.example: {', '.join(wrong)}")
    return hosts


class Settings(ServiceSettings):
    """Settings of the collector beside those of every service.

    Attributes:
        http_address: where events are taken over HTTP, ``host:port``; announced as ``http``.
        trusted_proxy_hops: how many proxies of one's own add to X-Forwarded-For; 0 takes the peer as the client.
        linger_milliseconds: longest time that an event waits for others under load, beside the time of a commit; four times as
            long where requests hold 16 events or more on average.
        max_in_flight_bytes: bodies and requests in memory, all together; beyond it new ones get 503.
        max_connections: open HTTP connections; further ones are closed at once.
        head_seconds: time for a request's head to arrive.
        body_seconds: time for a request's body to arrive.
        keep_alive_seconds: how long an idle HTTP connection stays open.
        max_requests: requests under way, HTTP and gRPC together; beyond it new ones get 503 before their body is read.
        rate_limit_events_per_second: of a source that says nothing itself; 0: no limit. Each replica counts for itself.
        rate_limit_burst: with it, how many at once; 0: 2,500, or one second's worth if that is more.
        admin_token_hashes: SHA-256, in hexadecimal, of the tokens that administer sources, separated by commas. None: nobody does.
        sources_refresh_seconds: how old the known sources may become.
        consent_target: gRPC target of the consent service, which privacy orders are reported to; empty: none are answered.
        snowplow_post_paths: paths of the form ``/vendor/version`` that Snowplow's trackers are told beside their own.
        snowplow_redirect_hosts: where ``/r/tp2`` may lead; ``*.shop.example`` stands for all hosts below. None: no redirects.
        snowplow_cookie_name: of the network user id.
        snowplow_cookie_days: how long a browser keeps it; 0: there is no such cookie.
        spool_directory: where events wait on disk while NATS is away; of this replica alone. ``None`` (or empty): no spool.
        spool_max_bytes: of all files there; beyond it new requests get 503.
        spool_segment_bytes: of one file there, about; what a crash while draining may publish again.
    """

    service_name: ClassVar[str] = "collector"
    migrations: ClassVar[str | None] = "cdi_collector.migrations"

    http_address: str = "127.0.0.1:0"
    trusted_proxy_hops: int = Field(default=0, ge=0, le=10)
    linger_milliseconds: float = Field(default=5.0, ge=0.0, le=1_000.0)
    max_in_flight_bytes: int = Field(default=32 * 1024 * 1024, ge=1024 * 1024)
    max_connections: int = Field(default=4_096, ge=1)
    head_seconds: float = Field(default=10.0, gt=0.0)
    body_seconds: float = Field(default=20.0, gt=0.0)
    keep_alive_seconds: int = Field(default=75, ge=1)
    max_requests: int = Field(default=4_096, ge=1)
    rate_limit_events_per_second: float = Field(default=0.0, ge=0.0, le=1_000_000.0)
    rate_limit_burst: int = Field(default=0, ge=0)
    admin_token_hashes: Listed = ()
    sources_refresh_seconds: float = Field(default=1.0, gt=0.0)
    consent_target: str = ""
    snowplow_post_paths: Annotated[Listed, AfterValidator(_paths)] = ()
    snowplow_redirect_hosts: Annotated[Listed, AfterValidator(_hosts)] = ()
    snowplow_cookie_name: str = Field(default="sp", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    snowplow_cookie_days: int = Field(default=365, ge=0, le=400)
    spool_directory: Annotated[Path | None, BeforeValidator(lambda given: given or None)] = None
    spool_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    spool_segment_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)


def environment() -> Mapping[str, str]:
    """What ``env:NAME`` in a source's web hook refers to."""
    return os.environ
