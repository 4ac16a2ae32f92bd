"""By which of consent's tombstones people of a workspace were erased last, and when."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE workspaces ADD COLUMN tombstones bigint NOT NULL DEFAULT 0, ADD COLUMN erase_time timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE workspaces DROP COLUMN tombstones, DROP COLUMN erase_time")
