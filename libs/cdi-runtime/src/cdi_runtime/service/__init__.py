"""The life of a service process: settings, logs, readiness, start, drain, exit.

Deliberately absent: any word of the domain, and any HTTP server but a small one (``http``), which operators and back offices have.
"""

from cdi_runtime.service.context import Readiness, ServiceContext
from cdi_runtime.service.http import Answering, HttpAnswer, HttpLimits, HttpRequest, serve_http
from cdi_runtime.service.lifecycle import Bootstrap, run_service
from cdi_runtime.service.settings import Listed, ServiceSettings, effective_settings, unknown_names
from cdi_runtime.telemetry.logs import configure_logs, logger

__all__ = [
    "Answering",
    "Bootstrap",
    "HttpAnswer",
    "HttpLimits",
    "HttpRequest",
    "Listed",
    "Readiness",
    "ServiceContext",
    "ServiceSettings",
    "configure_logs",
    "effective_settings",
    "logger",
    "run_service",
    "serve_http",
    "unknown_names",
]
