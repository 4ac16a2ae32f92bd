"""Less room for the indexes of identifiers: a hash instead of the texts, and no entry for what is found by its profile."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A hash index keeps 4 bytes instead of three texts, and a look-up reads one page of it however many there are. It cannot be unique, but
    # an exclusion constraint on it is the same promise; and it has one key, so the texts are one array.
    op.execute(
        """
        ALTER TABLE identifiers
            ADD CONSTRAINT identifiers_once EXCLUDE USING hash ((ARRAY[workspace_id, type, value]) WITH =),
            DROP CONSTRAINT identifiers_pkey
        """
    )
    # What a decision added is found by its profile, unless it was taken from there. Such a one names its origin from now on, also if that
    # is the profile that it has.
    op.execute(
        """
        UPDATE identifiers i SET origin_profile_id = i.profile_id FROM (SELECT DISTINCT profile_id FROM separations) s
        WHERE i.profile_id = s.profile_id AND i.origin_profile_id IS NULL
        """
    )
    op.execute("DROP INDEX identifiers_of_decision")
    op.execute("CREATE INDEX identifiers_moved ON identifiers (decision_id) WHERE origin_profile_id IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX identifiers_moved")
    op.execute("CREATE INDEX identifiers_of_decision ON identifiers (decision_id) WHERE decision_id > 0")
    op.execute("ALTER TABLE identifiers ADD PRIMARY KEY (workspace_id, type, value), DROP CONSTRAINT identifiers_once")
