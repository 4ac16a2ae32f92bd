"""How many values travel to Postgres and back in few parameters, and how times and locks are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import xxhash

from cdi_identity.domain.identifiers import Identifier

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def array(texts: Sequence[str]) -> str:
    """The literal of a Postgres array of texts without NUL characters. The driver takes half a microsecond for each element of its own."""
    if not texts:
        return "{}"
    quoted = "\0".join(texts).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{quoted}"}}'


def columns(identifiers: Sequence[Identifier]) -> tuple[str, str, str]:
    """Workspaces, types and values of identifiers."""
    workspace_ids, kinds, values = zip(*identifiers, strict=True) if identifiers else ((), (), ())
    return array(workspace_ids), array(kinds), array(values)


def documents(row: Any) -> list[bytes]:
    """The documents of a person's traits, of a row that has its own (``traits``), those of its parts, and the computed one."""
    computed = row["computed"]
    return [row["traits"], *(row["documents"] or ()), *(() if computed is None else (computed,))]


def text(value: str) -> str:
    """A text as Postgres can hold it: a client may put a NUL character into its message id."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in value else value


def moment(time_us: int) -> datetime:
    """A time from microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def lock_key(workspace_id: str) -> int:
    """Two workspaces with the same key only wait for each other."""
    return xxhash.xxh32_intdigest(workspace_id.encode()) - (1 << 31)
