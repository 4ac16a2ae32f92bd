"""Identifiers can be replicated logically: the whole row names what is changed."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The exclusion constraint is no replica identity, and without one every merge of a published database would fail. Nothing is rewritten;
    # it costs only where wal_level is logical: the old row in the log, for each row that is updated or deleted.
    op.execute("ALTER TABLE identifiers REPLICA IDENTITY FULL")


def downgrade() -> None:
    op.execute("ALTER TABLE identifiers REPLICA IDENTITY DEFAULT")
