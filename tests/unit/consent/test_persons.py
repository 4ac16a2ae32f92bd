"""Denials among the ids of one person, and what a split gives back."""

from cdi_consent.domain.chain import START, Line, Seal
from cdi_consent.domain.decisions import ANONYMOUS_ID, USER_ID, Decided, Decision, Source, Subject
from cdi_consent.domain.persons import Moment, foreign, inherited, lifted
from cdi_consent.domain.purposes import Purpose, snapshot

ADA: Subject = ("acme", USER_ID, "ada")
PHONE: Subject = ("acme", ANONYMOUS_ID, "phone")
TABLET: Subject = ("acme", ANONYMOUS_ID, "tablet")
WORKSPACE = snapshot([Purpose("acme", "ads", version=3), Purpose("acme", "mail")])["acme"]
MERGE = Moment(since_us=50, now_us=60)


def answer(subject: Subject, granted: bool, at: int, name: str, source: Source = Source.EVENT, proof: str = "m") -> Line:
    return Line(Decision(name, subject, "ads", granted, at, at, proof, source), START, Seal(b"", b""))


def spread(*answers: Line, moment: Moment = MERGE) -> list[Decision]:
    standings: dict[Subject, Decided] = {line.decision.subject: {"ads": line.decision.standing} for line in answers}
    lines = {line.decision.decision_id: line for line in answers}
    return inherited((ADA, PHONE, TABLET), standings, lines, WORKSPACE, moment)


def test_a_denial_reaches_the_ids_that_granted_and_those_that_were_silent() -> None:
    found = spread(answer(ADA, True, 40, "grant"), answer(PHONE, False, 10, "denial"))
    assert [(one.subject, one.granted, one.decide_us, one.proof, one.source) for one in found] == [
        (ADA, False, 50, "denial", Source.PROFILE),
        (TABLET, False, 50, "denial", Source.PROFILE),
    ]
    assert {(one.purpose, one.purpose_version, one.record_us) for one in found} == {("ads", 3, 60)}


def test_without_a_denial_nothing_travels() -> None:
    assert spread(answer(ADA, True, 1, "grant")) == []
    assert spread() == []


def test_a_later_grant_stays_and_the_same_again_is_no_news() -> None:
    later = answer(ADA, True, 55, "grant")
    denial = answer(PHONE, False, 10, "denial")
    (only,) = spread(later, denial)
    assert only.subject == TABLET
    reached = answer(TABLET, False, 50, only.decision_id, Source.PROFILE, "denial")
    assert spread(later, denial, reached) == []


def test_what_came_from_elsewhere_names_the_first_denial() -> None:
    (ada, _) = spread(answer(PHONE, False, 10, "copy", Source.PROFILE, "root"))
    assert ada.proof == "root"


def test_a_split_lifts_what_came_over_the_border_on_both_sides() -> None:
    to_ada = answer(ADA, False, 50, "to ada", Source.PROFILE, "of phone")
    to_phone = answer(PHONE, False, 50, "to phone", Source.PROFILE, "of ada")
    inside = answer(TABLET, False, 50, "to tablet", Source.PROFILE, "of phone")
    own = answer(PHONE, False, 10, "of phone")
    roots = {"of phone": PHONE, "of ada": ADA}
    assert foreign({PHONE, TABLET}, [to_ada, to_phone, inside, own], roots) == [to_ada, to_phone]


def test_a_lifted_denial_says_what_the_id_answered_itself() -> None:
    line = answer(ADA, False, 50, "to ada", Source.PROFILE, "of phone")
    own = answer(ADA, True, 40, "grant").decision.standing
    after = lifted(line, own, WORKSPACE, Moment(70, 80))
    assert (after.granted, after.decide_us, after.proof, after.source) == (True, 70, "to ada", Source.SPLIT)
    assert not lifted(line, None, WORKSPACE, Moment(70, 80)).granted
