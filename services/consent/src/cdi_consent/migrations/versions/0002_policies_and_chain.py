"""Policies, more of a purpose, and the chain of the ledger: lines that are there already are chained in the order of their recording."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from alembic import op
from sqlalchemy import text

from cdi_consent.domain.chain import SALT_BYTES, linked
from cdi_consent.domain.decisions import Decision
from cdi_kernel.clock import instant_of

revision = "0002"
down_revision = "0001"

BEFORE = (
    "ALTER TABLE purposes DISABLE TRIGGER append_only",
    "ALTER TABLE ledger DISABLE TRIGGER append_only",
    # 1 and 2: REQUIRE and ALLOW of cdi.consent.v1.DefaultPolicy.
    "ALTER TABLE purposes ADD COLUMN default_policy smallint",
    "UPDATE purposes SET default_policy = CASE WHEN allowed_by_default THEN 2 ELSE 1 END",
    """
    ALTER TABLE purposes
        ALTER COLUMN default_policy SET NOT NULL,
        DROP COLUMN allowed_by_default,
        ADD COLUMN legal_basis smallint NOT NULL DEFAULT 0,
        ADD COLUMN destinations text[] NOT NULL DEFAULT '{}',
        ADD COLUMN columns text[] NOT NULL DEFAULT '{}',
        ADD COLUMN regional_defaults json NOT NULL DEFAULT '[]'
    """,
    # regional_defaults: [[region, default policy], ...], sorted.
    """
    CREATE TABLE policies (
        workspace_id text COLLATE "C" NOT NULL,
        version integer NOT NULL,
        default_policy smallint NOT NULL,
        regional_defaults json NOT NULL,
        apply_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workspace_id, version)
    )
    """,
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policies EXECUTE FUNCTION refuse_change()",
    # What was answered, as it was sent; kept once, because one signal answers many purposes and many people send the same.
    "CREATE TABLE signals (digest bytea PRIMARY KEY, content bytea NOT NULL)",
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON signals EXECUTE FUNCTION refuse_change()",
    """
    ALTER TABLE ledger
        ADD COLUMN source smallint NOT NULL DEFAULT 0,
        ADD COLUMN purpose_version integer NOT NULL DEFAULT 0,
        ADD COLUMN policy_version integer NOT NULL DEFAULT 0,
        ADD COLUMN signal_digest bytea,
        ADD COLUMN chain_position bigint,
        ADD COLUMN previous_hash bytea,
        ADD COLUMN hash bytea,
        ADD COLUMN salt bytea,
        ADD COLUMN commitment bytea
    """,
    # The last link of each chain: finds a cut end, and saves looking for it at every line.
    """
    CREATE TABLE chain_heads (
        workspace_id text COLLATE "C" NOT NULL,
        subject_type text COLLATE "C" NOT NULL,
        subject_id text COLLATE "C" NOT NULL,
        chain_position bigint NOT NULL,
        previous_hash bytea NOT NULL,
        hash bytea NOT NULL,
        PRIMARY KEY (workspace_id, subject_type, subject_id)
    )
    """,
)

AFTER = (
    """
    INSERT INTO chain_heads SELECT DISTINCT ON (workspace_id, subject_type, subject_id)
        workspace_id, subject_type, subject_id, chain_position, previous_hash, hash
    FROM ledger ORDER BY workspace_id, subject_type, subject_id, chain_position DESC
    """,
    """
    ALTER TABLE ledger
        ALTER COLUMN chain_position SET NOT NULL, ALTER COLUMN previous_hash SET NOT NULL, ALTER COLUMN hash SET NOT NULL,
        ALTER COLUMN commitment SET NOT NULL
    """,
    # Lines that came from another id of the same profile, by the denial that they go back to.
    "CREATE INDEX ledger_inherited ON ledger (proof) WHERE source = 3",
    "CREATE UNIQUE INDEX ledger_chain ON ledger (workspace_id, subject_type, subject_id, chain_position)",
    "ALTER TABLE purposes ENABLE TRIGGER append_only",
    "ALTER TABLE ledger ENABLE TRIGGER append_only",
)

READ = """
DECLARE lines NO SCROLL CURSOR FOR
SELECT decision_id::text, workspace_id, subject_type, subject_id, purpose, granted, decide_time, record_time, proof
FROM ledger ORDER BY workspace_id, subject_type, subject_id, record_time, decide_time, decision_id
"""
CHAIN = """
UPDATE ledger AS l SET chain_position = k.chain_position, previous_hash = k.previous_hash, hash = k.hash,
    salt = k.salt, commitment = k.commitment
FROM unnest(CAST(:ids AS uuid[]), CAST(:positions AS bigint[]), CAST(:previous AS bytea[]), CAST(:hashes AS bytea[]),
    CAST(:salts AS bytea[]), CAST(:commitments AS bytea[]))
    AS k (decision_id, chain_position, previous_hash, hash, salt, commitment)
WHERE l.decision_id = k.decision_id
"""
_PAGE = 5_000


def upgrade() -> None:
    for statement in BEFORE:
        op.execute(statement)
    _chain()
    for statement in AFTER:
        op.execute(statement)


def _chain() -> None:
    """Chains what is there, one subject after the other."""
    bind = op.get_bind()
    bind.execute(text(READ))
    # The cursor sees the ledger as it was before, also while it is changed.
    subjects = groupby(_decisions(bind), key=lambda decision: decision.subject)
    lines = (line for _, own in subjects for line in linked(own, {}, lambda: os.urandom(SALT_BYTES)))
    while page := list(islice(lines, _PAGE)):
        links = [line.link for line in page]
        bind.execute(
            text(CHAIN),
            {
                "ids": [line.decision.decision_id for line in page],
                "positions": [link.position for link in links],
                "previous": [link.previous for link in links],
                "hashes": [link.digest for link in links],
                "salts": [line.seal.salt for line in page],
                "commitments": [line.seal.commitment for line in page],
            },
        )
    bind.execute(text("CLOSE lines"))


def _decisions(bind: Any) -> Iterator[Decision]:
    while rows := bind.execute(text(f"FETCH {_PAGE} FROM lines")).all():
        yield from map(_decision, rows)


def _decision(row: Sequence[Any]) -> Decision:
    decision_id, workspace_id, subject_type, subject_id, purpose, granted, decided, recorded, proof = row
    subject = workspace_id, subject_type, subject_id
    return Decision(decision_id, subject, purpose, granted, instant_of(decided), instant_of(recorded), proof)
