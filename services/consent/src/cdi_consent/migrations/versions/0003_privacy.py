"""Privacy requests, tombstones, holdings; and the one change that the ledger allows: taking a person out of a line."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    # Keys of the installation that were made here, and the fingerprint of the one that digests are made with.
    "CREATE TABLE privacy_keys (name text PRIMARY KEY, content bytea NOT NULL)",
    # One row: counts the transactions that wrote tombstones. They take its lock, hence commit in its order.
    "CREATE TABLE tombstone_generation (generation bigint NOT NULL)",
    "INSERT INTO tombstone_generation VALUES (0)",
    # Never an id, only its keyed digest. suppress_time: when the request was made that suppressed or unsuppressed it last.
    """
    CREATE TABLE tombstones (
        workspace_id text COLLATE "C" NOT NULL,
        digest bytea NOT NULL,
        erased_before timestamptz,
        suppressed boolean NOT NULL DEFAULT false,
        suppress_time timestamptz,
        generation bigint NOT NULL,
        PRIMARY KEY (workspace_id, digest)
    )
    """,
    "CREATE INDEX tombstones_generation ON tombstones (generation)",
    # subjects: as given, people: all that were found; [[type, id], ...]; both gone once the request has ended well.
    # due_time: when it has to be looked at next; unset once it has ended.
    """
    CREATE TABLE privacy_requests (
        request_id uuid PRIMARY KEY,
        workspace_id text COLLATE "C" NOT NULL,
        verb smallint NOT NULL,
        status smallint NOT NULL,
        regulation text NOT NULL,
        subjects json,
        people json,
        profile_ids text[] NOT NULL DEFAULT '{}',
        create_time timestamptz NOT NULL,
        deadline_time timestamptz NOT NULL,
        order_time timestamptz,
        finish_time timestamptz,
        attempt integer NOT NULL DEFAULT 0,
        looks_left smallint NOT NULL DEFAULT 0,
        lookups integer NOT NULL DEFAULT 0,
        due_time timestamptz,
        expire_time timestamptz,
        report bytea,
        signature bytea,
        public_key text
    )
    """,
    "CREATE INDEX privacy_requests_due ON privacy_requests (due_time) WHERE due_time IS NOT NULL",
    "CREATE INDEX privacy_requests_expire ON privacy_requests (expire_time) WHERE expire_time IS NOT NULL",
    "CREATE INDEX privacy_requests_page ON privacy_requests (workspace_id, create_time DESC, request_id DESC)",
    """
    CREATE TABLE privacy_digests (
        request_id uuid NOT NULL REFERENCES privacy_requests ON DELETE CASCADE,
        workspace_id text COLLATE "C" NOT NULL,
        digest bytea NOT NULL,
        PRIMARY KEY (request_id, digest)
    )
    """,
    "CREATE INDEX privacy_digests_digest ON privacy_digests (workspace_id, digest)",
    # holdings_id: what the service sent last for an access request.
    """
    CREATE TABLE privacy_parts (
        request_id uuid NOT NULL REFERENCES privacy_requests ON DELETE CASCADE,
        service text NOT NULL,
        needed integer NOT NULL,
        told integer NOT NULL,
        reported integer NOT NULL DEFAULT 0,
        tellings integer NOT NULL,
        retell_time timestamptz NOT NULL,
        holdings_id uuid,
        PRIMARY KEY (request_id, service)
    )
    """,
    "CREATE INDEX privacy_parts_pending ON privacy_parts (service, request_id) WHERE reported < needed",
    """
    CREATE TABLE privacy_reports (
        request_id uuid NOT NULL REFERENCES privacy_requests ON DELETE CASCADE,
        service text NOT NULL,
        store text NOT NULL,
        attempt integer NOT NULL,
        status smallint NOT NULL,
        count bigint NOT NULL,
        detail text NOT NULL,
        report_time timestamptz NOT NULL,
        PRIMARY KEY (request_id, service, store, attempt)
    )
    """,
    # Rows of an access request as they were sent: JSON objects, one per line.
    """
    CREATE TABLE privacy_holdings (
        holdings_id uuid NOT NULL,
        part bigint NOT NULL,
        request_id uuid NOT NULL REFERENCES privacy_requests ON DELETE CASCADE,
        service text NOT NULL,
        holding text NOT NULL,
        rows bytea NOT NULL,
        PRIMARY KEY (holdings_id, part)
    )
    """,
    "CREATE INDEX privacy_holdings_request ON privacy_holdings (request_id, service, holding, part)",
    "CREATE INDEX ledger_signal ON ledger (signal_digest) WHERE signal_digest IS NOT NULL",
    "DROP TRIGGER append_only ON ledger",
    "CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON ledger EXECUTE FUNCTION refuse_change()",
    # A line whose salt is there may lose what is personal in it, once and for all; what the hash covers directly stays as it is.
    """
    CREATE FUNCTION allow_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        erased ledger := OLD;
    BEGIN
        erased.subject_id := NEW.subject_id;
        erased.proof := '';
        erased.signal_digest := NEW.signal_digest;
        erased.salt := NULL;
        IF OLD.salt IS NULL OR NEW.subject_id NOT LIKE 'erased:%' OR NEW IS DISTINCT FROM erased
            OR (OLD.signal_digest IS NULL) <> (NEW.signal_digest IS NULL) THEN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END
    $$
    """,
    "CREATE TRIGGER only_erasure BEFORE UPDATE ON ledger FOR EACH ROW EXECUTE FUNCTION allow_erasure()",
    "DROP TRIGGER append_only ON signals",
    "CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON signals EXECUTE FUNCTION refuse_change()",
    # A signal that no line needs any more may go.
    """
    CREATE FUNCTION refuse_needed_signal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM ledger WHERE signal_digest = OLD.digest) THEN
            RAISE EXCEPTION 'a line of the ledger needs the signal' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END
    $$
    """,
    "CREATE TRIGGER only_unneeded BEFORE DELETE ON signals FOR EACH ROW EXECUTE FUNCTION refuse_needed_signal()",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
