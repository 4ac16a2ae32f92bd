"""Destinations, waiting and given-up deliveries, progress and counts."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE destinations (
        destination_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        workspace_id text NOT NULL,
        name text NOT NULL,
        version integer NOT NULL,
        document bytea NOT NULL,
        apply_time timestamptz NOT NULL DEFAULT now(),
        UNIQUE (workspace_id, name)
    )
    """,
    """
    CREATE TABLE destination_versions (
        destination_id bigint NOT NULL REFERENCES destinations,
        version integer NOT NULL,
        document bytea NOT NULL,
        apply_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (destination_id, version)
    )
    """,
    # first_sequence: what a destination that is newer than the stream never saw lies below it.
    """
    CREATE TABLE progress (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        sequence bigint NOT NULL DEFAULT 0,
        source_sequence bigint NOT NULL DEFAULT 0,
        first_sequence bigint,
        PRIMARY KEY (destination_id, partition)
    )
    """,
    """
    CREATE TABLE parked_deliveries (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        sequence bigint NOT NULL,
        position integer NOT NULL,
        person bytea NOT NULL,
        message_id text NOT NULL,
        event bytea NOT NULL,
        PRIMARY KEY (destination_id, partition, sequence, position)
    )
    """,
    "CREATE INDEX parked_deliveries_of_person ON parked_deliveries (destination_id, partition, person, sequence, position)",
    """
    CREATE TABLE barriers (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        person bytea NOT NULL,
        due_time timestamptz NOT NULL,
        alone boolean NOT NULL,
        attempts integer NOT NULL,
        counted_attempts integer NOT NULL,
        first_attempt_time timestamptz,
        response_status integer,
        response_failure text,
        PRIMARY KEY (destination_id, partition, person)
    )
    """,
    "CREATE INDEX barriers_due ON barriers (destination_id, partition, due_time)",
    """
    CREATE TABLE dead_deliveries (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        sequence bigint NOT NULL,
        position integer NOT NULL,
        delivery_id text NOT NULL UNIQUE,
        message_id text NOT NULL,
        event bytea NOT NULL,
        reason text NOT NULL,
        response_status integer NOT NULL,
        response_body text NOT NULL,
        request_body bytea NOT NULL,
        attempts integer NOT NULL,
        first_attempt_time timestamptz NOT NULL,
        dead_time timestamptz NOT NULL,
        PRIMARY KEY (destination_id, partition, sequence, position)
    )
    """,
    """
    CREATE TABLE withheld_deliveries (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        sequence bigint NOT NULL,
        position integer NOT NULL,
        message_id text NOT NULL,
        purposes text[] NOT NULL,
        withhold_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (destination_id, partition, sequence, position)
    )
    """,
    """
    CREATE TABLE outcome_counts (
        destination_id bigint NOT NULL,
        partition integer NOT NULL,
        outcome integer NOT NULL,
        reason text NOT NULL,
        events bigint NOT NULL,
        PRIMARY KEY (destination_id, partition, outcome, reason)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
