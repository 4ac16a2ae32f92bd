"""Erasing people from the graph, and reading all that is stored of one.

No tombstones: profile ids never come again, an event of ENRICHED counts only for a profile that is in the graph, and nothing reads IDENTITY
back into it. What could bring somebody back is an event that consent judged before the order. Whoever changes the graph looks, under its
lock, whether somebody was erased by tombstones that the batch was judged without; then it has to be judged again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.identity.v1 import rules_pb2
from cdi_identity.domain import traits
from cdi_identity.domain.decisions import Kind
from cdi_identity.ports_persons import Person
from cdi_identity.store.announcing import Announcements
from cdi_identity.store.literals import array, columns, moment
from cdi_identity.store.locking import hold
from cdi_runtime.store import Database, OutboxMessage, enqueue, raw

PROFILES: Final = "profiles"
_PAGE: Final = 500

# $1 to $3: the people by number; profile ids, also merged ones. $4 to $7: their identifiers. A profile that only an identifier leads to is
# the person's if the order names no profile, or if it was made after the order; any other one has taken the identifier over since.
_FIND: Final = """
WITH led AS (
    SELECT s.number, i.profile_id, s.alone, s.before
    FROM unnest($4::int[], $5::text::text[], $6::text::text[], $7::text::text[], $8::boolean[], $9::timestamptz[])
        AS s (number, workspace_id, type, value, alone, before)
    JOIN identifiers i ON ARRAY[i.workspace_id, i.type, i.value] = ARRAY[s.workspace_id, s.type, s.value]
), canonical AS (
    SELECT n.number, coalesce(p.canonical_profile_id, p.profile_id) AS profile_id
    FROM unnest($1::int[], $2::text::text[], $3::text::uuid[]) AS n (number, workspace_id, profile_id)
    JOIN profiles p ON p.profile_id = n.profile_id AND p.workspace_id = n.workspace_id
    UNION SELECT led.number, led.profile_id FROM led JOIN profiles p ON p.profile_id = led.profile_id
    WHERE led.alone OR p.create_time > led.before
)
SELECT c.number, c.profile_id::text FROM canonical c
UNION SELECT c.number, p.profile_id::text FROM canonical c JOIN profiles p ON p.canonical_profile_id = c.profile_id
"""

_OF_PROFILES: Final[Mapping[str, str]] = {
    "computed_values": "DELETE FROM computed_values WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    "tallies": "DELETE FROM tallies WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    "contributions": "DELETE FROM contributions WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    "identifiers": "DELETE FROM identifiers WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    "decisions": "DELETE FROM decisions WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    "merges": "DELETE FROM merges WHERE merged_profile_id = ANY($1::text::uuid[]) RETURNING merged_profile_id::text",
    "separations": "DELETE FROM separations WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
    PROFILES: "DELETE FROM profiles WHERE profile_id = ANY($1::text::uuid[]) RETURNING profile_id::text",
}
"""By table, in this order; what is deleted, by its profile."""

_FOES: Final = "DELETE FROM separations WHERE other_profile_id = ANY($1::text::uuid[])"
_TAKEN_OVER: Final = """
DELETE FROM identifiers i USING unnest($1::text::text[], $2::text::text[], $3::text::text[]) AS k (workspace_id, type, value)
WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[k.workspace_id, k.type, k.value]
RETURNING i.workspace_id, i.profile_id::text
"""
# A decision about somebody else may tell of an identifier that it left out. What is decided stays, its detail does not.
_DETAILS: Final = """
UPDATE decisions SET detail = NULL WHERE detail IS NOT NULL AND EXISTS (
    SELECT FROM unnest($1::bytea[]) AS value WHERE position(value IN detail) > 0
)
"""
# Identifiers have gone, not only come together: what a batch has read without the lock holds no more. And what consent judged before it
# knew of the erasure must not bring anybody back.
_ERASED: Final = """
INSERT INTO workspaces AS w (workspace_id, splits, tombstones, erase_time)
SELECT k.workspace_id, 1, k.tombstones, now() FROM unnest($1::text::text[], $2::bigint[]) AS k (workspace_id, tombstones)
ON CONFLICT (workspace_id) DO UPDATE SET splits = w.splits + 1, erase_time = now(), tombstones = CASE
    WHEN w.erase_time > now() - interval '1 hour' THEN greatest(w.tombstones, excluded.tombstones) ELSE excluded.tombstones END
