"""Fills the graph of ``bench.identity`` with people: the rows that the service would write for their first events, made by Postgres itself.

Making two million people through the service takes longer than all that is measured. ``verify`` holds these rows and those that the service
has written, against what the service's domain says. They come in the service's order and in portions as large as its batches, into tables
with all their indexes, so that heap and indexes grow as the service lets them grow.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from bench.people import EVENT_SECONDS, WORKSPACE, first_event, user_id
from cdi.identity.v1 import rules_pb2
from cdi_identity.domain import traits
from cdi_identity.domain.identifiers import fingerprint
from cdi_identity.domain.traits import Source

BATCH: Final = 2_000
_BATCHES_PER_COMMIT: Final = 25

# $1 and $2: people by number, and the fingerprint of each one's user id. The rest is what ``bench.people`` says in Python.
_FILL: Final = f"""
WITH people AS MATERIALIZED (
    SELECT person, uuidv7() AS profile_id, nextval(pg_get_serial_sequence('decisions', 'decision_id')) AS decision_id,
        md5(person::text) AS digits, person * 2654435761 % 4294967296 AS number, 'first-' || lpad(person::text, 9, '0') AS message_id,
        fingerprint
    FROM unnest($1::bigint[], $2::bigint[]) AS p (person, fingerprint)
), decided AS (
    INSERT INTO decisions (decision_id, decide_time, profile_id, rules_version, kind, message_id, event_type) OVERRIDING SYSTEM VALUE
    SELECT decision_id, now(), profile_id, 0, {rules_pb2.DECISION_KIND_CREATED}, message_id, 'identify' FROM people ORDER BY decision_id
), made AS (
    INSERT INTO profiles (profile_id, workspace_id, merges, traits, create_time)
    SELECT profile_id, '{WORKSPACE}', 0, convert_to(format(
        '[[[{EVENT_SECONDS}000000,"%s",%s]],{{"name":[0,"Person %s"],"plan":[0,"%s"],"age":[0,%s]}}]',
        message_id, fingerprint, person, CASE person % 2 WHEN 0 THEN 'free' ELSE 'pro' END, 20 + person % 60
    ), 'UTF8'), now()
    FROM people ORDER BY decision_id
)
INSERT INTO identifiers (workspace_id, type, value, profile_id, decision_id)
SELECT '{WORKSPACE}', i.type, i.value, profile_id, decision_id FROM people, LATERAL (VALUES
    (1, 'anonymous_id', concat_ws(
        '-', substr(digits, 1, 8), substr(digits, 9, 4), '4' || substr(digits, 14, 3), 'a' || substr(digits, 18, 3), substr(digits, 21)
    )),
    (2, 'user_id', 'u' || lpad(number::text, 10, '0')),
    (3, CASE person % 2 WHEN 1 THEN 'email' END, 'person.' || number || '@example.com')
) AS i (position, type, value) WHERE i.type IS NOT NULL ORDER BY decision_id, i.position
"""

_STORED: Final = """
SELECT p.workspace_id, p.canonical_profile_id IS NULL, p.merges, p.traits, d.rules_version, d.kind, d.message_id, d.event_type, d.detail,
    (SELECT array_agg(ARRAY[i.workspace_id, i.type, i.value] ORDER BY i.type) FROM identifiers i
     WHERE i.profile_id = p.profile_id AND i.decision_id = d.decision_id AND i.origin_profile_id IS NULL)
FROM profiles p JOIN decisions d ON d.profile_id = p.profile_id WHERE d.message_id = $1
"""


async def fill(url: str, first: int, count: int) -> None:
    """Adds people; nobody else may write meanwhile.

    Args:
        url: of the service's database.
        first: number of the first person.
        count: people.
    """
    connection = await asyncpg.connect(url)
    try:
        end, commit = first + count, BATCH * _BATCHES_PER_COMMIT
        for begin in range(first, end, commit):
            async with connection.transaction():
                for start in range(begin, min(begin + commit, end), BATCH):
                    numbers = range(start, min(start + BATCH, end))
                    await connection.execute(_FILL, numbers, [_fingerprint(number) for number in numbers])
    finally:
        await connection.close()


async def verify(url: str, people: range) -> None:
    """Compares what is stored of people with what the service stores for their first events.

    Raises:
        RuntimeError: it is not the same.
    """
    connection = await asyncpg.connect(url)
    try:
        for person in people:
            rows = [tuple(row) for row in await connection.fetch(_STORED, first_event(person).message_id)]
            if rows != [_expected(person)]:
                raise RuntimeError(f"person {person} is not stored as the service stores people")
    finally:
        await connection.close()


def _expected(person: int) -> tuple[Any, ...]:
    event = first_event(person)
    source = Source(EVENT_SECONDS * 1_000_000, event.message_id, _fingerprint(person))
    document = traits.to_document(traits.observed(event.traits, source))
    named = sorted([WORKSPACE, item.type, item.value] for item in event.identifiers)
    return WORKSPACE, True, 0, document, 0, rules_pb2.DECISION_KIND_CREATED, event.message_id, event.event_type, None, named


def _fingerprint(person: int) -> int:
    """Of the strongest identifier."""
    return fingerprint((WORKSPACE, "user_id", user_id(person)))
