"""Snowplow's event ``consent_preferences`` and entity ``gdpr``, self-describing or their content alone.

Source: Iglu Central, ``com.snowplowanalytics.snowplow/consent_preferences`` 1-0-0 and ``…/gdpr`` 1-0-0.
"""

from __future__ import annotations

from typing import Final

from cdi_consent.domain.signals.documents import Document, answers_of, document_of, text_of
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable

_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/{}/jsonschema/1-"
_GRANTS: Final = frozenset(("allow_all", "allow_selected"))
_DENIALS: Final = frozenset(("deny_all", "withdrawn", "expired"))
_UNDECIDED: Final = {
    "pending": "pending: the person has not decided yet",
    "implicit_consent": "implicit_consent: the person was not asked",
}


def read_preferences(text: str) -> Reading:
    """Reads ``consent_preferences``.

    ``allow_all`` and ``allow_selected`` allow the listed scopes and say nothing about others; ``deny_all``, ``withdrawn`` and ``expired``
    deny everything, listed or not. ``pending`` and ``implicit_consent`` are no answers.

    Raises:
        Unreadable: the object is none of this schema.
    """
    document = _content(document_of(text), "consent_preferences")
    event = document.get("eventType")
    scopes = document.get("consentScopes")
    version, basis = text_of(document, "consentVersion"), text_of(document, "basisForProcessing")
    if isinstance(event, str) and event in _UNDECIDED:
        return Reading(
            SignalKind.SNOWPLOW_PREFERENCES, unknown=f"snowplow_preferences: {_UNDECIDED[event]}", version=version, raw=text, basis=basis
        )
    if not isinstance(event, str) or event not in _GRANTS | _DENIALS:
        raise Unreadable("without a known eventType")
    granted = event in _GRANTS
    listed = scopes if isinstance(scopes, list) else []
    answers, skipped = answers_of(((scope, granted) for scope in listed), SignalKind.SNOWPLOW_PREFERENCES)
    return Reading(
        SignalKind.SNOWPLOW_PREFERENCES,
        answers,
        version=version,
        raw=text,
        basis=basis,
        otherwise=None if granted else False,
        skipped=skipped,
    )


def read_gdpr(text: str) -> Reading:
    """Reads the entity ``gdpr``: the basis for processing and the document it rests on, which is no answer of the person.

    Raises:
        Unreadable: the object names no basis.
    """
    document = _content(document_of(text), "gdpr")
    basis = text_of(document, "basisForProcessing")
    if not basis:
        raise Unreadable("without basisForProcessing")
    version = " ".join(filter(None, (text_of(document, "documentId"), text_of(document, "documentVersion"))))
    return Reading(SignalKind.SNOWPLOW_GDPR, unknown="snowplow_gdpr: a basis is no answer", version=version, raw=text, basis=basis)


def _content(document: Document, name: str) -> Document:
    """The ``data`` of a self-describing object, or the object itself."""
    schema, content = document.get("schema"), document.get("data")
    if schema is None:
        return document
    if not isinstance(schema, str) or not schema.startswith(_SCHEMA.format(name)) or not isinstance(content, dict):
        raise Unreadable(f"not of the schema {name}")
    return content
