"""First tables: claims by epoch, progress and counts per partition, tracking plans with all their versions."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE claim_epochs (
        epoch integer PRIMARY KEY,
        open_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE claims (
        seen_time timestamptz NOT NULL DEFAULT now(),
        epoch integer NOT NULL,
        key bytea NOT NULL,
        place bytea NOT NULL,
        PRIMARY KEY (epoch, key)
    ) PARTITION BY LIST (epoch)
    """,
    "CREATE TABLE claims_1 PARTITION OF claims FOR VALUES IN (1)",
    "INSERT INTO claim_epochs (epoch) VALUES (1)",
    """
    CREATE TABLE progress (
        partition smallint PRIMARY KEY,
        sequence bigint NOT NULL,
        stored_us bigint NOT NULL
    )
    """,
    """
    CREATE TABLE outcome_counts (
        partition smallint NOT NULL,
        outcome smallint NOT NULL,
        reason text NOT NULL,
        events bigint NOT NULL,
        PRIMARY KEY (partition, outcome, reason)
    )
    """,
    """
    CREATE TABLE plan_revision (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        revision bigint NOT NULL
    )
    """,
    "INSERT INTO plan_revision (revision) VALUES (0)",
    """
    CREATE TABLE tracking_plans (
        workspace_id text NOT NULL,
        name text NOT NULL,
        version integer NOT NULL,
        document bytea NOT NULL,
        apply_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workspace_id, name, version)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
