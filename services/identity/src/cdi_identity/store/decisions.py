"""Decisions in Postgres: one narrow row each; the identifiers that one added are found by its number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from asyncpg import Record
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.identity.v1 import profile_pb2, rules_pb2
from cdi_identity.domain.decisions import Cause, Decision, Demotion, Kind, Reason
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import StoredProfile
from cdi_identity.store.literals import array, microseconds, text
from cdi_runtime.store import raw

# Rows come in the order of the decisions, so their numbers do.
_INSERT: Final = """
WITH n AS (
    INSERT INTO decisions (decide_time, profile_id, rules_version, kind, message_id, event_type, detail)
    SELECT $1, profile_id, rules_version, kind, message_id, event_type, detail
    FROM unnest($2::text::uuid[], $3::int[], $4::smallint[], $5::text::text[], $6::text::text[], $7::bytea[])
        WITH ORDINALITY AS d (profile_id, rules_version, kind, message_id, event_type, detail, position)
    ORDER BY position
    RETURNING decision_id
)
SELECT string_agg(decision_id::text, ',' ORDER BY decision_id) FROM n
"""

# An event that only had identifiers left out comes again and again when it is delivered again: it is recorded once.
# Looked for by the event alone: a shared device has any number of decisions, and reading them for each event would take ever longer.
_INSERT_NEW: Final = """
INSERT INTO decisions (decide_time, profile_id, rules_version, kind, message_id, event_type, detail)
SELECT $1, profile_id, rules_version, kind, message_id, event_type, detail
FROM unnest($2::text::uuid[], $3::int[], $4::smallint[], $5::text::text[], $6::text::text[], $7::bytea[])
    WITH ORDINALITY AS n (profile_id, rules_version, kind, message_id, event_type, detail, position)
WHERE (SELECT bool_or(d.profile_id = n.profile_id) FROM decisions d WHERE d.message_id = n.message_id) IS NOT TRUE
ORDER BY position
"""

_COLUMNS: Final = "d.decision_id, d.decide_time, d.profile_id::text, d.rules_version, d.kind, d.message_id, d.event_type, d.detail"

# Decisions of a profile: those that it or one of its parts came out of; the merges that were undone since, and the separations, of both
# sides.
_OF_PROFILE: Final = f"""
SELECT {_COLUMNS} FROM decisions d WHERE d.decision_id IN (
    SELECT decision_id FROM decisions WHERE profile_id = ANY($1::uuid[]) AND decision_id < $2
    UNION SELECT decision_id FROM merges WHERE merged_profile_id = ANY($1::uuid[]) AND decision_id < $2
    UNION SELECT decision_id FROM separations WHERE profile_id = ANY($1::uuid[]) AND decision_id < $2
    ORDER BY decision_id DESC LIMIT $3
) ORDER BY d.decision_id DESC
"""

_OF_MESSAGE: Final = f"""
SELECT {_COLUMNS} FROM decisions d JOIN profiles p ON p.profile_id = d.profile_id
WHERE d.message_id = $1 AND p.workspace_id = $2 AND d.event_type LIKE $3 ORDER BY d.decision_id DESC LIMIT 1
"""

# Most identifiers are still where the decision put them, and have no entry in the index of those that moved.
_ADDED: Final = """
SELECT decision_id, workspace_id, type, value FROM identifiers WHERE origin_profile_id IS NOT NULL AND decision_id = ANY($1::bigint[])
UNION SELECT decision_id, workspace_id, type, value FROM identifiers WHERE decision_id = ANY($1::bigint[])
    AND profile_id IN (SELECT coalesce(canonical_profile_id, profile_id) FROM profiles WHERE profile_id = ANY($2::uuid[]))
