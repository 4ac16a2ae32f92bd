"""Clean rooms: the document that says what partners may learn of tables, and for how much."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cdi_kernel.faults import InvalidArgument
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.documents import RESERVED_SCHEMAS

MICRO: Final = 1_000_000
"""Epsilon is counted in millionths, so that sums are exact."""

MAX_GROUPS: Final = 1_000
MAX_ROWS_PER_PERSON: Final = 1_000
MAX_EPSILON: Final = 10 * MICRO
MAX_STEPS: Final = 1 << 40
"""Of a bound: a product with the rows of a person stays far below 2^63."""

IDENTIFYING: Final = frozenset({"id", "user_id", "anonymous_id", "profile_id", "canonical_profile_id", "previous_id", "event_seq"})
"""Columns that name a person or an event; nobody groups or filters by them."""

DAY_US: Final = 86_400_000_000

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_COLUMN = re.compile(r"\w{1,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_NO_EVENTS: Final = naming.VIEWS | {
    naming.USERS, naming.ACCOUNTS, naming.DISCARDS, naming.REJECTED_EVENTS,
    naming.ID_GRAPH_UPDATES, naming.EXTERNAL_ID_MAPPING_UPDATES, naming.PROFILE_TRAITS_UPDATES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A column to group by, with its public values as text."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A column to sum. Its values are whole multiples of ``step`` between the bounds, so that sums are exact integers.

    Attributes:
        column: its name.
        lower: smaller values count as this.
        upper: larger values count as this.
        step: values are rounded to multiples of it.
    """

    column: str
    lower: float
    upper: float
    step: float

    @property
    def steps(self) -> tuple[int, int]:
        """The bounds in steps."""
        return round(self.lower / self.step), round(self.upper / self.step)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of events that may be asked.

    Attributes:
        name: in the schema.
        keys: columns to group by.
        numbers: columns to sum.
        filters: further columns for conditions.
        max_groups: groups of one answer in which a person counts.
        max_rows: rows of each group with which a person counts.
    """

    name: str
    keys: tuple[Key, ...] = ()
    numbers: tuple[Number, ...] = ()
    filters: tuple[str, ...] = ()
    max_groups: int = 1
    max_rows: int = 1

    @property
    def columns(self) -> Iterator[str]:
        """All that it declares."""
        yield from (key.column for key in self.keys)
        yield from (number.column for number in self.numbers)
        yield from self.filters


@dataclass(frozen=True, slots=True)
class Partner:
    """Who may ask, with the SHA-256 of its tokens in hexadecimal, and millionths of epsilon per period."""

    name: str
    token_hashes: tuple[str, ...]
    epsilon: int

    def knows(self, digest: str) -> bool:
        """Whether it is the digest of one of its tokens; all are compared, so that the time tells nothing."""
        known = [hmac.compare_digest(digest, each) for each in self.token_hashes]
        return any(known)


@dataclass(frozen=True, slots=True)
class CleanRoom:
    """What partners may use of one schema; see ``cdi.warehouse.v1.CleanRoom``."""

    workspace_id: str
    name: str
    schema: str
    purposes: tuple[str, ...]
    tables: tuple[Table, ...]
    minimum_group_size: int
    period_days: int
    partners: tuple[Partner, ...]
    version: int = 0

    def partner_of(self, digest: str) -> Partner | None:
        """Whose token it is."""
        return next((partner for partner in self.partners if partner.knows(digest)), None)

    def period(self, now_us: int) -> tuple[int, int]:
        """Begin and end of the period around an instant, microseconds since 1970."""
        length = self.period_days * DAY_US
        start = now_us - now_us % length
        return start, start + length


def succeed(wanted: CleanRoom, stored: CleanRoom | None) -> CleanRoom:
    """The document as it will be stored, with its version; the stored one itself when nothing changes.

    Raises:
        InvalidArgument: a field breaks its rule.
    """
    violations = list(_violations(wanted))
    if violations:
        raise InvalidArgument("the clean room breaks its rules", field_violations=[(f"clean_room.{at}", text) for at, text in violations])
    if stored is None:
        return replace(wanted, version=1)
    return stored if replace(wanted, version=stored.version) == stored else replace(wanted, version=stored.version + 1)


Violations = Iterator[tuple[str, str]]


def _violations(room: CleanRoom) -> Violations:
    if not room.workspace_id:
        yield "workspace_id", "must not be empty"
    if not _NAME.fullmatch(room.name):
        yield "name", "lower-case letters, digits, _ and -, starting with a letter, at most 63"
    if not _COLUMN.fullmatch(room.schema) or room.schema in RESERVED_SCHEMAS:
        yield "schema", "letters, digits and _, and not a schema of the system"
    if not room.purposes or "" in room.purposes:
        yield "purposes", "at least one, none of them empty: rows whose consent is not known are not for partners"
    if not 2 <= room.minimum_group_size <= 1_000_000:
        yield "minimum_group_size", "from 2 to 1,000,000"
    if not 1 <= room.period_days <= 366:
        yield "period_days", "from 1 to 366"
    if not room.tables or _repeats(table.name for table in room.tables):
        yield "tables", "at least one, each once"
    for index, table in enumerate(room.tables):
        yield from ((f"tables[{index}].{at}", text) for at, text in _table_violations(table))
    if not room.partners or _repeats(partner.name for partner in room.partners):
        yield "partners", "at least one, each once"
    if _repeats(digest for partner in room.partners for digest in partner.token_hashes):
        yield "partners", "a token belongs to one partner"
    for index, partner in enumerate(room.partners):
        yield from ((f"partners[{index}].{at}", text) for at, text in _partner_violations(partner))


def _partner_violations(partner: Partner) -> Violations:
    if not _NAME.fullmatch(partner.name):
        yield "name", "lower-case letters, digits, _ and -, starting with a letter, at most 63"
    if not partner.token_hashes or not all(map(_HASH.fullmatch, partner.token_hashes)):
        yield "token_hashes", "at least one SHA-256, 64 hexadecimal digits in lower case"
    if not 0 < partner.epsilon <= 10 * MAX_EPSILON:
        yield "epsilon", "above 0 and at most 100"


def _table_violations(table: Table) -> Violations:
    if not _COLUMN.fullmatch(table.name) or table.name in _NO_EVENTS:
        yield "name", "a table of events: others have no consent of their own"
    if _repeats(table.columns):
        yield "columns", "a column is a key, a number or a filter, and once"
    for column in table.columns:
        if not _COLUMN.fullmatch(column) or column in IDENTIFYING:
            yield "columns", "letters, digits and _, and not one that names a person or an event"
    if not 1 <= table.max_groups <= MAX_GROUPS:
        yield "max_groups_per_person", "from 1 to 1,000"
    if not 1 <= table.max_rows <= MAX_ROWS_PER_PERSON:
        yield "max_rows_per_person", "from 1 to 1,000"
    for index, key in enumerate(table.keys):
        if not key.values or len(key.values) > MAX_GROUPS or _repeats(key.values):
            yield f"keys[{index}].values", "from 1 to 1,000, each once"
    for index, number in enumerate(table.numbers):
        yield from ((f"numbers[{index}].{at}", text) for at, text in _number_violations(number))


def _number_violations(number: Number) -> Violations:
    if not all(map(math.isfinite, (number.lower, number.upper, number.step))):
        yield "lower", "bounds and step are finite numbers"
    elif number.step <= 0:
        yield "step", "above 0"
    elif number.upper - number.lower < number.step:
        yield "upper", "at least one step above lower"
    elif max(abs(number.lower), abs(number.upper)) / number.step > MAX_STEPS:
        yield "step", "at most 2^40 steps from 0 to a bound"


def _repeats(values: Iterable[str]) -> bool:
    found: Sequence[str] = list(values)
    return len(set(found)) < len(found)
