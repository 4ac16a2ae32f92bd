"""JSON values: read exactly, compared as JSON does, written in one form.

Numbers are ``int`` or ``Decimal``, never binary fractions: ``0.1`` and ``0.2`` are ``0.3``. Equal values have one text, so that texts can
be compared, counted and sorted in the place of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

MISSING: Final = object()
"""What ``at`` answers where there is nothing; ``None`` is JSON's null."""

MAX_EXPONENT: Final = 300
"""Powers of ten that a number is written out with; beyond those of any double that a client sends by intent."""

_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(float_hook=Decimal)
_NUMBERS: Final = (int, float, Decimal)


def decode(document: bytes) -> Any:
    """A JSON value with exact numbers; ``MISSING`` if it is no JSON."""
    try:
        document.decode()  # the decoder lets some wrong UTF-8 through
        return _DECODER.decode(document)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
        return MISSING


def at(value: Any, keys: Sequence[str]) -> Any:
    """What stands below a value under these keys, one object in the other; ``MISSING`` if nothing does."""
    for key in keys:
        if type(value) is not dict or key not in value:
            return MISSING
        value = value[key]
    return value


def is_number(value: Any) -> bool:
    """Whether decoded JSON is a number."""
    return type(value) in _NUMBERS


def same(one: Any, other: Any) -> bool:
    """Equality of decoded JSON: Python takes ``True`` for ``1``, JSON does not; ``3`` is ``3.0``."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return ((is_number(one) and is_number(other)) or type(one) is type(other)) and bool(one == other)


def text(value: Any) -> str | None:
    """The one text of a decoded value: no spaces, keys sorted, numbers without exponent and without zeros that say nothing.

    Returns:
        ``None`` for what cannot be written so: a number beyond ``MAX_EXPONENT``, nesting beyond Python's.
    """
    try:
        return _text(value)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if is_number(value):
        return _number(Decimal(value))
    return msgspec.json.encode(value).decode()


def _number(value: Decimal) -> str:
    if not value:
        return "0"
    if abs(value.adjusted()) > MAX_EXPONENT:
        raise ValueError("not a number that is written out")
    written = format(value, "f")  # exact, unlike normalize, which rounds to the context
    return written.rstrip("0").rstrip(".") if "." in written else written
