"""JSON that carries a signal, read tolerantly: a member of the wrong type says nothing, and how many there were is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

import orjson

from cdi_consent.domain.signals.signal import Answers, Unreadable, is_key, merged
from cdi_kernel.clock import parse_instant

Document: TypeAlias = Mapping[str, Any]


def document_of(text: str) -> Document:
    """A JSON object.

    Raises:
        Unreadable: the text is none.
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"no JSON at {error.pos}") from None
    if not isinstance(found, dict):
        raise Unreadable("not a JSON object")
    return found


def unescaped(text: str) -> str:
    """The value of a cookie as it was before it was escaped for the header."""
    return unquote(text) if "%" in text else text


def answers_of(answers: Iterable[tuple[object, object]], kind: str) -> tuple[Answers, tuple[str, ...]]:
    """Pairs as answers where the key can be one and the answer is true or false.

    Returns:
        The answers, and what was skipped.

    Raises:
        Unreadable: there are too many.
    """
    taken: list[tuple[str, bool]] = []
    others = 0
    for key, granted in answers:
        if isinstance(key, str) and is_key(key) and isinstance(granted, bool):
            taken.append((key, granted))
        else:
            others += 1
    return merged(taken), (f"{kind}: {others} without a category or an answer",) if others else ()


def text_of(document: Document, *names: str) -> str:
    """The first member of these names that is a text that can be shown, or nothing."""
    return next((value for name in names if isinstance(value := document.get(name), str) and is_key(value)), "")


def instant_of(document: Document, *names: str) -> int | None:
    """The first member of these names that is an instant, in microseconds since 1970."""
    return next((instant for name in names if (instant := parse_instant(document.get(name))) is not None), None)
