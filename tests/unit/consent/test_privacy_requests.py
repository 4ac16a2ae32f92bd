"""The state machine of a privacy request: whatever comes in whatever order, it ends once, and in the same way."""

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_consent.domain.privacy import (
    End,
    Part,
    Report,
    Status,
    Tell,
    Verb,
    Wait,
    better,
    next_move,
    outcome,
    retell_after_us,
    steps_of,
    told,
)
from cdi_consent.domain.privacy_request import File, Request, made
from cdi_consent.domain.tombstones import Digester

ADA = ("acme", "user_id", "ada")
SERVICES = ("consent", "identity", "router")
SECOND_LOOK_US = 60_000_000

statuses = st.sampled_from([Status.FINISHED, Status.NOT_SUPPORTED, Status.FAILED, Status.RUNNING])
reports = st.builds(
    Report,
    st.sampled_from(SERVICES),
    st.sampled_from(["a", "b"]),
    st.integers(1, 2),
    statuses,
    st.integers(0, 5),
    st.sampled_from(["", "why"]),
    st.integers(1, 9),
)


def merged(found: Sequence[Report]) -> dict[tuple[str, str, int], Report]:
    """Reports as the store takes them, one after the other."""
    kept: dict[tuple[str, str, int], Report] = {}
    for report in found:
        key = report.service, report.store, report.attempt
        kept[key] = better(kept[key], report) if key in kept else report
    return kept


def parts_of(found: Sequence[Report], needed: int = 1) -> list[Part]:
    """As the store keeps them: an attempt is reported when no store runs in it."""
    running = {(one.service, one.attempt) for one in merged(found).values() if one.status is Status.RUNNING}
    answered = {(one.service, one.attempt) for one in found} - running
    newest = {service: max((attempt for name, attempt in answered if name == service), default=0) for service in SERVICES}
    return [Part(service, needed, 2, newest[service], 2, 100) for service in SERVICES]


