"""Pages: their sizes and their tokens."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from uuid import UUID

from cdi_consent.convert import checked_text, invalid
from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import instant
from cdi_consent.ports import Position

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000


def page_size(asked: int) -> int:
    """Items of a page. Raises ``InvalidArgument`` below 0."""
    if asked < 0:
        raise invalid("page_size", "must not be negative")
    return min(asked, MAX_PAGE) or DEFAULT_PAGE


def name_token(name: str) -> str:
    """The page token that continues after a name."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def name_of_token(token: str) -> str:
    """The name in a page token; empty for the first page. Raises ``InvalidArgument``."""
    try:
        name = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise invalid("page_token", "is not from an earlier answer") from None
    return checked_text(name, "page_token") if token else ""


def position_token(line: Line) -> str:
    """The page token that continues after a line of the ledger."""
    decision = line.decision
    return name_token(f"{decision.decide_us}/{decision.decision_id}")


def position_of_token(token: str) -> Position | None:
    """The place in a page token; ``None`` for the first page. Raises ``InvalidArgument``."""
    if not token:
        return None
    decide_us, _, decision_id = name_of_token(token).partition("/")
    try:
        return instant(0, int(decide_us) * 1_000), str(UUID(decision_id))
    except ValueError:
        raise invalid("page_token", "is not from an earlier answer") from None
