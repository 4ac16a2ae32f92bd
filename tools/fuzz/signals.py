"""The readers of consent signals, each as a function of bytes. Nothing may come out of one but a reading that keeps its promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from cdi_consent.domain.signals.registry import MAX_SIGNAL, read
from cdi_consent.domain.signals.signal import SignalKind

_KEYS: Final = (
    "ads",
    "tcf.purpose.1",
    "tcf.vendor.755",
    "tcf.vendor_li.9.purpose.2",
    "tcf.publisher.custom.1",
    "us.sale",
    "C0001",
    "marketing",
)
_GOLDEN: Final = {SignalKind.TCF: "tcf.jsonl", SignalKind.GPP: "gpp.jsonl"}
_SEEDS: Final = {
    SignalKind.SEGMENT: ['{"categoryPreferences":{"ads":true,"C0001":false}}'],
    SignalKind.RUDDERSTACK: ['{"allowedConsentIds":["ads"],"deniedConsentIds":["C0001"],"provider":"custom","resolutionStrategy":"or"}'],
    SignalKind.SNOWPLOW_PREFERENCES: ['{"eventType":"allow_selected","basisForProcessing":"consent","consentScopes":["ads"]}'],
    SignalKind.SNOWPLOW_GDPR: ['{"basisForProcessing":"contract","documentId":"terms"}'],
    SignalKind.US_PRIVACY: ["1YNN"],
    SignalKind.GPC: ["1"],
    SignalKind.GOOGLE_CONSENT_MODE: ["G111", '{"ad_storage":"granted"}'],
    SignalKind.ONETRUST: [
        "groups=C0001:1,C0002:0&interactionCount=1&isGpcEnabled=1&consentId=c",
        '{"payload":{"identifier":"u","interactionDate":"2026-01-01T00:00:00Z","purposes":[{"Id":"ads","TransactionType":"CONFIRMED"}]}}',
    ],
    SignalKind.COOKIEBOT: ["{stamp:'s',necessary:true,marketing:false,method:'explicit',ver:1,utc:1740000000000}", '{"marketing":true}'],
}


def _read(kind: SignalKind, data: bytes) -> None:
    """Bytes as a signal."""
    reading = read(kind, data)
    assert reading.kind is kind
    assert len(reading.raw) <= MAX_SIGNAL
    assert not (reading.unknown and reading.answers)
    assert reading.unknown.isprintable()
    for key in _KEYS:
        assert reading.answer(key) in (True, False, None)
    for key, granted in reading.answers:
        assert reading.answer(key) is granted


DECODERS: Final[Mapping[str, Callable[[bytes], None]]] = {f"signal-{kind}": partial(_read, kind) for kind in SignalKind}
"""By name."""


def seeds(golden: Path) -> dict[str, list[bytes]]:
    """Signals of every kind, and those that IAB's reference implementations made."""
    made = {kind: [json.loads(line)["string"] for line in (golden / name).read_text().splitlines()] for kind, name in _GOLDEN.items()}
    return {f"signal-{kind}": [text.encode() for text in texts] for kind, texts in (_SEEDS | made).items()}
