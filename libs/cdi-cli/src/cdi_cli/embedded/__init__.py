"""NATS, Postgres and the services of CDI as child processes of this one: for `cdi up`, the demo, tests and benchmarks.

Plain synchronous calls with deadlines, so that they serve a command, a fixture and a benchmark alike. Every child
listens on 127.0.0.1 only, is stopped by its own pid, and dies with its parent. Deliberately absent: containers, daemons, a
supervisor that restarts what has died (a test or `cdi up` decides that).
"""

from cdi_cli.embedded.nats import NatsServer
from cdi_cli.embedded.postgres import PostgresServer
from cdi_cli.embedded.process import ChildProcess, ProcessFailed, free_port
from cdi_cli.embedded.service import ServiceProcess

__all__ = ["ChildProcess", "NatsServer", "PostgresServer", "ProcessFailed", "ServiceProcess", "free_port"]
