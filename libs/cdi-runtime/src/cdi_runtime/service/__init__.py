"""The life of a service process: settings, logs, readiness, start, drain, exit.

Deliberately absent: any word of the domain, and any server but the small one for operators.
"""

from cdi_runtime.service.context import Readiness, ServiceContext
from cdi_runtime.service.lifecycle import Bootstrap, run_service
from cdi_runtime.service.settings import Listed, ServiceSettings, effective_settings, unknown_names
from cdi_runtime.telemetry.logs import configure_logs, logger

__all__ = [
    "Bootstrap",
    "Listed",
    "Readiness",
    "ServiceContext",
    "ServiceSettings",
    "configure_logs",
    "effective_settings",
    "logger",
    "run_service",
    "unknown_names",
]
