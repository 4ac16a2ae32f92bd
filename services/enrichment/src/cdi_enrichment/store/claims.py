"""Claims in Postgres, in one table per epoch, so that expiry is a DROP (docs/adr/0004-dedupe-store.md).

An epoch lasts a day. New claims go into the newest epoch; the one before it is only read; older ones are dropped. Hence the window
is between one and two days. Who claims holds a shared lock until commit, who opens an epoch holds it exclusively: there is never a
moment in which two transactions write to different epochs, and so a claim is unique over all of them, whatever the clocks say.

Most duplicates come soon and to the same replica, so the newest claims are also kept in memory. What is left is new almost always:
it is inserted as if it were, at half the cost of ``ON CONFLICT``, and carefully only where that fails.

Keys and places travel as one ``bytea`` each, cut apart by Postgres: the driver takes five times as long for an array of as many parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from struct import Struct
from typing import Final

import asyncpg
from sqlalchemy import text

from cdi_enrichment.domain.claims import KEY_BYTES, Place
from cdi_enrichment.ports import SeenEvent
from cdi_runtime.store import Database, raw
from cdi_runtime.telemetry import logger

EPOCH: Final = timedelta(hours=24)
"""How long claims go into one table. The dedupe window is at least this long."""

_LOCK: Final = 0x0CD1_E001
_REMEMBERED: Final = 16_384
_PLACE: Final = Struct(">QIH")
"""A place as it is stored: sequence, position, partition."""

_log = logger(__name__)

_LOCK_SHARED = "SELECT pg_advisory_xact_lock_shared($1)"
_EPOCHS = "SELECT epoch FROM claim_epochs ORDER BY epoch DESC"
_HOLDERS = f"""
    SELECT key, place FROM claims
    WHERE epoch = ANY($1::int[])
    AND key = ANY(ARRAY(SELECT substring($2::bytea FROM i * {KEY_BYTES} + 1 FOR {KEY_BYTES}) FROM generate_series(0, $3 - 1) AS i))
"""
_CLAIM_NEW = f"""
    INSERT INTO claims (epoch, key, place)
    SELECT $1, substring($2::bytea FROM i * {KEY_BYTES} + 1 FOR {KEY_BYTES}),
           substring($3::bytea FROM i * {_PLACE.size} + 1 FOR {_PLACE.size})
    FROM generate_series(0, $4 - 1) AS i