@given(st.lists(reports, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_reports_and_their_repetition_change_nothing(found: list[Report], random: object) -> None:
    again = [*found, *found]
    random.shuffle(again)  # type: ignore[attr-defined]
    one, other = merged(found), merged(again)
    assert one == other
    steps = steps_of(parts_of(found), one.values())
    assert steps == steps_of(parts_of(again), reversed(list(other.values())))
    assert outcome(steps) == outcome(reversed(steps))


def test_three_reports_of_one_store_are_the_same_in_whatever_order() -> None:
    done = Report("consent", "a", 2, Status.FINISHED, 0, "", 1)
    running = [done._replace(status=Status.RUNNING, report_us=2), done._replace(status=Status.RUNNING, counted=1)]
    found = [merged(order) for order in permutations([done, *running])]
    assert all(one == {("consent", "a", 2): done._replace(counted=1)} for one in found)


@given(st.lists(reports, max_size=12), st.integers(0, 1), st.integers(0, 10**9))
def test_nothing_ends_before_all_have_reported(found: list[Report], looks_left: int, now_us: int) -> None:
    parts = parts_of(found, needed=2)
    move = next_move(parts, list(merged(found).values()), looks_left, SECOND_LOOK_US, now_us)
    pending = [part for part in parts if part.reported < 2]
    if pending or looks_left:
        assert not isinstance(move, End)
    else:
        assert isinstance(move, End)
        assert move.status in (Status.FINISHED, Status.PARTIAL_SUCCESS, Status.FAILED)
    if isinstance(move, Wait):
        assert move.until_us > now_us


@given(st.data())
def test_whoever_answers_late_or_twice_it_ends_finished_with_all_counts(data: st.DataObject) -> None:
    """A whole request: services answer some of what they are told, in any order, and doubly."""
    parts = [Part(service, 1, 1, 0, 1, 10) for service in SERVICES]
    kept: list[Report] = []
    attempt, looks_left, now_us, ends = 1, 1, 0, 0
    open_orders = [(service, 1) for service in SERVICES]
    for _ in range(30):
        now_us += data.draw(st.integers(5, 20))
        answered = open_orders if now_us > 100 else data.draw(st.lists(st.sampled_from(open_orders), max_size=4))
        for service, number in answered:
            kept = list(merged([*kept, Report(service, "rows", number, Status.FINISHED, 3, "", now_us)]).values())
            parts = [p._replace(reported=max(p.reported, number)) if p.service == service else p for p in parts]
        move = next_move(parts, kept, looks_left, 5, now_us)
        if isinstance(move, Tell):
            attempt += 1
            looks_left -= move.again
            parts = [told(p, attempt, move.again, now_us + 10) if p.service in move.services else p for p in parts]
            open_orders += [(service, attempt) for service in move.services]
        elif isinstance(move, End):
            ends += 1
            assert move.status is Status.FINISHED
            break
    assert ends == 1
    assert looks_left == 0
    steps = steps_of(parts, kept)
    assert {step.service for step in steps} == set(SERVICES)
    assert all(step.counted == 3 * len({one.attempt for one in kept if one.service == step.service}) for step in steps)


def test_a_second_look_waits_from_the_last_report_on() -> None:
    parts = [Part("router", 1, 1, 1, 1, 10)]
    found = [Report("router", "rows", 1, Status.FINISHED, 1, "", 50)]
    assert next_move(parts, found, 1, 100, 149) == Wait(150)
    assert next_move(parts, found, 1, 100, 150) == Tell(("router",), again=True)
    assert next_move(parts, found, 0, 100, 50) == End(Status.FINISHED)


def test_the_newest_report_of_a_service_says_how_its_stores_are() -> None:
    found = [
        Report("router", "crm", 1, Status.FAILED, 1, "answered 403", 5),
        Report("router", "mail", 1, Status.FAILED, 0, "timed out", 5),
        Report("router", "crm", 2, Status.NOT_SUPPORTED, 2, "no call", 6),
    ]
    steps = steps_of([Part("router", 1, 2, 2, 2, 0)], found)
    assert [(step.store, step.status, step.counted, step.detail) for step in steps] == [
        ("crm", Status.NOT_SUPPORTED, 3, "no call"),
        ("mail", Status.FINISHED, 0, ""),
    ]
    assert outcome(steps) is Status.PARTIAL_SUCCESS


def test_a_store_that_runs_is_shown_and_keeps_the_request_open() -> None:
    found = [
        Report("router", "rows", 1, Status.FINISHED, 2, "", 5),
        Report("router", "crm", 1, Status.RUNNING, 1, "status 503", 5),
        Report("router", "rows", 2, Status.FINISHED, 0, "", 6),
        Report("router", "crm", 2, Status.RUNNING, 2, "status 502", 7),
    ]
    waiting = [Part("router", 1, 2, 0, 2, 100)]
    steps = steps_of(waiting, found)
    assert [(step.store, step.status, step.counted, step.detail) for step in steps] == [
        ("crm", Status.RUNNING, 2, "status 502"),
        ("rows", Status.RUNNING, 2, ""),
    ]
    assert next_move(waiting, found, 0, 1, 10) == Wait(100)
    late = better(found[3], Report("router", "crm", 2, Status.FINISHED, 3, "", 50))
    assert (late.status, late.counted, late.report_us) == (Status.FINISHED, 3, 50), "what it did it did when it was done, not when it began"
    steps = steps_of([Part("router", 1, 2, 2, 2, 100)], [*found[:3], late])
    assert [(step.store, step.status, step.counted) for step in steps] == [("crm", Status.FINISHED, 3), ("rows", Status.FINISHED, 2)]


def test_a_service_is_told_again_less_and_less_often() -> None:
    assert [retell_after_us(times, 30_000_000) // 1_000_000 for times in (1, 2, 3, 8, 9, 99)] == [30, 60, 120, 3600, 3600, 3600]


@pytest.mark.parametrize(
    ("verb", "erases", "suppresses", "destinations", "reporting"),
    [
        (Verb.SUPPRESS_WITH_DELETE, True, True, True, 6),
        (Verb.DELETE_ONLY, True, None, True, 6),
        (Verb.SUPPRESS_WITH_DELETE_INTERNAL, True, True, False, 6),
        (Verb.DELETE_INTERNAL, True, None, False, 6),
        (Verb.SUPPRESS_ONLY, False, True, False, 1),
        (Verb.UNSUPPRESS, False, False, False, 1),
        (Verb.ACCESS, False, None, False, 6),
    ],
)
def test_what_each_verb_means(verb: Verb, erases: bool, suppresses: bool | None, destinations: bool, reporting: int) -> None:
    assert (verb.erases, verb.suppresses, verb.at_destinations, len(verb.services)) == (erases, suppresses, destinations, reporting)
    request = made("r", verb, "gdpr", [ADA, ADA], 1_000)
    assert request.subjects == (ADA,)
    burials = [(one.erased_before_us, one.suppressed) for one in request.burials(Digester(b"k" * 32))]
    assert burials == ([] if verb is Verb.ACCESS else [(1_000 if erases else None, suppresses)])


def test_deadlines() -> None:
    days = {law: (made("r", Verb.ACCESS, law, [ADA], 0).deadline_us) // 86_400_000_000 for law in ("gdpr", "us")}
    assert days == {"gdpr": 30, "us": 45}


def test_a_retry_tells_those_that_failed_and_those_that_are_late() -> None:
    request = Request("r", "acme", Verb.DELETE_ONLY, Status.FAILED, "gdpr", (ADA,), 0, 0, order_us=0, attempt=4)
    parts = [Part("identity", 3, 3, 3, 2, 0), Part("router", 3, 3, 3, 2, 0), Part("collector", 3, 4, 2, 3, 0)]
    found = [Report("identity", "rows", 3, Status.FINISHED, 1, "", 1), Report("router", "crm", 3, Status.FAILED, 0, "x", 1)]
    again = File(request, [], parts, found).retried(99)
    assert again == [Part("router", 5, 5, 3, 3, 99), Part("collector", 3, 5, 2, 4, 99)]
