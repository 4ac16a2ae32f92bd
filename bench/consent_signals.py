"""What reading a signal of consent costs. ``python -m bench.consent_signals``

Every string is read once and none twice, so nothing that remembers strings could help. CPU per signal, the best of several rounds; the
goal is 15 µs for a TC string with a bit for each of 700 vendors. Writes build/bench/consent-signals.json.
"""

from __future__ import annotations

import base64
import gc
import json
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from bench import report
from cdi_consent.domain.signals.registry import read
from cdi_consent.domain.signals.signal import SignalKind

SIGNALS: Final = 500
ROUNDS: Final = 60
VENDORS: Final = 700
TITLES: Final = {
    "tcf_us": "TC string, 700 vendors",
    "tcf_disclosed_us": "TC string, 700 vendors, disclosed vendors",
    "tcf_restrictions_us": "the same and 10 publisher restrictions",
    "gpp_tcf_us": "GPP string, that TC string and US Privacy",
    "gpp_us_national_us": "GPP string, US national with GPC",
    "segment_us": "Segment, 4 categories",
    "rudderstack_us": "RudderStack, 4 ids",
}


def text_of(bits: str) -> str:
    """Bits as base64url."""
    bits += "0" * (-len(bits) % 24)
    return base64.urlsafe_b64encode(int(bits, 2).to_bytes(len(bits) // 8, "big")).decode()


def bits_of(rng: random.Random, width: int) -> str:
    """That many bits, each at random."""
    return f"{rng.getrandbits(width):0{width}b}"


def tc_string(rng: random.Random, *, restrictions: int = 0, disclosed: bool = True) -> str:
    """A TC string with a bit field of ``VENDORS`` for consent and one for legitimate interest, all at random."""
    updated = f"{17_500_000_000 + rng.randrange(1_000_000):036b}"
    head = f"{2:06b}{updated}{updated}{31:012b}{2:012b}{1:06b}{0:012b}{150:012b}{4:06b}10"
    head += bits_of(rng, 12 + 24 + 24) + "0" * 13
    vendors = "".join(f"{VENDORS:016b}0{bits_of(rng, VENDORS)}" for _ in range(2))
    entries = "".join(f"{rng.randrange(2, 12):06b}00{1:012b}0{rng.randrange(1, VENDORS):016b}" for _ in range(restrictions))
    core = text_of(head + vendors + f"{restrictions:012b}" + entries)
    return ".".join((core, text_of(f"001{VENDORS:016b}0{bits_of(rng, VENDORS)}"))) if disclosed else core


def us_national(rng: random.Random) -> str:
    """The core segment of GPP's section for the United States, with notices and answers at random."""
    return text_of(f"{2:06b}" + "01" * 6 + "".join(f"{rng.randrange(3):02b}" for _ in range(3 + 16 + 3 + 4)))


def signals() -> dict[str, tuple[SignalKind, list[str]]]:
    """What is read: name of the figure → kind and texts, each different."""
    rng = random.Random(7)

    def many(make: Callable[[], str]) -> list[str]:
        return [make() for _ in range(SIGNALS)]

    return {
        "tcf_us": (SignalKind.TCF, many(lambda: tc_string(rng, disclosed=False))),
        "tcf_disclosed_us": (SignalKind.TCF, many(lambda: tc_string(rng))),
        "tcf_restrictions_us": (SignalKind.TCF, many(lambda: tc_string(rng, restrictions=10))),
        "gpp_tcf_us": (SignalKind.GPP, many(lambda: f"DBACNY~{tc_string(rng)}~1YNN")),
        "gpp_us_national_us": (SignalKind.GPP, many(lambda: f"DBABLA~{us_national(rng)}.YA")),
        "segment_us": (
            SignalKind.SEGMENT,
            many(lambda: json.dumps({"categoryPreferences": {f"c{rng.randrange(100_000)}": rng.random() < 0.5 for _ in range(4)}})),
        ),
        "rudderstack_us": (
            SignalKind.RUDDERSTACK,
            many(lambda: json.dumps({"allowedConsentIds": ["1", "2"], "deniedConsentIds": ["3", str(rng.random())], "provider": "custom"})),
        ),
    }


def cost_us(kind: SignalKind, texts: Iterable[str]) -> float:
    """CPU per signal in microseconds, the best of ``ROUNDS``."""
    texts = list(texts)
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        started = time.process_time_ns()
        for text in texts:
            read(kind, text)
        best = min(best, (time.process_time_ns() - started) / len(texts) / 1_000)
    return best


def main() -> None:
    figures: dict[str, float] = {}
    rows = []
    for name, (kind, texts) in signals().items():
        if unknown := next((reading.unknown for text in texts if (reading := read(kind, text)).unknown), ""):
            raise SystemExit(f"{name}: {unknown}")
        figures[name] = round(cost_us(kind, texts), 1)
        rows.append([TITLES[name], f"{sum(map(len, texts)) // len(texts)}", f"{figures[name]:.1f}"])
    report.show("Reading a signal of consent, uncached", ["signal", "characters", "µs"], rows)
    print(f"written to {report.write('consent-signals', figures)}")


if __name__ == "__main__":
    main()
