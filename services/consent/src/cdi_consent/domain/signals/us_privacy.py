"""US Privacy strings such as ``1YNN``, and the header ``Sec-GPC``: opting out of sale and sharing in the United States.

Sources: IAB Tech Lab, "CCPA Compliance Framework: US Privacy String", version 1; W3C, "Global Privacy Control".
"""

from __future__ import annotations

import re
from typing import Final

from cdi_consent.domain.signals.signal import Answers, Reading, SignalKind, Unreadable

SALE: Final = "us.sale"
SHARING: Final = "us.sharing"
TARGETED_ADVERTISING: Final = "us.targeted_advertising"

OPTED_OUT: Final[Answers] = ((SALE, False), (SHARING, False), (TARGETED_ADVERTISING, False))
"""What global privacy control means."""

_STRING: Final = re.compile(r"1[YNyn-]{3}")
_CODES: Final = {"-": 0, "Y": 1, "N": 2}


def opt_out(notice: int, opted_out: int) -> bool | None:
    """Whether the data may be used: of the notice and of the opt-out, 0 is not applicable, 1 yes, 2 no.

    Not opting out is a permission only after a notice: without one there was no choice. ``None`` where neither says anything.
    """
    if opted_out == 1 or notice == 2:
        return False
    if opted_out == 2:
        return notice == 1
    return None


def read(text: str) -> Reading:
    """Reads a US Privacy string: version, notice, opt-out of sale, LSPA. The last is not read: it binds the parties to a contract.

    An opt-out of sale is taken as one of sharing too, which the law called sale when the string was defined.

    Raises:
        Unreadable: it is no such string.
    """
    if not _STRING.fullmatch(text):
        raise Unreadable("not the digit 1 and three of Y, N and -")
    notice, opted_out = _CODES[text[1].upper()], _CODES[text[2].upper()]
    answer = opt_out(notice, opted_out)
    sale: Answers = () if answer is None else ((SALE, answer),)
    return Reading(SignalKind.US_PRIVACY, (*sale, (SHARING, False)) if opted_out == 1 else sale, version="us privacy 1", raw=text)


def read_gpc(text: str) -> Reading:
    """Reads the value of ``Sec-GPC``: ``1`` opts out, and there is no other value.

    Raises:
        Unreadable: it is another one, which expresses no preference.
    """
    if text.strip(" \t") != "1":
        raise Unreadable("not 1: no preference")
    return Reading(SignalKind.GPC, OPTED_OUT, version="sec-gpc", raw=text)
