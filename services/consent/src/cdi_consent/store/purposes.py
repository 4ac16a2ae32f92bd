"""The purposes and policies, a row per version."""

from __future__ import annotations

import dataclasses
from typing import Final

import asyncpg
import msgspec

from cdi_consent.domain.policy import ConsentPolicy, DefaultPolicy, RegionalDefaults
from cdi_consent.domain.purposes import Purpose, WarehouseRule
from cdi_runtime.store import Database, raw

_LOCK: Final = 0x0CD1_0011
_REGIONAL: Final = msgspec.json.Decoder(tuple[tuple[str, DefaultPolicy], ...])

_WAREHOUSES: Final = msgspec.json.Decoder(tuple[WarehouseRule, ...])

_PURPOSES: Final = """
SELECT DISTINCT ON (workspace_id, name)
    workspace_id, name, version, description, categories, default_policy, required_for_linking, legal_basis, destinations, columns,
    regional_defaults::text AS regional_defaults, warehouses::text AS warehouses
FROM purposes {where} ORDER BY workspace_id, name, version DESC
"""

_POLICIES: Final = """
SELECT DISTINCT ON (workspace_id) workspace_id, version, default_policy, regional_defaults::text AS regional_defaults FROM policies {where}
ORDER BY workspace_id, version DESC
"""

_ADD_PURPOSE: Final = """
INSERT INTO purposes (workspace_id, name, version, description, categories, default_policy, required_for_linking, legal_basis,
    destinations, columns, regional_defaults, warehouses)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""

_ADD_POLICY: Final = "INSERT INTO policies (workspace_id, version, default_policy, regional_defaults) VALUES ($1, $2, $3, $4)"


class PostgresPurposes:
    """The purposes and policies of all workspaces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, purpose: Purpose) -> tuple[Purpose, bool]:
        """See ``PurposeStore``."""
        async with self._database.transaction() as connection:
            driver = raw(connection)
            await driver.execute("SELECT pg_advisory_xact_lock($1, 0)", _LOCK)
            where = "WHERE workspace_id = $1 AND name = $2"
            row = await driver.fetchrow(_PURPOSES.format(where=where), purpose.workspace_id, purpose.name)
            newest = None if row is None else _purpose(row)
            applied = dataclasses.replace(purpose, version=newest.version if newest else 0)
            if applied == newest:
                return applied, False
            applied = dataclasses.replace(purpose, version=applied.version + 1)
            await driver.execute(
                _ADD_PURPOSE,
                applied.workspace_id,
                applied.name,
                applied.version,
                applied.description,
                applied.categories,
                applied.default_policy,
                applied.required_for_linking,
                applied.legal_basis,
                applied.destinations,
                applied.columns,
                _json(applied.regional_defaults),
                _json(applied.warehouses),
            )
        return applied, True

    async def apply_policy(self, policy: ConsentPolicy) -> tuple[ConsentPolicy, bool]:
        """See ``PurposeStore``."""
        async with self._database.transaction() as connection:
            driver = raw(connection)
            await driver.execute("SELECT pg_advisory_xact_lock($1, 0)", _LOCK)
            row = await driver.fetchrow(_POLICIES.format(where="WHERE workspace_id = $1"), policy.workspace_id)
            newest = None if row is None else _policy(row)
            applied = dataclasses.replace(policy, version=newest.version if newest else 0)
            if applied == newest:
                return applied, False
            applied = dataclasses.replace(policy, version=applied.version + 1)
            regional = _json(applied.regional_defaults)
            await driver.execute(_ADD_POLICY, applied.workspace_id, applied.version, applied.default_policy, regional)
        return applied, True

    async def newest(self) -> tuple[list[Purpose], list[ConsentPolicy]]:
        """See ``PurposeStore``."""
        async with self._database.session() as connection:
            driver = raw(connection)
            purposes = [_purpose(row) for row in await driver.fetch(_PURPOSES.format(where=""))]
            return purposes, [_policy(row) for row in await driver.fetch(_POLICIES.format(where=""))]

    async def page(self, workspace_id: str, after_name: str, limit: int) -> list[Purpose]:
        """See ``PurposeStore``."""
        statement = _PURPOSES.format(where="WHERE workspace_id = $1 AND name > $2") + " LIMIT $3"
        async with self._database.session() as connection:
            return [_purpose(row) for row in await raw(connection).fetch(statement, workspace_id, after_name, limit)]


def _purpose(row: asyncpg.Record) -> Purpose:
    return Purpose(
        row["workspace_id"],
        row["name"],
        row["description"],
        tuple(row["categories"]),
        DefaultPolicy(row["default_policy"]),
        row["required_for_linking"],
        row["version"],
        row["legal_basis"],
        tuple(row["destinations"]),
        tuple(row["columns"]),
        _REGIONAL.decode(row["regional_defaults"]),
        _WAREHOUSES.decode(row["warehouses"]),
    )


def _policy(row: asyncpg.Record) -> ConsentPolicy:
    default, regional = DefaultPolicy(row["default_policy"]), _REGIONAL.decode(row["regional_defaults"])
    return ConsentPolicy(row["workspace_id"], default, regional, row["version"])


def _json(value: RegionalDefaults | tuple[WarehouseRule, ...]) -> str:
    return msgspec.json.encode(value).decode()
