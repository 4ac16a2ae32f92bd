"""The decisions that a withheld delivery rests on."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE withheld_deliveries ADD COLUMN decision_ids text[] NOT NULL DEFAULT '{}'")
