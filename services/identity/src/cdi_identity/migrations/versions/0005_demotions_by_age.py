"""Decisions that only left identifiers out, by age: what retention deletes."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX decisions_unchanging ON decisions (decide_time) WHERE kind = 4")


def downgrade() -> None:
    op.execute("DROP INDEX decisions_unchanging")
