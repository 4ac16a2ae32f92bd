"""What an event says of consent, in whatever form: answers to categories, and signals that the consent service reads.

Places: ``context.consent`` (Segment's ``categoryPreferences``; beside it ``tcf``, ``gpp``, ``usPrivacy``, ``googleConsentMode``,
``onetrust`` and ``cookiebot``, each as its platform gives it), ``context.consentManagement`` (RudderStack), the header ``Sec-GPC`` as the
collector noted it, and Snowplow's event ``consent_preferences``. What a signal means is not decided here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain.context import EventContext, read_member

Answers: TypeAlias = tuple[tuple[str, bool], ...]
"""Categories of consent, and whether the person agrees."""

Signals: TypeAlias = tuple[tuple[str, bytes], ...]
"""Kinds of signals (``ConsentSignal.kind``), and each as it was sent."""

MAX_SIGNAL: Final = 16_384
"""Bytes of a signal (consent_service.proto); a longer one says nothing."""

_REMEMBERED: Final = 256
"""Consents: few, because clients choose how long they are, and traffic repeats a handful."""

_PREFERENCES: Final = "iglu:com.snowplowanalytics.snowplow/consent_preferences/"
_ABSENT: Final = msgspec.Raw()


class Carried(msgspec.Struct, frozen=True, gc=False):
    """What an event says.

    Attributes:
        answers: to categories.
        is_answer: it has an object of answers, be it an empty one.
        signals: in other forms.
    """

    answers: Answers = ()
    is_answer: bool = False
    signals: Signals = ()


NOTHING_SAID: Final = Carried()
_GPC: Final = Carried(signals=(("gpc", b"1"),))


class _Consent(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``context.consent``."""

    category_preferences: dict[str, bool] | None = None
    tcf: str | None = None
    gpp: str | None = None
    us_privacy: str | None = None
    google_consent_mode: msgspec.Raw = _ABSENT
    onetrust: msgspec.Raw = _ABSENT
    cookiebot: msgspec.Raw = _ABSENT


_CONSENT: Final = msgspec.json.Decoder(_Consent)


def carried(event: event_pb2.Event, context: EventContext) -> Carried:
    """What an event says of consent. Raises as ``read_context``."""
    said = read_consent(bytes(context.consent)) if context.consent else NOTHING_SAID
    if management := bytes(context.consent_management):
        said = _with(said, "rudderstack", management)
    if event.HasField("signals") and event.signals.global_privacy_control:
        said = _GPC if said is NOTHING_SAID else _with(said, "gpc", b"1")
    if event.type == event_pb2.EVENT_TYPE_SELF_DESCRIBING and event.schema_uri.startswith(_PREFERENCES):
        said = _with(said, "snowplow_preferences", event.properties)
    return said


@lru_cache(maxsize=_REMEMBERED)
def read_consent(consent: bytes) -> Carried:
    """What ``context.consent`` says. Raises as ``read_context``."""
    if not consent.startswith(b"{"):
        return NOTHING_SAID
    found = read_member(_CONSENT, _Consent, consent)
    given = found.category_preferences
    texts = (
        ("tcf", (found.tcf or "").encode()),
        ("gpp", (found.gpp or "").encode()),
        ("us_privacy", (found.us_privacy or "").encode()),
        ("google_consent_mode", _text(found.google_consent_mode)),
        ("onetrust", _text(found.onetrust)),
        ("cookiebot", _text(found.cookiebot)),
    )
    signals = tuple((kind, text) for kind, text in texts if 0 < len(text) <= MAX_SIGNAL)
    if given is None and not signals:
        return NOTHING_SAID
    return Carried(tuple(given.items()) if given else (), given is not None, signals)


def _text(member: msgspec.Raw) -> bytes:
    """What a platform gives: an object as JSON, or its text."""
    raw = bytes(member)
    return msgspec.json.decode(raw, type=str).encode() if raw.startswith(b'"') else b"" if raw == b"null" else raw


def _with(said: Carried, kind: str, raw: bytes) -> Carried:
    return msgspec.structs.replace(said, signals=(*said.signals, (kind, raw))) if len(raw) <= MAX_SIGNAL else said
