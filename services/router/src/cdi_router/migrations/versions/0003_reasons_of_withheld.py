"""Why a delivery was not made: also those of people who are suppressed or were erased leave a row, without anything of the person."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE withheld_deliveries ADD COLUMN reason text NOT NULL DEFAULT 'consent_denied'")
