"""Where the collector sends a browser on to: only to hosts that the operator has named. An open redirect would lend them its name."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, InvalidArgument

HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
"""A host that may be named: in lower case; ``*.`` in front stands for everything below it."""

# Stricter than any browser reads: no user info, no backslash (which browsers take for a slash), no blank or control character.
_URL: Final = re.compile(r"https?://([A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:[/?#][^\\\x00-\x20\x7f-\xa0]*)?")
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))


def checked_target(url: str, hosts: Collection[str]) -> str:
    """The URL as a ``Location``: in ASCII.

    Args:
        url: absolute, http or https.
        hosts: those that are allowed, as ``HOST`` says.

    Raises:
        InvalidArgument: it is no such URL, or leads elsewhere.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise _refused("the target is no http or https URL")
    host = found[1].lower()
    if host not in hosts and not any(allowed.startswith("*.") and host.endswith(allowed[1:]) for allowed in hosts):
        raise _refused("the target's host is not allowed")
    try:
        return quote(url, safe=_ASCII)
    except UnicodeEncodeError as error:
        raise _refused("the target is no http or https URL") from error


def _refused(message: str) -> Fault:
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_INVALID_FIELD, metadata={"field": "u"})
