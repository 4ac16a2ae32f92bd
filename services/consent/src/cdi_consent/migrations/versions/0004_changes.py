"""Whose decisions in force have changed lately: what a replica remembers of a person is checked against it (``memory.py``)."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    # A row per change, for seconds. The digest is that of ``domain/known.py``: no id stands here.
    "CREATE TABLE changed_subjects (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), digest bytea NOT NULL)",
    "CREATE INDEX changed_subjects_xid ON changed_subjects (xid)",
    # One row: changes of transactions before this one are no longer told.
    "CREATE TABLE change_horizon (xid xid8 NOT NULL)",
    "INSERT INTO change_horizon VALUES ('0')",
    # By triggers, so that no writer can forget it, be it a replica of an older version.
    """
    CREATE FUNCTION note_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO changed_subjects (digest)
        SELECT sha256(convert_to(length(workspace_id) || ':' || workspace_id || subject_type || ':' || subject_id, 'UTF8')) FROM changed;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER note_inserted AFTER INSERT ON current_decisions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changes()
    """,
    """
    CREATE TRIGGER note_updated AFTER UPDATE ON current_decisions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changes()
    """,
    """
    CREATE TRIGGER note_deleted AFTER DELETE ON current_decisions
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changes()
    """,
    # Nothing up to this transaction is told any more: everybody forgets everything.
    """
    CREATE FUNCTION note_everything() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE change_horizon SET xid = (pg_current_xact_id()::text::bigint + 1)::text::xid8;
        RETURN NULL;
    END
    $$
    """,
    "CREATE TRIGGER note_truncated AFTER TRUNCATE ON current_decisions EXECUTE FUNCTION note_everything()",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
