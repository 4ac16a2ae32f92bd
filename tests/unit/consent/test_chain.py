"""The chain of a subject's lines: whatever is done to it afterwards is found."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cdi_consent.domain.chain import ERASED, Flaw, Line, Link, Seal, breaks, commitment_of, digest_of, linked
from cdi_consent.domain.decisions import USER_ID, Decision, Source, Subject, decision_id

SALT = b"0123456789abcdef"
ADA: Subject = ("acme", USER_ID, "ada")


def decision(number: int, granted: bool = True) -> Decision:
    identity = decision_id("record", ADA, "ads", granted, number, "form")
    return Decision(identity, ADA, "ads", granted, number, 1_000 + number, "form", Source.RECORD, 1, 2, b"signal")


def chain(length: int) -> tuple[list[Line], Link]:
    heads: dict[Subject, Link] = {}
    lines = linked(map(decision, range(length)), heads, lambda: SALT)
    return lines, heads[ADA]


def flaws(lines: list[Line], head: Link | None) -> list[tuple[int, Flaw]]:
    return [(one.position, one.flaw) for one in breaks(ADA, lines, head)]


def test_a_chain_holds_however_its_lines_were_added() -> None:
    whole, head = chain(5)
    heads: dict[Subject, Link] = {}
    parts = [line for number in range(5) for line in linked([decision(number)], heads, lambda: SALT)]
    assert parts == whole
    assert flaws(whole, head) == []
    assert [line.link.position for line in whole] == [1, 2, 3, 4, 5]


def test_the_hash_of_a_line_is_as_documented() -> None:
    # Written out, because lines that are stored must stay verifiable.
    signal = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    line = Decision("0190", ADA, "ads", False, 5, 6, "m\u00fc", Source.EVENT, 3, 1, b"{}")
    commitment = hashlib.sha256(SALT + f'["ada","m\u00fc","{signal}"]'.encode()).digest()
    assert commitment_of(line, SALT) == commitment
    text = f'["cdi.consent.line/1","ff",2,"0190","acme","user_id","ads",false,5,6,1,3,1,"{commitment.hex()}"]'
    assert digest_of(line, 2, b"\xff", commitment) == hashlib.sha256(text.encode()).digest()


@given(st.integers(0, 4), st.sampled_from(["purpose", "granted", "decide_us", "record_us", "proof", "source", "purpose_version", "signal"]))
def test_a_changed_line_is_found(place: int, field: str) -> None:
    lines, head = chain(5)
    old = lines[place].decision
    other = {"purpose": "x", "granted": False, "decide_us": 9, "record_us": 9, "proof": "x", "source": Source.EVENT, "signal": b""}
    lines[place] = lines[place]._replace(decision=old._replace(**{field: other.get(field, 9)}))
    assert flaws(lines, head) == [(place + 1, Flaw.CHANGED)]


@given(st.integers(0, 4))
def test_a_changed_line_with_a_new_hash_is_found(place: int) -> None:
    lines, head = chain(5)
    link = lines[place].link
    forged = decision(77, granted=False)
    seal = Seal(SALT, commitment_of(forged, SALT))
    lines[place] = Line(forged, link._replace(digest=digest_of(forged, link.position, link.previous, seal.commitment)), seal)
    assert flaws(lines, head) == [(place + 2, Flaw.REORDERED)] if place < 4 else [(5, Flaw.CHANGED)]


@given(st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_missing_lines_are_found(gone: set[int]) -> None:
    lines, head = chain(5)
    found = flaws([line for place, line in enumerate(lines) if place not in gone], head)
    assert found
    assert {flaw for _, flaw in found} == {Flaw.MISSING}


@given(st.permutations(range(5)))
def test_lines_in_another_order_are_found(order: list[int]) -> None:
    lines, head = chain(5)
    moved = [lines[place]._replace(link=lines[place].link._replace(position=at)) for at, place in enumerate(order, 1)]
    assert bool(flaws(moved, head)) == (order != sorted(order))


def test_a_whole_chain_or_a_head_that_is_gone_is_found() -> None:
    lines, head = chain(2)
    assert flaws([], head) == [(1, Flaw.MISSING)]
    assert flaws(lines, None) == [(3, Flaw.MISSING)]


def erased(line: Line) -> Line:
    gone = line.decision._replace(subject=(*ADA[:2], f"{ERASED}d1:c1"), proof="", signal=b"")
    return line._replace(decision=gone, seal=line.seal._replace(salt=b""))


def test_an_erased_chain_holds() -> None:
    lines, head = chain(5)
    assert flaws([erased(line) for line in lines], head) == []


@given(st.integers(0, 4), st.sampled_from(["granted", "purpose", "proof", "signal", "subject"]))
def test_what_is_changed_in_an_erased_chain_is_found(place: int, field: str) -> None:
    lines, head = chain(5)
    lines = [erased(line) for line in lines]
    other = {"granted": False, "purpose": "x", "proof": "x", "signal": b"x", "subject": (*ADA[:2], "eve")}
    lines[place] = lines[place]._replace(decision=lines[place].decision._replace(**{field: other[field]}))
    assert flaws(lines, head) == [(place + 1, Flaw.CHANGED)]


def test_the_salt_of_an_erased_line_cannot_be_found_again() -> None:
    lines, head = chain(1)
    forged = lines[0].decision._replace(subject=(*ADA[:2], "eve"))
    assert flaws([lines[0]._replace(decision=forged, seal=lines[0].seal._replace(salt=b"x" * 16))], head) == [(1, Flaw.CHANGED)]
