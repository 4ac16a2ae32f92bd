"""Purposes, the ledger, the decisions in force, the outbox.

Keys compare byte by byte (COLLATE "C"): ids have no language, and the order is the same on every server.
"""

from alembic import op

from cdi_runtime.store.outbox import OUTBOX_DDL

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE purposes (
        workspace_id text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        version integer NOT NULL,
        description text NOT NULL,
        categories text[] NOT NULL,
        allowed_by_default boolean NOT NULL,
        required_for_linking boolean NOT NULL,
        apply_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workspace_id, name, version)
    )
    """,
    """
    CREATE TABLE ledger (
        decision_id uuid PRIMARY KEY,
        workspace_id text COLLATE "C" NOT NULL,
        subject_type text COLLATE "C" NOT NULL,
        subject_id text COLLATE "C" NOT NULL,
        purpose text COLLATE "C" NOT NULL,
        granted boolean NOT NULL,
        decide_time timestamptz NOT NULL,
        record_time timestamptz NOT NULL,
        proof text NOT NULL
    )
    """,
    "CREATE INDEX ledger_subject ON ledger (workspace_id, subject_type, subject_id, decide_time DESC, decision_id DESC)",
    # One row per subject, because an event asks for all of them: purpose -> [granted, microseconds since 1970, decision id, proof].
    # Derived from the ledger, except that the time moves forward when the same answer is given again. Type json keeps the text.
    """
    CREATE TABLE current_decisions (
        workspace_id text COLLATE "C" NOT NULL,
        subject_type text COLLATE "C" NOT NULL,
        subject_id text COLLATE "C" NOT NULL,
        standings json NOT NULL,
        PRIMARY KEY (workspace_id, subject_type, subject_id)
    )
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END
    $$
    """,
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purposes EXECUTE FUNCTION refuse_change()",
    OUTBOX_DDL,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
