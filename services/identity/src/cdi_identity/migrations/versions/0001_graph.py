"""The identity graph: profiles, their identifiers, the log of merges, the outbox."""

from alembic import op

from cdi_runtime.store.outbox import OUTBOX_DDL

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # canonical_profile_id is NULL for a profile that was not merged: only merged ones need an entry in that index.
    op.execute(
        """
        CREATE TABLE profiles (
            profile_id uuid PRIMARY KEY,
            workspace_id text NOT NULL,
            ordinal bigint GENERATED ALWAYS AS IDENTITY,
            canonical_profile_id uuid,
            merges integer NOT NULL,
            traits bytea NOT NULL,
            create_time timestamptz NOT NULL
        ) WITH (fillfactor = 85)
        """
    )
    op.execute("CREATE INDEX profiles_merged ON profiles (canonical_profile_id) WHERE canonical_profile_id IS NOT NULL")
    # profile_id is always canonical; origin_profile_id is the profile that it was first seen on, so that a merge can be undone.
    op.execute(
        """
        CREATE TABLE identifiers (
            workspace_id text COLLATE "C" NOT NULL,
            type text COLLATE "C" NOT NULL,
            value text COLLATE "C" NOT NULL,
            profile_id uuid NOT NULL,
            origin_profile_id uuid NOT NULL,
            PRIMARY KEY (workspace_id, type, value)
        ) WITH (fillfactor = 90)
        """
    )
    op.execute("CREATE INDEX identifiers_of_profile ON identifiers (profile_id)")
    op.execute(
        """
        CREATE TABLE merges (
            merge_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            workspace_id text NOT NULL,
            canonical_profile_id uuid NOT NULL,
            merged_profile_id uuid NOT NULL,
            message_id text NOT NULL,
            merge_time timestamptz NOT NULL
        )
        """
    )
    op.execute(OUTBOX_DDL)


def downgrade() -> None:
    op.execute("DROP TABLE outbox, merges, identifiers, profiles")
