"""One service's own Postgres: transactions, the driver for hot paths, migrations, the outbox.

Deliberately absent: an ORM, sessions, and spans per statement (one span per transaction).
"""

from cdi_runtime.store.database import Database, raw
from cdi_runtime.store.faults import StoreUnavailable, translated
from cdi_runtime.store.outbox import OUTBOX_DDL, OutboxMessage, OutboxRelay, Publisher, enqueue, outbox_table
from cdi_runtime.store.readers import Readers
from cdi_runtime.store.schema import SchemaOutdated, verify

__all__ = [
    "OUTBOX_DDL",
    "Database",
    "OutboxMessage",
    "OutboxRelay",
    "Publisher",
    "Readers",
    "SchemaOutdated",
    "StoreUnavailable",
    "enqueue",
    "outbox_table",
    "raw",
    "translated",
    "verify",
]
