"""A Snowflake to test against: fakesnow, which is DuckDB underneath, as a server of its own; run as a module with a port.

What Snowflake does and fakesnow does not, as far as the loader rests on it, is added here: a lock that is not had is an error, and not one
of the server; a statement that is cancelled ends; a transaction that others wait for and that does not move, as of a session that is gone,
is taken back; two statements in one are refused; a file that is put by a pattern keeps its name. Nothing of the vendor's is here. A test
can have something happen before or after the next statement that has a text: ``POST /test/once``.
"""

import logging
import math
import re
import sys
import threading
import time
from typing import Any

import duckdb
import fakesnow.server as server
import uvicorn
from fakesnow import copy_into
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse
from snowflake.connector.errors import ProgrammingError
from sqlglot.errors import SqlglotError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

IDLE_SECONDS = 0.5
"""After which a transaction that others wait for is taken back; Snowflake's is five minutes."""

_NOT_DONE = re.compile(r"alter table .* set data_retention_time_in_days", re.IGNORECASE)
_moved: dict[int, float] = {}
_once: dict[str, str] = {}
_of_fakesnow = FakeSnowflakeCursor.execute
_parse_one = server.parse_one
_alone = threading.Lock()


def execute(self: Any, command: str, *args: Any, **kwargs: Any) -> Any:
    """One statement, with the errors of Snowflake."""
    if len(parse(command)) > 1:
        raise ProgrammingError(msg="Actual statement count 2 did not match the desired statement count 1.", errno=8, sqlstate="0A000")
    if _NOT_DONE.match(command):
        command = "select 'Statement executed successfully.' as status"
    what = _happening(command)
    if what == "take back":
        take_back(self._conn)
    _moved[id(self._conn)] = math.inf
    try:
        if what == "gone before":
            raise ProgrammingError(msg="Session no longer exists.", errno=390111, sqlstate="08001")
        if what == "refused":
            raise ProgrammingError(msg="Numeric value 'x' is not recognized", errno=100038, sqlstate="22018")
        done = _of_fakesnow(self, command, *args, **kwargs)
        if what == "gone after":
            raise ProgrammingError(msg="Session no longer exists.", errno=390111, sqlstate="08001")
        return done
    except duckdb.InterruptException:
        raise ProgrammingError(msg="SQL execution canceled", errno=604, sqlstate="57014") from None
    except duckdb.TransactionException:
        _make_way(self._conn)
        raise ProgrammingError(msg="Statement was aborted waiting for a lock", errno=625, sqlstate="57014") from None
    except duckdb.Error as error:
        raise ProgrammingError(msg=str(error), errno=603, sqlstate="XX000") from None
    finally:
        _moved[id(self._conn)] = time.monotonic()


def parsed(text: str) -> Any:
    """What a statement says, or the error that it is none."""
    try:
        return _parse_one(text)
    except SqlglotError:
        raise ProgrammingError(msg="SQL compilation error", errno=1003, sqlstate="42000") from None


def _happening(command: str) -> str:
    if not _once or _once["text"] not in command:
        return ""
    what = _once["what"]
    _once.clear()
    return what


def _make_way(asking: Any) -> None:
    """Takes back the transactions of sessions that do not move."""
    with _alone:
        for each in list(server.sessions.values()):
            if each is not asking and each._in_transaction and time.monotonic() - _moved[id(each)] > IDLE_SECONDS:
                take_back(each)


def take_back(connection: Any) -> None:
    """Takes back a session's transaction; its next statement begins another one."""
    connection._duck_conn.rollback()
    connection._in_transaction = False


def _columns_as_they_are(*table: Any) -> list[str]:
    """Of a table that rows are copied into; fakesnow turns them to upper case, which ``ß`` does not survive."""
    return [name for name, _ in copy_into._describe_table(*table)]


async def abort_request(request: Request) -> Response:
    """Ends what a session is doing."""
    server.to_conn(server.to_token(request))._duck_conn.interrupt()
    return JSONResponse({"success": True})


async def once(request: Request) -> Response:
    """What happens at the next statement with a text: ``take back``, ``gone before``, ``gone after``, ``refused``."""
    _once.update(await request.json())
    return JSONResponse({"success": True})


async def upload(request: Request) -> Response:
    """A file of a ``put`` with a pattern, whose name has the pattern's sign."""
    request.path_params["path"] = request.path_params["path"].replace("*", "")
    return await server.bucket_upload(request)


FakeSnowflakeCursor.execute = execute  # type: ignore[method-assign]
copy_into._get_table_columns = _columns_as_they_are
server.parse_one = parsed
ROUTES = [
    Route("/queries/v1/abort-request", abort_request, methods=["POST"]),
    Route("/fs_bucket/{path:path}", upload, methods=["PUT"]),
    Route("/test/once", once, methods=["POST"]),
]

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    server.app.router.routes[:0] = ROUTES
    uvicorn.run(server.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
