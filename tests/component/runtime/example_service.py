"""A service that does nothing, for the tests of the life cycle. ``CDI_BEHAVIOUR`` chooses how it misbehaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import ClassVar, Literal

import duckdb  # noqa: F401  a binding that reports on stderr what it was not allowed to let go of at the end

from cdi_runtime.rpc import serve
from cdi_runtime.service import ServiceContext, ServiceSettings, run_service
from cdi_runtime.store import Database


class ExampleSettings(ServiceSettings):
    service_name: ClassVar[str] = "example"
    migrations: ClassVar[str | None] = "example_migrations"

    behaviour: Literal["good", "slow-start", "fails-start", "fails-later", "slow-drain"] = "good"


async def fail_soon() -> None:
    await asyncio.sleep(0.1)
    raise RuntimeError("someone@example.com")


@contextlib.asynccontextmanager
async def bootstrap(settings: ExampleSettings, context: ServiceContext) -> AsyncIterator[None]:
    if settings.behaviour == "slow-start":
        await asyncio.sleep(60)
    if settings.behaviour == "fails-start":
        raise RuntimeError("no such thing")
    if settings.behaviour == "fails-later":
        context.spawn(fail_soon(), "fail-soon")
    assert settings.database_url is not None
    async with (
        Database.connect(settings.database_url.get_secret_value()) as database,
        context.probing("database", database.ping, every=0.2),
        serve(context, settings.grpc_address),
    ):
        context.announce("http", "127.0.0.1:1")
        yield
        if settings.behaviour == "slow-drain":
            await asyncio.sleep(60)


if __name__ == "__main__":
    run_service(bootstrap, ExampleSettings)
