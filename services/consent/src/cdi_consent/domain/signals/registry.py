"""Every standard and who reads it. Reading never raises and takes bounded time and memory, whatever was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cdi_consent.domain.signals import categories, cookiebot, google, gpp, onetrust, snowplow, tcf, us_privacy
from cdi_consent.domain.signals.signal import Reading, SignalKind, Unreadable

MAX_SIGNAL: Final = 32 * 1024
"""Characters or bytes of a signal; of a longer one nothing is read, and its beginning is kept."""

DECODERS: Final[Mapping[SignalKind, Callable[[str], Reading]]] = {
    SignalKind.SEGMENT: categories.read_segment,
    SignalKind.RUDDERSTACK: categories.read_rudderstack,
    SignalKind.SNOWPLOW_PREFERENCES: snowplow.read_preferences,
    SignalKind.SNOWPLOW_GDPR: snowplow.read_gdpr,
    SignalKind.TCF: tcf.read,
    SignalKind.GPP: gpp.read,
    SignalKind.US_PRIVACY: us_privacy.read,
    SignalKind.GPC: us_privacy.read_gpc,
    SignalKind.GOOGLE_CONSENT_MODE: google.read,
    SignalKind.ONETRUST: onetrust.read,
    SignalKind.COOKIEBOT: cookiebot.read,
}


def read(kind: SignalKind, raw: object) -> Reading:
    """Reads a signal; one that cannot be read gives a reading without answers that says why in ``unknown``.

    Args:
        kind: the standard.
        raw: the signal as text or as UTF-8. Anything else is no signal.
    """
    if not isinstance(raw, str | bytes):
        return Reading(kind, unknown=f"{kind}: not text")
    if len(raw) > MAX_SIGNAL:
        return Reading(kind, unknown=f"{kind}: longer than {MAX_SIGNAL}", raw=raw[:MAX_SIGNAL])
    try:
        return DECODERS[kind](raw if isinstance(raw, str) else raw.decode())
    except Unreadable as error:
        return Reading(kind, unknown=f"{kind}: {error}", raw=raw)
    except UnicodeDecodeError as error:
        return Reading(kind, unknown=f"{kind}: not UTF-8 at {error.start}", raw=raw)


def combine(readings: Iterable[Reading], key: str) -> bool | None:
    """The strictest answer of several signals: a denial before a grant, ``None`` if none of them says anything about the key."""
    found: bool | None = None
    for reading in readings:
        answer = reading.answer(key)
        if answer is False:
            return False
        if answer:
            found = True
    return found
