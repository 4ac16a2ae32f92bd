"""Merges of a workspace in the order of its commits: what replicas that remember people ask for."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX merges_of_workspace ON merges (workspace_id, merge_id)")


def downgrade() -> None:
    op.execute("DROP INDEX merges_of_workspace")
