"""What CDI must answer to the keys of strings, worked out from what IAB's reference implementations read in them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdi_consent.domain.signals import registry
from cdi_consent.domain.signals.signal import Reading, SignalKind

Facts = Mapping[str, Any]
Spans = Sequence[Sequence[int]]

DEADLINE_US = 1_772_323_200_000_000  # 2026-03-01
US_ANSWERS = {0: None, 1: False, 2: True}
NUMBERED = {"SensitiveDataProcessing": "sensitive", "KnownChildSensitiveDataConsents": "child"}
OPT_OUT_STATES = {"usca": "SensitiveDataLimitUseNotice", "usut": "SensitiveDataProcessingOptOutNotice", "usia": "SensitiveDataOptOutNotice"}


def check_tcf(facts: Facts) -> Reading:
    """Asserts every purpose, and the vendors at the edges of what the string holds; returns the reading."""
    reading = registry.read(SignalKind.TCF, facts["string"])
    assert reading.unknown == ""
    assert reading.version == facts["version"]
    assert reading.decide_us == facts["updated_us"]
    answers = dict(tcf_answers(facts))
    assert {key: reading.answer(key) for key in answers} == answers
    assert set(reading.answers) <= set(answers.items())
    return reading


def tcf_answers(facts: Facts) -> Iterator[tuple[str, bool | None]]:
    consents = set(facts["purposes"]) - ({1} if facts["purpose_one_treatment"] else set())
    interests = set(facts["interests"]) - ({1, 3, 4, 5, 6} if facts["policy"] >= 4 else {1})
    for purpose in range(1, 25):
        yield f"tcf.purpose.{purpose}", purpose in consents
        yield f"tcf.li.{purpose}", purpose in interests
    for feature in range(1, 13):
        yield f"tcf.special_feature.{feature}", feature in facts["features"]
    yield "tcf.purpose.25", None
    yield "tcf.special_feature.13", None
    disclosed = facts["disclosed"]
    if disclosed is None and (facts["policy"] >= 5 or facts["updated_us"] >= DEADLINE_US):
        disclosed = []
    for vendor in sorted(vendors_worth_asking(facts)):
        shown = disclosed is None or has(disclosed, vendor)
        consent, interest = has(facts["vendor_consents"], vendor) and shown, has(facts["vendor_interests"], vendor) and shown
        yield f"tcf.vendor.{vendor}", consent
        yield f"tcf.vendor_li.{vendor}", interest
        for purpose in range(1, 12):
            kinds = {kind for number, kind, spans in facts["restrictions"] if number == purpose and has(spans, vendor)}
            by_consent, by_interest = consent and purpose in consents, interest and purpose in interests
            bases = {1: by_consent, 2: by_interest}
            required = [bases.get(kind, False) for kind in kinds]
            yield f"tcf.vendor.{vendor}.purpose.{purpose}", all(required) if required else by_consent
            yield f"tcf.vendor_li.{vendor}.purpose.{purpose}", all(required) if required else by_interest
    if facts["publisher"] is not None:
        for subject, last in (
            ("purpose", 24),
            ("li", 24),
            ("custom", facts["publisher"]["customs"]),
            ("custom_li", facts["publisher"]["customs"]),
        ):
            for number in range(1, last + 1):
                yield f"tcf.publisher.{subject}.{number}", number in facts["publisher"][subject]
            yield f"tcf.publisher.{subject}.{last + 1}", None


def vendors_worth_asking(facts: Facts) -> set[int]:
    """The ends of spans and what is beside them, a few of each kind: where a bit read too far or too short shows."""
    spans = [
        facts["vendor_consents"],
        facts["vendor_interests"],
        facts["disclosed"] or [],
        *(spans for _, _, spans in facts["restrictions"]),
    ]
    ends = {end + off for found in spans for span in (*found[:4], *found[-4:]) for end in span for off in (-1, 0, 1)}
    return {vendor for vendor in ends | {755, 65_535} if vendor > 0}


def has(spans: Spans, number: int) -> bool:
    return any(first <= number <= last for first, last in spans)


def check_gpp(facts: Facts) -> Reading:
    """Asserts all answers of a GPP string, and that there are no others; returns the reading."""
    reading = registry.read(SignalKind.GPP, facts["string"])
    assert reading.unknown == ""
    expected: dict[str, bool] = {}
    for key, answer in gpp_answers(facts["sections"]):
        if answer is not None:
            expected[key] = answer and expected.get(key, True)
    assert {key: answer for key, answer in reading.answers if not key.startswith("tcf.")} == expected
    eu = facts["sections"].get("tcfeuv2")
    for purpose in range(1, 25):
        assert reading.answer(f"tcf.purpose.{purpose}") == (eu["PurposeConsents"][purpose - 1] if eu else None)
    for vendor in range(1, 310) if eu else ():
        assert reading.answer(f"tcf.vendor.{vendor}") == (has(eu["VendorConsents"], vendor) and has(eu["VendorsDisclosed"], vendor))
    assert any("section 5" in skipped for skipped in reading.skipped) == ("tcfcav1" in facts["sections"])
    return reading


def gpp_answers(sections: Mapping[str, Facts]) -> Iterator[tuple[str, bool | None]]:
    for name, fields in sections.items():
        if name == "uspv1":
            codes = {"-": 0, "Y": 1, "N": 2}
            yield "us.sale", opt_out(codes[fields["Notice"]], codes[fields["OptOutSale"]])
            yield "us.sharing", False if fields["OptOutSale"] == "Y" else None
        elif name.startswith("us"):
            yield from us_answers(name, fields)


def us_answers(name: str, fields: Facts) -> Iterator[tuple[str, bool | None]]:
    for key, field in (("us.sale", "Sale"), ("us.sharing", "Sharing"), ("us.targeted_advertising", "TargetedAdvertising")):
        if f"{field}OptOut" in fields:
            yield key, opt_out(fields[f"{field}OptOutNotice"], fields[f"{field}OptOut"])
        if fields.get("Gpc") and fields.get("GpcSegmentIncluded", True):
            yield key, False
    noticed = fields[OPT_OUT_STATES[name]] == 1 if name in OPT_OUT_STATES else True
    for field, subject in NUMBERED.items():
        values = fields.get(field, [])
        for number, value in enumerate(values if isinstance(values, list) else [values], 1):
            answer = US_ANSWERS[value]
            if subject == "sensitive" and answer:
                answer = noticed
            yield f"us.{subject}", answer
            yield f"us.{subject}.{number}" if name == "usnat" else f"us.{name[2:]}.{subject}.{number}", answer
    yield "us.personal_data", US_ANSWERS[fields.get("PersonalDataConsents", 0)]
    yield "us.additional_processing", US_ANSWERS[fields.get("AdditionalDataProcessingConsent", 0)]


def opt_out(notice: int, opted_out: int) -> bool | None:
    if opted_out == 1 or notice == 2:
        return False
    return notice == 1 if opted_out == 2 else None
