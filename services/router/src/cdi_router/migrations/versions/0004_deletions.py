"""Calls that tell destinations to delete people: a queue that outlives the process."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # person: a PrivacyOrder with the ids, gone with the last call; steps: a ReportStepsRequest with what the other stores did.
    """
    CREATE TABLE deletion_orders (
        request_id text PRIMARY KEY,
        attempt integer NOT NULL,
        person bytea NOT NULL,
        steps bytea NOT NULL
    )
    """,
    # due_time: when it is tried or reported next; unset once it has ended and that was reported.
    """
    CREATE TABLE deletions (
        request_id text NOT NULL REFERENCES deletion_orders ON DELETE CASCADE,
        destination_id bigint NOT NULL,
        due_time timestamptz,
        status integer NOT NULL,
        detail text NOT NULL DEFAULT '',
        done integer NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        counted_attempts integer NOT NULL DEFAULT 0,
        first_attempt_time timestamptz,
        PRIMARY KEY (request_id, destination_id)
    )
    """,
    "CREATE INDEX deletions_due ON deletions (destination_id, due_time) WHERE due_time IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
