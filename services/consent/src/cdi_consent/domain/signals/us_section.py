"""Reading one section of GPP for the United States by its layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdi_consent.domain.signals.bits import Bits, decoded
from cdi_consent.domain.signals.signal import Answers, Unreadable, merged
from cdi_consent.domain.signals.us_privacy import OPTED_OUT, SALE, SHARING, TARGETED_ADVERTISING, opt_out
from cdi_consent.domain.signals.us_sections import VERSION_BITS, Fields, Section

_GPC_TYPE = 1
_NATIONAL_V1_BITS = 66


def read_section(section: Section, text: str) -> tuple[Answers, int] | None:
    """Reads a section.

    Returns:
        Its answers and its version; ``None`` if that version's layout is not known.

    Raises:
        Unreadable: it ends before, a field has a value that is not defined, or there is a segment that does not belong.
    """
    core, *segments = text.split(".")
    bits = decoded(core)
    version = bits.uint(0, VERSION_BITS)
    layout = section.layouts.get(version)
    if layout is None:
        return None
    if 2 in section.layouts and version == 1 and bits.size > _NATIONAL_V1_BITS:
        layout = section.layouts[2]  # IAB's own encoder wrote 1 on the layout of 2 for a while: iabgpp-es, issue 75.
    answers = list(_answers(section.place, _values(bits, VERSION_BITS, layout)))
    for segment in segments:
        answers += _segment(section, segment)
    return merged(answers), version


def _values(bits: Bits, at: int, layout: Fields) -> dict[str, Sequence[int]]:
    left = bits.size - at
    found: dict[str, Sequence[int]] = {}
    for name, count in layout:
        left -= 2 * count
        if left < 0:
            raise Unreadable(f"ends at bit {bits.size}")
        values = [bits.value >> left + 2 * after & 3 for after in range(count - 1, -1, -1)]
        if 3 in values:
            raise Unreadable(f"{name} is 3, which is not defined")
        found[name] = values
    return found


def _segment(section: Section, text: str) -> Answers:
    """The answers of a segment after the core: global privacy control, or the sensitive categories."""
    bits = decoded(text)
    if section.sensitive_segment:
        return tuple(_answers(section.place, _values(bits, 0, (("sensitive", section.sensitive_segment),))))
    if not section.gpc or bits.uint(0, 2) != _GPC_TYPE:
        raise Unreadable("a segment that the section does not have")
    return OPTED_OUT if bits.uint(2, 1) else ()


def _answers(place: str, values: dict[str, Sequence[int]]) -> Iterator[tuple[str, bool]]:
    """Yields answers, a key perhaps more than once: a category of one place also counts for ``us.sensitive`` or ``us.child``."""
    for key, name in ((SALE, "sale"), (SHARING, "sharing"), (TARGETED_ADVERTISING, "targeted")):
        if name in values:
            answer = opt_out(values[f"{name}_notice"][0], values[name][0])
            if answer is not None:
                yield key, answer
    notice = values.get("sensitive_notice", (1,))[0]
    for name in ("sensitive", "child"):
        for number, value in enumerate(values.get(name, ()), 1):
            if value:
                granted = value == 2 and (notice == 1 or name == "child")
                yield f"us.{name}", granted
                yield f"us.{place}.{name}.{number}" if place != "nat" else f"us.{name}.{number}", granted
    for key, name in (("us.personal_data", "personal"), ("us.additional_processing", "additional")):
        if value := values.get(name, (0,))[0]:
            yield key, value == 2