ORDER BY decision_id, type, value
"""

_LAST: Final = (1 << 63) - 1


async def record(connection: AsyncConnection, decisions: Sequence[Decision], now: datetime) -> list[int]:
    """Stores decisions; returns the number of each, 0 for those that changed nothing (they are stored once per event)."""
    numbers = [0] * len(decisions)
    changing = [index for index, decision in enumerate(decisions) if decision.kind is not Kind.MATCHED]
    if changing:
        stored: str = await raw(connection).fetchval(_INSERT, now, *_rows([decisions[index] for index in changing]))
        for index, number in zip(changing, stored.split(","), strict=True):
            numbers[index] = int(number)
    if len(changing) < len(decisions):
        matched = {(decision.cause.message_id, decision.profile_id): decision for decision in decisions if decision.kind is Kind.MATCHED}
        await raw(connection).execute(_INSERT_NEW, now, *_rows(list(matched.values())))
    return numbers


async def of_profile(connection: AsyncConnection, profile: StoredProfile, before_id: int | None, limit: int) -> list[tuple[int, Decision]]:
    """See ``GraphStore.decisions``."""
    ids = [profile.profile_id, *profile.merged_profile_ids]
    rows = await raw(connection).fetch(_OF_PROFILE, ids, _LAST if before_id is None else before_id, limit)
    return await _read(connection, rows)


async def of_message(connection: AsyncConnection, workspace_id: str, message_id: str, event_type: str = "%") -> Decision | None:
    """The last decision recorded for an event or a request."""
    rows = await raw(connection).fetch(_OF_MESSAGE, text(message_id), workspace_id, event_type)
    found = await _read(connection, rows)
    return found[0][1] if found else None


async def _read(connection: AsyncConnection, rows: Sequence[Record]) -> list[tuple[int, Decision]]:
    added: dict[int, list[Identifier]] = {}
    if rows:
        profiles = list({row["profile_id"]: None for row in rows})
        for row in await raw(connection).fetch(_ADDED, [row["decision_id"] for row in rows], profiles):
            added.setdefault(row[0], []).append((row[1], row[2], row[3]))
    return [(row["decision_id"], _decision(row, added.get(row["decision_id"], []))) for row in rows]


def _rows(decisions: Sequence[Decision]) -> tuple[str, list[int], list[int], str, str, list[bytes | None]]:
    return (
        array([decision.profile_id for decision in decisions]),
        [decision.rules_version for decision in decisions],
        [int(decision.kind) for decision in decisions],
        array([text(decision.cause.message_id) for decision in decisions]),
        array([text(decision.cause.event_type) for decision in decisions]),
        [_detail(decision) for decision in decisions],
    )


def _detail(decision: Decision) -> bytes | None:
    """What most decisions do not have."""
    separated = decision.kind is Kind.SPLIT
    if not (decision.other_profile_ids or decision.demotions or decision.reason or separated):
        return None
    detail = rules_pb2.Decision(other_profile_ids=decision.other_profile_ids, reason=decision.reason)
    for demotion in decision.demotions:
        detail.demotions.add(
            identifier=_message(demotion.identifier),
            reason=rules_pb2.DemotionReason.ValueType(demotion.reason),
            limited_type=demotion.limited_type,
        )
    if separated:
        detail.identifiers.extend(map(_message, decision.identifiers))
    return detail.SerializeToString()


def _decision(row: Record, added: Sequence[Identifier]) -> Decision:
    detail = rules_pb2.Decision.FromString(row["detail"] or b"")
    left = [("", item.type, item.value) for item in detail.identifiers]
    return Decision(
        Kind(row["kind"]),
        row["profile_id"],
        Cause(row["message_id"], row["event_type"]),
        row["rules_version"],
        list(detail.other_profile_ids),
        [*added, *left],
        [Demotion(("", item.identifier.type, item.identifier.value), Reason(item.reason), item.limited_type) for item in detail.demotions],
        detail.reason,
        microseconds(row["decide_time"]),
    )


def _message(identifier: Identifier) -> profile_pb2.Identifier:
    return profile_pb2.Identifier(type=identifier[1], value=identifier[2])