"""
_CLAIM_FREE = f"{_CLAIM_NEW} ON CONFLICT DO NOTHING RETURNING key"
_SEEN = "SELECT place, seen_time FROM claims WHERE key = :key ORDER BY epoch LIMIT 1"


class RecentClaims:
    """Holders of the keys that were claimed or found last, in two generations: when the newer one is full, the older one goes.

    Args:
        size: keys of one generation.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._newer: dict[bytes, Place] = {}
        self._older: dict[bytes, Place] = {}

    def holders(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        """The keys that are remembered, with their holders. A holder never changes while its claim lives."""
        newer, older = self._newer, self._older
        return {key: place for key in keys if (place := newer.get(key) or older.get(key)) is not None}

    def remember(self, claims: Mapping[bytes, Place]) -> None:
        """Remembers committed claims: keys with their holders."""
        if len(self._newer) >= self._size:
            self._newer, self._older = {}, self._newer
        self._newer.update(claims)


class ClaimStore:
    """Claims of event ids; see ``domain.claims`` for what they mean."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent = RecentClaims(_REMEMBERED)

    async def claim(self, wanted: Mapping[bytes, Place], partitions: Mapping[int, int]) -> dict[bytes, Place]:
        """Claims keys for places, in one transaction.

        Args:
            wanted: by key, the place that wants it.
            partitions: the partition of each sequence in ``wanted``.

        Returns:
            The keys that another place holds, with that place. All others are now held by the place that wanted them.

        Raises:
            StoreUnavailable: nothing is promised; doing it again is safe.
        """
        holders = self._recent.holders(wanted)
        # In the order of the keys: transactions that want the same keys wait for each other instead of dying in a deadlock.
        unknown = sorted(wanted.keys() - holders.keys() if holders else wanted)
        if unknown:
            found = await self._claim(unknown, wanted, partitions)
            claimed = {key: wanted[key] for key in unknown} if holders else wanted
            self._recent.remember({**claimed, **found} if found else claimed)
            holders |= found
        return {key: place for key, place in holders.items() if place != wanted[key]}

    async def _claim(self, keys: Sequence[bytes], wanted: Mapping[bytes, Place], partitions: Mapping[int, int]) -> dict[bytes, Place]:
        """Claims keys; returns those that were held already, with their holders."""
        pack = _PLACE.pack
        places = {key: pack((place := wanted[key]).sequence, place.position, partitions[place.sequence]) for key in keys}
        try:
            return await self._insert(places, careful=False)
        except asyncpg.UniqueViolationError:
            return await self._insert(places, careful=True)

    async def _insert(self, places: Mapping[bytes, bytes], *, careful: bool) -> dict[bytes, Place]:
        async with self._database.transaction() as connection:
            driver = raw(connection)
            await driver.execute(_LOCK_SHARED, _LOCK)
            newest, *older = [row[0] for row in await driver.fetch(_EPOCHS)]
            held = await _holders(driver, older, places) if older else {}
            free = {key: place for key, place in places.items() if key not in held} if held else places
            arguments = (newest, b"".join(free), b"".join(free.values()), len(free))
            if not careful:
                await driver.execute(_CLAIM_NEW, *arguments)
                return held
            made = {row[0] for row in await driver.fetch(_CLAIM_FREE, *arguments)}
            return held | await _holders(driver, [newest], free.keys() - made)

    async def find(self, key: bytes) -> SeenEvent | None:
        """The event that holds a key, ``None`` outside the dedupe window."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(text(_SEEN), {"key": key})).first()
        if row is None:
            return None
        sequence, position, partition = _PLACE.unpack(row.place)
        return SeenEvent(partition, Place(sequence, position), row.seen_time)

    async def open_epoch_if_due(self) -> bool:
        """Opens a new epoch when the newest one is a day old, and drops those that no window needs. True if it did.

        Every replica may call it at any time; the database's clock decides.
        """
        if not await self._is_due():
            return False
        async with self._database.transaction() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            newest, opened, now = (
                await connection.execute(text("SELECT epoch, open_time, now() FROM claim_epochs ORDER BY epoch DESC LIMIT 1"))
            ).one()
            if not _old(opened, now):
                return False
            await connection.execute(text(f"CREATE TABLE claims_{newest + 1} PARTITION OF claims FOR VALUES IN ({newest + 1})"))
            await connection.execute(text("INSERT INTO claim_epochs (epoch) VALUES (:epoch)"), {"epoch": newest + 1})
            gone = (
                await connection.execute(text("DELETE FROM claim_epochs WHERE epoch < :epoch RETURNING epoch"), {"epoch": newest})
            ).scalars()
            for epoch in gone.all():
                await connection.execute(text(f"DROP TABLE claims_{int(epoch)}"))
        _log.info("claims.epoch_opened", epoch=newest + 1)
        return True

    async def _is_due(self) -> bool:
        async with self._database.transaction() as connection:
            opened, now = (await connection.execute(text("SELECT max(open_time), clock_timestamp() FROM claim_epochs"))).one()
        return _old(opened, now)


def _old(opened: datetime, now: datetime) -> bool:
    return now - opened >= EPOCH


async def _holders(driver: asyncpg.Connection[asyncpg.Record], epochs: Sequence[int], keys: Collection[bytes]) -> dict[bytes, Place]:
    rows = await driver.fetch(_HOLDERS, epochs, b"".join(keys), len(keys))
    return {key: Place(*_PLACE.unpack(place)[:2]) for key, place in rows}
