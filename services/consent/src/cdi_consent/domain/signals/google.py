"""Google consent mode: the object of ``gtag('consent', …)``, and the parameter ``gcs`` of requests.

Source: Google, "Consent mode reference". Deliberately absent: ``gcd``, whose letters Google does not document.
"""

from __future__ import annotations

import re
from typing import Final

from cdi_consent.domain.signals.documents import document_of
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable

TYPES: Final = (
    "ad_storage",
    "analytics_storage",
    "ad_user_data",
    "ad_personalization",
    "functionality_storage",
    "personalization_storage",
    "security_storage",
)
_GCS: Final = re.compile(r"(?:gcs=)?G1([01-])([01-])")
_STATES: Final = {"granted": True, "denied": False}


def read(text: str) -> Reading:
    """Reads consent mode, keys ``google.<type>``. In ``G1xy`` x is ad_storage and y analytics_storage: 1, 0, or - for not set.

    Raises:
        Unreadable: it is neither form, or sets no type that is known.
    """
    if text.startswith(("G", "gcs=")):
        match = _GCS.fullmatch(text)
        if match is None:
            raise Unreadable("not of the form G1xy")
        answers = tuple((f"google.{name}", state == "1") for name, state in zip(TYPES, match.groups(), strict=False) if state != "-")
        return Reading(SignalKind.GOOGLE_CONSENT_MODE, answers, _unset(answers), "gcs", text)
    document = document_of(text)
    states = [(name, document[name]) for name in TYPES if name in document]
    answers = tuple((f"google.{name}", _STATES[state]) for name, state in states if isinstance(state, str) and state in _STATES)
    others = len(states) - len(answers)
    skipped = (f"google_consent_mode: {others} neither granted nor denied",) if others else ()
    return Reading(SignalKind.GOOGLE_CONSENT_MODE, answers, _unset(answers), "consent mode", text, skipped=skipped)


def _unset(answers: tuple[tuple[str, bool], ...]) -> str:
    return "" if answers else "google_consent_mode: no type of consent is set"
