"""Profiles of a workspace in the order in which they were made: what ListProfiles walks along."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX profiles_by_age ON profiles (workspace_id, ordinal) WHERE canonical_profile_id IS NULL")


def downgrade() -> None:
    op.execute("DROP INDEX profiles_by_age")
