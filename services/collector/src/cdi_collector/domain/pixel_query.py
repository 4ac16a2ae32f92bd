"""The event of a pixel: an image's address carries it, as base64 of its JSON or as one argument per member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cdi_collector.domain import base64_text

_MAX_LEVELS: Final = 8
"""Dots that are taken apart; what follows is part of the last name."""


def event_json(arguments: Mapping[str, str]) -> bytes:
    """The JSON of the event.

    ``data`` is JSON, or base64 of it. Without ``data`` every argument is a member: ``properties.total=5`` is the member ``total`` of the
    object ``properties``. Its values are text, since an address knows nothing else.

    Raises:
        InvalidArgument: ``data`` is neither.
    """
    given = arguments.get("data")
    if given is None:
        return msgspec.json.encode(_tree(arguments))
    return given.encode() if given.lstrip().startswith("{") else base64_text.decoded(given.encode())


def _tree(arguments: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in arguments.items():
        *path, last = name.split(".", _MAX_LEVELS)
        inner = tree
        for step in path:
            found = inner.get(step)
            if not isinstance(found, dict):
                found = inner[step] = {}
            inner = found
        # AMP puts quotation marks around the ids that it makes.
        inner[last] = value[1:-1] if name == "anonymousId" and len(value) > 1 and value[0] == value[-1] == '"' else value
    return tree
