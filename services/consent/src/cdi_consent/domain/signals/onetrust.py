"""OneTrust: consent receipts and the web hook of an updated data subject as JSON, and the cookie ``OptanonConsent``.

Sources: OneTrust, "Create Consent Receipts", "Data Subject Profile Updated" (event 3010), "OneTrust Cookies".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

from cdi_consent.domain.signals.documents import Document, answers_of, document_of, instant_of, text_of, unescaped
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable, is_key, merged
from cdi_consent.domain.signals.us_privacy import OPTED_OUT

_STATES: Final = {
    **dict.fromkeys(("CONFIRMED", "ACTIVE", "ALWAYS_ACTIVE", "EXTEND"), True),
    **dict.fromkeys(("WITHDRAWN", "OPT_OUT", "HARD_OPT_OUT", "NOTGIVEN", "NO_CONSENT", "EXPIRED", "CANCEL"), False),
}
"""TransactionType of a receipt and TransactionStatus of a profile. PENDING, NO_CHOICE, CHANGE_PREFERENCES, NONE decide nothing."""

_GROUP_STATES: Final = {"1": True, "0": False}
_MAX_FIELDS: Final = 100


def read(text: str) -> Reading:
    """Reads a receipt, a web hook, or the cookie.

    Raises:
        Unreadable: it is none of them.
    """
    return _read_document(document_of(text), text) if text.lstrip()[:1] == "{" else _read_cookie(text)


def _read_document(document: Document, text: str) -> Reading:
    payload = document.get("payload", document)
    if not isinstance(payload, dict):
        raise Unreadable("payload is not an object")
    purposes = payload.get("purposes", payload.get("profiles"))
    if not isinstance(purposes, list):
        raise Unreadable("without purposes")
    answers, skipped = answers_of(map(_answer, purposes), SignalKind.ONETRUST)
    decide_us = instant_of(payload, "interactionDate", "consentDate", "InteractionDate", "ConsentDate")
    if decide_us is None:
        decide_us = instant_of(document, "eventTime")
    version = text_of(payload, "receiptId", "collectionPointGUID", "collectionPointGuid")
    subjects = tuple(_subjects(payload))
    return Reading(SignalKind.ONETRUST, answers, version=version, raw=text, decide_us=decide_us, subjects=subjects, skipped=skipped)


def _answer(purpose: Any) -> tuple[object, object]:
    """The id of a purpose and the answer; what is not there or not decided is ``None``."""
    if not isinstance(purpose, dict):
        return None, None
    fields = purpose.get("profileFields")
    states = (purpose, fields) if isinstance(fields, dict) else (purpose,)
    names = ("TransactionType", "transactionType", "TransactionStatus", "transactionStatus", "Status", "status")
    state = next((found for document in states if (found := text_of(document, *names))), "")
    return text_of(purpose, "Id", "id", "purposeId", "PurposeId", "Purpose", "purpose"), _STATES.get(state)


def _subjects(payload: Document) -> Iterator[tuple[str, str]]:
    """Whose receipt it is: the main identifier with its type, others, and OneTrust's own id."""
    if identifier := text_of(payload, "identifier", "Identifier"):
        yield text_of(payload, "identifierType", "IdentifierType") or "identifier", identifier
    others = payload.get("additionalIdentifiers")
    for kind, identifier in list(others.items())[:_MAX_FIELDS] if isinstance(others, dict) else ():
        if is_key(kind) and is_key(identifier):
            yield kind, identifier
    for name in ("dataSubjectEmail", "dataSubjectGuid"):
        if identifier := text_of(payload, name):
            yield name, identifier


def _read_cookie(text: str) -> Reading:
    """Reads ``groups=C0001:1,C0002:0&consentId=…``.

    Before the person has done anything (``interactionCount`` 0) a 1 is the banner's default and no answer. ``isGpcEnabled`` counts as
    global privacy control. ``datestamp`` is not the time of the decision: every page writes it.
    """
    try:
        fields = dict(parse_qsl(text if "=" in text else unescaped(text), max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise Unreadable(f"more than {_MAX_FIELDS} fields") from None
    groups = fields.get("groups")
    if groups is None:
        raise Unreadable("without groups")
    answers, skipped = answers_of(_groups(unescaped(groups).split(",")), SignalKind.ONETRUST)
    if fields.get("interactionCount") == "0":
        answers = tuple((group, False) for group, granted in answers if not granted)
        skipped = (*skipped, "onetrust: groups that are on before the person has answered")
    if fields.get("isGpcEnabled") == "1":
        answers = merged((*answers, *OPTED_OUT))
    consent_id = fields.get("consentId", "")
    subjects = (("consentId", consent_id),) if is_key(consent_id) else ()
    version = fields.get("version", "")
    version = version if is_key(version) else ""
    return Reading(SignalKind.ONETRUST, answers, version=version, raw=text, subjects=subjects, skipped=skipped)


def _groups(groups: Iterable[str]) -> Iterator[tuple[object, object]]:
    for group in groups:
        name, _, state = group.rpartition(":")
        yield name, _GROUP_STATES.get(state)
