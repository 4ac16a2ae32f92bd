"""Machinery of a CDI service: lifecycle, message bus, RPC, store, telemetry."""

from cdi_runtime.lean import import_without

# 14 MB in every process for what no service uses: WebSockets to NATS and coloured tracebacks.
import_without("nats.aio.client", "aiohttp")
import_without("structlog", "rich")
