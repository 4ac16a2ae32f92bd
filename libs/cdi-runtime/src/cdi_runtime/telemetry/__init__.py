"""Traces, metrics and logs of a process. Event content never appears in any of them.

Deliberately absent: automatic instrumentation. A span, a log line or a metric call belongs to a batch, an RPC or a transaction.
"""

from cdi_runtime.telemetry.logs import configure_logs, logger
from cdi_runtime.telemetry.providers import configure, prometheus_text, shut_down, tracer
from cdi_runtime.telemetry.spans import batch_span, chosen, event_span, is_sampled, traceparent_of

__all__ = [
    "batch_span",
    "chosen",
    "configure",
    "configure_logs",
    "event_span",
    "is_sampled",
    "logger",
    "prometheus_text",
    "shut_down",
    "traceparent_of",
    "tracer",
]
