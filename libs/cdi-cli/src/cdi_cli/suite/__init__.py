"""The six services with their servers, started and stopped in order: for `cdi up`, the demo, e2e tests and benchmarks.

``Suite`` owns the processes; ``Endpoints`` is what everyone else needs to find them and is what ``state.json`` holds.
Deliberately absent: a restart policy (``Supervisor`` adds it for `cdi up`), containers, anything that a service owns.
"""

from cdi_cli.suite.endpoints import Endpoints, SuiteNotRunning, find_suite
from cdi_cli.suite.health import Health, probe
from cdi_cli.suite.services import SERVICES
from cdi_cli.suite.suite import Suite
from cdi_cli.suite.supervisor import Supervisor

__all__ = ["SERVICES", "Endpoints", "Health", "Suite", "SuiteNotRunning", "Supervisor", "find_suite", "probe"]
