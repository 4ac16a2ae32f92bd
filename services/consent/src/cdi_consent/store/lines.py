"""Lines of the ledger as they are read and written."""

from __future__ import annotations

import hashlib
from typing import Final

import asyncpg

from cdi_consent.domain.chain import Line, Link, Seal
from cdi_consent.domain.decisions import Decision, Source
from cdi_kernel.clock import instant_of

LINE: Final = """
SELECT l.decision_id::text AS decision_id, l.workspace_id, l.subject_type, l.subject_id, l.purpose, l.granted, l.decide_time, l.record_time,
    l.proof, l.source, l.purpose_version, l.policy_version, l.signal_digest, s.content, l.chain_position, l.previous_hash, l.hash,
    l.salt, l.commitment
FROM ledger AS l LEFT JOIN signals AS s ON s.digest = l.signal_digest
"""
"""What ``line_of`` reads."""


# Under the locks of the subjects, hence nobody else adds such a line or moves such a head meanwhile.
CHAINS: Final = """
SELECT
    (
        SELECT coalesce(json_agg(decision_id), '[]')::text FROM ledger
        WHERE decision_id = ANY (ARRAY(SELECT json_array_elements_text($1)::uuid))
    ),
    (
        SELECT coalesce(json_agg(json_build_array(
            h.workspace_id, h.subject_type, h.subject_id, h.chain_position, encode(h.previous_hash, 'hex'), encode(h.hash, 'hex')
        )), '[]')::text
        FROM ROWS FROM (json_array_elements_text($2), json_array_elements_text($3), json_array_elements_text($4))
            AS k (workspace_id, subject_type, subject_id)
        JOIN chain_heads AS h USING (workspace_id, subject_type, subject_id)
    )
"""

RECORD: Final = """
INSERT INTO ledger (decision_id, workspace_id, subject_type, subject_id, purpose, granted, decide_time, record_time, proof,
    source, purpose_version, policy_version, signal_digest, chain_position, previous_hash, hash, salt, commitment)
SELECT decision_id::uuid, workspace_id, subject_type, subject_id, purpose, granted::boolean,
    to_timestamp(decide_us::bigint / 1000000) + decide_us::bigint % 1000000 * interval '1 microsecond',
    to_timestamp(record_us::bigint / 1000000) + record_us::bigint % 1000000 * interval '1 microsecond',
    proof, source::smallint, purpose_version::integer, policy_version::integer, decode(nullif(signal_digest, ''), 'hex'),
    chain_position::bigint, decode(previous_hash, 'hex'), decode(hash, 'hex'), decode(salt, 'hex'), decode(commitment, 'hex')
FROM ROWS FROM (
    json_array_elements_text($1), json_array_elements_text($2), json_array_elements_text($3), json_array_elements_text($4),
    json_array_elements_text($5), json_array_elements_text($6), json_array_elements_text($7), json_array_elements_text($8),
    json_array_elements_text($9), json_array_elements_text($10), json_array_elements_text($11), json_array_elements_text($12),
    json_array_elements_text($13), json_array_elements_text($14), json_array_elements_text($15), json_array_elements_text($16),
    json_array_elements_text($17), json_array_elements_text($18)
) AS k (decision_id, workspace_id, subject_type, subject_id, purpose, granted, decide_us, record_us, proof,
    source, purpose_version, policy_version, signal_digest, chain_position, previous_hash, hash, salt, commitment)
"""

PUT_HEADS: Final = """
INSERT INTO chain_heads (workspace_id, subject_type, subject_id, chain_position, previous_hash, hash)
SELECT workspace_id, subject_type, subject_id, chain_position::bigint, decode(previous_hash, 'hex'), decode(hash, 'hex')
FROM ROWS FROM (
    json_array_elements_text($1), json_array_elements_text($2), json_array_elements_text($3), json_array_elements_text($4),
    json_array_elements_text($5), json_array_elements_text($6)
) AS k (workspace_id, subject_type, subject_id, chain_position, previous_hash, hash)
ON CONFLICT (workspace_id, subject_type, subject_id) DO UPDATE
    SET chain_position = excluded.chain_position, previous_hash = excluded.previous_hash, hash = excluded.hash
"""

KEEP_SIGNALS: Final = """
INSERT INTO signals (digest, content) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING
"""


def line_of(row: asyncpg.Record) -> Line:
    """A row of ``LINE``. A signal that is gone is an empty one, which the line's commitment does not say."""
    decision = Decision(
        row["decision_id"],
        (row["workspace_id"], row["subject_type"], row["subject_id"]),
        row["purpose"],
        row["granted"],
        instant_of(row["decide_time"]),
        instant_of(row["record_time"]),
        row["proof"],
        Source(row["source"]),
        row["purpose_version"],
        row["policy_version"],
        row["content"] or b"",
    )
    link = Link(row["chain_position"], row["previous_hash"], row["hash"])
    return Line(decision, link, Seal(row["salt"] or b"", row["commitment"]))


def written(decision: Decision) -> tuple[object, ...]:
    """The columns of a decision, in the order of ``RECORD``."""
    decision_id, subject, purpose, granted, decide_us, record_us, proof, source, purpose_version, policy_version, signal = decision
    digest = hashlib.sha256(signal).hexdigest() if signal else ""
    versions = int(source), purpose_version, policy_version
    return decision_id, *subject, purpose, granted, decide_us, record_us, proof, *versions, digest


def hexed(link: Link) -> tuple[int, str, str]:
    """The columns of a link, in the order of ``RECORD`` and ``PUT_HEADS``."""
    return link.position, link.previous.hex(), link.digest.hex()