"""

_HELD: Final[Mapping[str, str]] = {
    PROFILES: """
        SELECT profile_id::text, canonical_profile_id::text, create_time, traits FROM profiles WHERE profile_id = ANY($1::text::uuid[])
    """,
    "identifiers": """
        SELECT i.type, i.value, i.profile_id::text, i.origin_profile_id::text, d.decide_time AS link_time, d.message_id
        FROM identifiers i LEFT JOIN decisions d ON d.decision_id = i.decision_id WHERE i.profile_id = ANY($1::text::uuid[])
    """,
    "decisions": """
        SELECT profile_id::text, decide_time, kind, rules_version, message_id, event_type, detail
        FROM decisions WHERE profile_id = ANY($1::text::uuid[]) ORDER BY decision_id
    """,
    "merges": """
        SELECT canonical_profile_id::text, merged_profile_id::text, message_id, merge_time, undone
        FROM merges WHERE merged_profile_id = ANY($1::text::uuid[]) ORDER BY merge_id
    """,
    "computed_traits": """
        SELECT t.name, v.value, v.update_time, v.profile_id::text
        FROM computed_values v JOIN computed_traits t USING (trait_id) WHERE v.profile_id = ANY($1::text::uuid[]) ORDER BY t.name
    """,
}


class PostgresPersons:
    """The ``PersonStore`` on one service's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, people: Sequence[Person], now_us: int) -> Sequence[Mapping[str, int]]:
        """See ``PersonStore``. The locks keep every batch out that could still write to the profiles."""
        identifiers = [one for person in people for one in person.identifiers]
        workspace_ids = sorted({person.workspace_id for person in people})
        counts: list[Counter[str]] = [Counter() for _ in people]
        async with self._database.transaction() as connection:
            await hold(connection, workspace_ids)
            driver = raw(connection)
            owners = await _owners(connection, people)
            ids = array(sorted(owners))
            for table, statement in _OF_PROFILES.items():
                for (profile_id,) in await driver.fetch(statement, ids):
                    for number in owners[profile_id]:
                        counts[number][table] += 1
            await driver.execute(_FOES, ids)
            touched = {(people[min(numbers)].workspace_id, profile_id) for profile_id, numbers in owners.items()}
            touched |= {tuple(row) for row in await driver.fetch(_TAKEN_OVER, *columns(identifiers))}
            await enqueue(connection, _told(sorted(touched), moment(now_us)))
            newest = [max(one.tombstones for one in people if one.workspace_id == workspace_id) for workspace_id in workspace_ids]
            await driver.execute(_ERASED, array(workspace_ids), newest)
        values = sorted({value.encode() for _, _, value in identifiers})
        if values:
            async with self._database.transaction() as connection:
                await raw(connection).execute(_DETAILS, values)
        return counts

    async def held(self, person: Person) -> AsyncIterator[tuple[str, Sequence[Mapping[str, Any]]]]:
        """See ``PersonStore``."""
        async with self._database.transaction() as connection:
            ids = array(sorted(await _owners(connection, [person])))
            driver = raw(connection)
            for table, statement in _HELD.items():
                rows: list[dict[str, Any]] = []
                async for row in driver.cursor(statement, ids, prefetch=_PAGE):
                    rows.append(dict(row))
                    if len(rows) == _PAGE:
                        yield table, list(map(_shown, rows))
                        rows = []
                if table == PROFILES:
                    yield "traits", [told for row in rows for told in _traits(row)]
                yield table, list(map(_shown, rows))


def _told(touched: Iterable[tuple[str, str]], now: datetime) -> list[OutboxMessage]:
    """What is to be told of an erasure: profiles, by workspace, and nothing of what they had."""
    announcements = Announcements(now)
    for workspace_id, profile_id in touched:
        announcements[workspace_id].reread(profile_id)
    return announcements.messages()


async def _owners(connection: AsyncConnection, people: Sequence[Person]) -> dict[str, set[int]]:
    """Profile id → the people, by number, whose it is."""
    profiles = [(number, person.workspace_id, one) for number, person in enumerate(people) for one in person.profile_ids]
    identifiers = [(number, *one, person) for number, person in enumerate(people) for one in person.identifiers]
    rows = await raw(connection).fetch(
        _FIND,
        [number for number, _, _ in profiles],
        array([workspace_id for _, workspace_id, _ in profiles]),
        array([profile_id for _, _, profile_id in profiles]),
        [number for number, *_ in identifiers],
        *columns([(workspace_id, kind, value) for _, workspace_id, kind, value, _ in identifiers]),
        [not person.profile_ids for *_, person in identifiers],
        [moment(person.before_us) for *_, person in identifiers],
    )
    owners: dict[str, set[int]] = {}
    for number, profile_id in rows:
        owners.setdefault(profile_id, set()).add(number)
    return owners


def _shown(row: dict[str, Any]) -> Mapping[str, Any]:
    """A row without what only the service can read."""
    shown = {name: value for name, value in row.items() if name not in ("traits", "detail")}
    if row.get("detail"):
        detail = rules_pb2.Decision.FromString(row["detail"])
        shown["left_out"] = [f"{each.identifier.type}:{each.identifier.value}" for each in detail.demotions]
        shown["reason"] = detail.reason
    if "kind" in row:
        shown["kind"] = Kind(row["kind"]).name.lower()
    return shown


def _traits(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        {
            "profile_id": row["profile_id"],
            "name": name,
            "value": trait.value,
            "event_time_us": trait.time_us,
            "message_id": trait.source.message_id,
        }
        for name, trait in traits.from_document(row["traits"]).items()
    ]
