"""Foreign exceptions of the database, turned into faults: what may succeed later becomes ``StoreUnavailable``.

Everything else (a constraint, a syntax error) stays the driver's exception: the store that ran the statement knows what a
violated constraint means, and anything unexpected is a bug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg
import sqlalchemy.exc

from cdi_kernel.faults import Unavailable

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_CLASSES = (
    "08",  # connection exceptions
    "28",  # not let in: a role or password that is being changed
    "3D",  # no such database: not made yet, or being restored
    "53",  # insufficient resources
)
_TRANSIENT_STATES = frozenset(
    {
        "25006",  # read-only transaction: connected to a server that is no longer the primary
        "40001",  # serialization failure
        "40P01",  # deadlock detected
        "55P03",  # lock not available
        "57014",  # cancelled by a timeout
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
        "57P05",  # idle session timeout
    }
)


class StoreUnavailable(Unavailable):
    """The database does not answer now, or asks to try the transaction again."""

    def __init__(self, message: str = "the database does not answer") -> None:
        super().__init__("database", message)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises ``StoreUnavailable`` for lost connections, timeouts, deadlocks and serialization failures inside the block."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlalchemy.exc.TimeoutError, asyncpg.PostgresError) as error:
        reason = transient_reason(error)
        if reason is None:
            raise
        raise StoreUnavailable(reason) from error
    except (asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"the database does not answer ({type(error).__name__})") from error


def transient_reason(error: BaseException) -> str | None:
    """Why the same transaction may succeed later, or ``None`` if it will not."""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return "no free database connection"
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if error.connection_invalidated:
            return "the connection to the database was lost"
        cause = error.orig
        if cause is None:
            return None
        return transient_reason(cause)
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError)):
        return f"the database does not answer ({type(error).__name__})"
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str) and (state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES):
        return f"the database asks to try again (SQLSTATE {state})"
    # SQLAlchemy's driver adapter wraps the driver's exception once more.
    return transient_reason(error.__cause__) if error.__cause__ is not None else None
