"""Answers per category on the event itself: Segment's ``context.consent`` and RudderStack's ``context.consentManagement``.

Sources: Segment, "Consent in Segment Connections"; RudderStack, "Add the Consent Object to Event Payloads".
"""

from __future__ import annotations

from typing import Final

from cdi_consent.domain.signals.documents import answers_of, document_of, text_of
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable

AND: Final = "and"
OR: Final = "or"


def read_segment(text: str) -> Reading:
    """Reads ``{"categoryPreferences": {"advertising": true, …}}``.

    Raises:
        Unreadable: it holds no such object.
    """
    preferences = document_of(text).get("categoryPreferences")
    if not isinstance(preferences, dict):
        raise Unreadable("without categoryPreferences")
    answers, skipped = answers_of(preferences.items(), SignalKind.SEGMENT)
    return Reading(SignalKind.SEGMENT, answers, raw=text, skipped=skipped)


def read_rudderstack(text: str) -> Reading:
    """Reads ``{"allowedConsentIds": […], "deniedConsentIds": […], "provider": …, "resolutionStrategy": …}``.

    An id in both lists is denied. No denied ids do not mean that all are allowed, as they do for RudderStack: ids in no list say nothing.
    A strategy that is neither ``and`` nor ``or`` is ``and``, the stricter one.

    Raises:
        Unreadable: it holds neither list.
    """
    document = document_of(text)
    lists = [(document.get("allowedConsentIds"), True), (document.get("deniedConsentIds"), False)]
    if not any(isinstance(ids, list) for ids, _ in lists):
        raise Unreadable("without lists of ids")
    answers, skipped = answers_of(
        ((key, granted) for ids, granted in lists if isinstance(ids, list) for key in ids), SignalKind.RUDDERSTACK
    )
    resolution = OR if document.get("resolutionStrategy") == OR else AND
    version = text_of(document, "provider")
    return Reading(SignalKind.RUDDERSTACK, answers, version=version, raw=text, resolution=resolution, skipped=skipped)
