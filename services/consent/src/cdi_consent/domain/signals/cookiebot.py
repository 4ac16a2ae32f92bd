"""Cookiebot: its consent as JSON, which sites post from its callbacks, and the cookie ``CookieConsent``.

Source: Cookiebot, "Developer", properties of the object ``Cookiebot`` and of the cookie. Keys are the categories' own names.
"""

from __future__ import annotations

import re
from typing import Final

from cdi_consent.domain.signals.documents import Document, document_of, instant_of, text_of, unescaped
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable

CATEGORIES: Final = ("necessary", "preferences", "statistics", "marketing")

_NOT_ASKED: Final = "-1"
_IMPLIED: Final = "implied"
_COOKIE: Final = re.compile(r"\s*(\w{1,20}):(?:'([^',{}]{0,128})'|([\w.-]{1,32}))\s*")
_WORDS: Final = {"true": True, "false": False}


def read(text: str) -> Reading:
    """Reads the four categories.

    What was not answered by the person grants nothing: an implied consent (``method``), a visitor who was not asked (``stamp`` -1), or who
    has not responded (``hasResponse`` false). Denials count all the same.

    Raises:
        Unreadable: it is no such object.
    """
    plain = unescaped(text)
    try:
        document = document_of(plain)
    except Unreadable:
        document = _cookie(plain)
    inner = document.get("consent")
    consent = inner if isinstance(inner, dict) else document
    given = [(name, answer) for name in CATEGORIES if isinstance(answer := consent.get(name), bool)]
    if not given:
        raise Unreadable("without categories")
    stamp = text_of(consent, "stamp", "consentId") or text_of(document, "stamp", "consentId")
    method = text_of(consent, "method") or text_of(document, "method")
    answered = method != _IMPLIED and stamp != _NOT_ASKED and document.get("hasResponse") is not False
    return Reading(
        SignalKind.COOKIEBOT,
        tuple((name, granted) for name, granted in given if answered or not granted),
        version=str(version) if type(version := consent.get("ver")) is int and 0 <= version < 1_000 else "",
        raw=text,
        decide_us=instant_of(consent, "utc", "timestamp") or instant_of(document, "utc", "timestamp"),
        basis=method,
        subjects=(("stamp", stamp),) if stamp and stamp != _NOT_ASKED else (),
        skipped=() if answered else ("cookiebot: categories that are on without an answer of the person",),
    )


def _cookie(text: str) -> Document:
    """The cookie, which is written like an object of JavaScript: ``{stamp:'…',necessary:true,…,ver:1,utc:1740000000000}``."""
    if not (text.startswith("{") and text.endswith("}")):
        raise Unreadable("neither JSON nor the cookie")
    found: dict[str, object] = {}
    for member in text[1:-1].split(","):
        match = _COOKIE.fullmatch(member)
        if match is None:
            raise Unreadable("neither JSON nor the cookie")
        name, quoted, word = match.groups()
        if word is None:
            found[name] = quoted
        else:
            found[name] = _WORDS.get(word, int(word) if word.isascii() and word.isdecimal() and len(word) < 16 else word)
    return found
