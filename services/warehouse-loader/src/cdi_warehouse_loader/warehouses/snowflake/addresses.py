"""Where a warehouse in Snowflake is, and how the loader and the queries of people log in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from adbc_driver_snowflake import DatabaseOptions

DEFAULT_SCHEMA: Final = "MAIN"
_QUERY: Final = "query_"
_GIVEN: Final[Mapping[str, str]] = {
    "warehouse": DatabaseOptions.WAREHOUSE.value,
    "role": DatabaseOptions.ROLE.value,
    "host": DatabaseOptions.HOST.value,
    "port": DatabaseOptions.PORT.value,
    "protocol": DatabaseOptions.PROTOCOL.value,
    "user": "username",
    "password": "password",
    "private_key": DatabaseOptions.JWT_PRIVATE_KEY.value,
}
"""Parameters of the URL; all others are parameters of the session, as Snowflake spells them."""

_OPTIONS: Final[Mapping[str, str]] = {
    DatabaseOptions.APPLICATION_NAME.value: "cdi-warehouse-loader",
    DatabaseOptions.LOGIN_TIMEOUT.value: "15s",
    DatabaseOptions.REQUEST_TIMEOUT.value: "60s",
    DatabaseOptions.KEEP_SESSION_ALIVE.value: "true",
    DatabaseOptions.DISABLE_TELEMETRY.value: "true",
    DatabaseOptions.SCHEMA.value: DEFAULT_SCHEMA,
    "adbc.snowflake.sql.client_option.max_timestamp_precision": "microseconds",
    "TIMEZONE": "UTC",
    "LOCK_TIMEOUT": "30",
    "QUERY_TAG": "cdi-warehouse-loader",
    "ABORT_DETACHED_QUERY": "true",
    "QUOTED_IDENTIFIERS_IGNORE_CASE": "false",
}
"""``LOCK_TIMEOUT``: a load that waits longer for another one comes again. ``ABORT_DETACHED_QUERY``: a statement ends with its loader."""

Options = Mapping[str, str]


def addresses(url: str) -> tuple[Options, Options]:
    """What the driver needs for the sessions of the loader and for those of people's queries.

    Args:
        url: ``snowflake://user:password@account/database?warehouse=…&role=…``; ``query_user``, ``query_role`` and so on are those of the
            queries where they are not the loader's.

    Raises:
        ValueError: the URL names no account or no database.
    """
    parts = urlsplit(url)
    database = unquote(parts.path).strip("/")
    if not parts.hostname or not database:
        raise ValueError("a URL of Snowflake is snowflake://user:password@account/database?warehouse=…&role=…")
    account = parts.netloc.rpartition("@")[2]
    base = {**_OPTIONS, DatabaseOptions.ACCOUNT.value: account, DatabaseOptions.DATABASE.value: database}
    if parts.username:
        base["username"] = unquote(parts.username)
    if parts.password:
        base["password"] = unquote(parts.password)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: value for name, value in given.items() if not name.startswith(_QUERY)}
    asking = {name.removeprefix(_QUERY): value for name, value in given.items() if name.startswith(_QUERY)}
    if "user" in asking:  # a user of its own has secrets of its own
        left = {name: value for name, value in own.items() if name != "private_key"}
        return _options(base, own), _options({**base, "password": ""}, {**left, **asking})
    return _options(base, own), _options(base, {**own, **asking})


def _options(base: Options, given: Mapping[str, str]) -> Options:
    options = {**base, **{_GIVEN.get(name, name): value for name, value in given.items()}}
    if "private_key" in given:
        options[DatabaseOptions.AUTH_TYPE.value] = "auth_jwt"
    return options
