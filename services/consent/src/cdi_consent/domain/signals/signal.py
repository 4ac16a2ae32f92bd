"""What reading a signal gives, whatever its standard."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

MAX_KEY: Final = 128
"""Characters of a category or of another id that becomes a key; a longer one can be no category of a purpose."""

MAX_ANSWERS: Final = 500
"""Answers of one signal. One with more is not read: nobody was asked so much."""


class SignalKind(StrEnum):
    """The standards, and what each sends."""

    SEGMENT = "segment"
    """``context.consent``, JSON."""
    RUDDERSTACK = "rudderstack"
    """``context.consentManagement``, JSON."""
    SNOWPLOW_PREFERENCES = "snowplow_preferences"
    """The event ``consent_preferences``, JSON."""
    SNOWPLOW_GDPR = "snowplow_gdpr"
    """The entity ``gdpr``, JSON."""
    TCF = "tcf"
    """An IAB TCF v2 TC string."""
    GPP = "gpp"
    """An IAB GPP string."""
    US_PRIVACY = "us_privacy"
    """A US Privacy string."""
    GPC = "gpc"
    """The value of the header ``Sec-GPC``."""
    GOOGLE_CONSENT_MODE = "google_consent_mode"
    """The object of ``gtag('consent', …)`` as JSON, or ``gcs``."""
    ONETRUST = "onetrust"
    """A receipt or web hook as JSON, or the cookie ``OptanonConsent``."""
    COOKIEBOT = "cookiebot"
    """The consent as JSON, or the cookie ``CookieConsent``."""


Answers: TypeAlias = tuple[tuple[str, bool], ...]
"""Keys, and whether the data may be used for it."""


class Unreadable(Exception):
    """A signal that breaks its standard. Its text is the reason, without anything that the signal held."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One signal, read. A struct, because making a dataclass of a TC string takes a sixth of the time of reading it.

    Attributes:
        kind: the standard.
        answers: key → whether the data may be used for it; the small ones where a standard has thousands. A key that stands twice
            counts as denied if one of them is.
        unknown: why the signal says nothing, without personal data; empty if it could be read.
        version: of the standard, the policy or the platform, as far as the signal names it.
        raw: the signal as it was sent, cut to the length that is read at all.
        decide_us: when the person decided, microseconds since 1970, if the signal says so.
        resolution: RudderStack: whether a destination needs all of its ids allowed (``and``) or one (``or``).
        basis: the lawful basis or the way of consenting that the signal names; it is recorded and answers nothing.
        otherwise: the answer to keys that it does not name: ``False`` for one that denies everything.
        subjects: whose signal it is, as (type of identifier, identifier), if it says so.
        skipped: what was not read of it, without personal data.
    """

    kind: SignalKind
    answers: Answers = ()
    unknown: str = ""
    version: str = ""
    raw: str | bytes = ""
    decide_us: int | None = None
    resolution: str = ""
    basis: str = ""
    otherwise: bool | None = None
    subjects: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without anything that could be personal."""
        return f"{type(self).__name__}({self.kind}, {self.answers}, unknown={self.unknown!r}, version={self.version!r})"

    def answer(self, key: str) -> bool | None:
        """Whether the data may be used for what the key names; ``None`` if the signal says nothing about it."""
        return strictest(self.answers, key, self.otherwise)


def strictest(answers: Answers, key: str, otherwise: bool | None) -> bool | None:
    """The answer to a key: a denial before a grant, ``otherwise`` if it is not among the answers."""
    found = otherwise
    for name, granted in answers:
        if name == key:
            if not granted:
                return False
            found = True
    return found


def is_key(name: object) -> bool:
    """Whether something from a signal can be a key: text, not empty, not absurdly long, without control characters."""
    return isinstance(name, str) and 0 < len(name) <= MAX_KEY and name.isprintable()


def merged(answers: Iterable[tuple[str, bool]]) -> Answers:
    """The answers with each key once, a denial before a grant.

    Raises:
        Unreadable: there are more than ``MAX_ANSWERS``.
    """
    found: dict[str, bool] = {}
    for key, granted in answers:
        found[key] = granted and found.get(key, True)
    if len(found) > MAX_ANSWERS:
        raise Unreadable(f"more than {MAX_ANSWERS} answers")
    return tuple(found.items())
