"""Lines of the ledger as they are read."""

from __future__ import annotations

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
