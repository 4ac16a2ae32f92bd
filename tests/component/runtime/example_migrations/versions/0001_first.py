"""The first tables."""

from alembic import op

from cdi_runtime.store import OUTBOX_DDL

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE example (id bigint PRIMARY KEY, name text UNIQUE)")
    op.execute(OUTBOX_DDL)
