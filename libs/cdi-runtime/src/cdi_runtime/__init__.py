"""Machinery of a CDI service: lifecycle, message bus, RPC, store, telemetry."""
