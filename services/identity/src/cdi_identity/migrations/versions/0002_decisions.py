"""Rules per workspace, decisions, separations; which decision added an identifier."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What a batch that holds no lock has to know of a workspace; a workspace without a row has version 0 and no splits.
    op.execute(
        """
        CREATE TABLE workspaces (
            workspace_id text COLLATE "C" PRIMARY KEY,
            rules_version integer NOT NULL DEFAULT 0,
            splits bigint NOT NULL DEFAULT 0
        )
        """
    )
    op.execute(
        """
        CREATE TABLE rules (
            workspace_id text COLLATE "C" NOT NULL,
            version integer NOT NULL,
            document bytea NOT NULL,
            apply_time timestamptz NOT NULL,
            PRIMARY KEY (workspace_id, version)
        )
        """
    )
    # Fixed widths first: no padding. The identifiers that a decision added name it, so that no value is stored twice; the detail holds
    # only what most decisions do not have (demotions, merged profiles, an operator's reason).
    op.execute(
        """
        CREATE TABLE decisions (
            decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            decide_time timestamptz NOT NULL,
            profile_id uuid NOT NULL,
            rules_version integer NOT NULL,
            kind smallint NOT NULL,
            message_id text NOT NULL,
            event_type text NOT NULL,
            detail bytea
        )
        """
    )
    op.execute("CREATE INDEX decisions_of_profile ON decisions (profile_id)")
    # A fifth of a B-tree's size: it keeps a number for each text.
    op.execute("CREATE INDEX decisions_of_message ON decisions USING hash (message_id)")
    # A constant default rewrites nothing: identifiers from before have no decision.
    op.execute("ALTER TABLE identifiers ADD COLUMN decision_id bigint NOT NULL DEFAULT 0")
    # NULL stands for profile_id, as most have it. No update of a row can stay on its page (profile_id is indexed): no room is kept for it.
    op.execute("ALTER TABLE identifiers ALTER COLUMN origin_profile_id DROP NOT NULL, SET (fillfactor = 100)")
    op.execute("ALTER TABLE profiles SET (fillfactor = 95)")
    op.execute("CREATE INDEX identifiers_of_decision ON identifiers (decision_id) WHERE decision_id > 0")
    op.execute("ALTER TABLE merges ADD COLUMN decision_id bigint NOT NULL DEFAULT 0, ADD COLUMN undone boolean NOT NULL DEFAULT false")
    op.execute("CREATE INDEX merges_of_merged ON merges (merged_profile_id)")
    # Both directions of a pair. The ids are those at the time of the split: which persons they belong to now, profiles says.
    op.execute(
        """
        CREATE TABLE separations (
            profile_id uuid NOT NULL,
            other_profile_id uuid NOT NULL,
            decision_id bigint NOT NULL,
            PRIMARY KEY (profile_id, other_profile_id)
        )
        """
    )
    # Its messages are packed protobuf: compressing them costs more than it saves, for the second that they live.
    op.execute("ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DROP TABLE separations, decisions, rules, workspaces")
    op.execute("DROP INDEX merges_of_merged")
    op.execute("ALTER TABLE merges DROP COLUMN decision_id, DROP COLUMN undone")
    op.execute("UPDATE identifiers SET origin_profile_id = profile_id WHERE origin_profile_id IS NULL")
    op.execute("ALTER TABLE identifiers DROP COLUMN decision_id, ALTER COLUMN origin_profile_id SET NOT NULL")
