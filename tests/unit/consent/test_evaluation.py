"""Evaluation of batches: examples of each rule, and properties that hold for any history."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cdi_consent.domain.decisions import (
    ANONYMOUS_ID,
    CONFIRM_AFTER_US,
    UNDECIDED,
    USER_ID,
    Decided,
    Decision,
    Standing,
    Standings,
    Subject,
    in_force,
    is_news,
    proof_of,
)
from cdi_consent.domain.evaluation import Evaluation, Item, earlier_than_batch, evaluate, is_granted
from cdi_consent.domain.policy import DefaultPolicy
from cdi_consent.domain.purposes import Outcome, Purpose, snapshot

WORKSPACE = "acme"
NOW_US = 1_000_000_000
PURPOSES = snapshot(
    [
        Purpose(WORKSPACE, "advertising", categories=("ads", "C0004")),
        Purpose(WORKSPACE, "analytics", default_policy=DefaultPolicy.ALLOW, required_for_linking=True),
        Purpose(WORKSPACE, "email", categories=("C0004",)),
    ]
)
ADA: Subject = (WORKSPACE, USER_ID, "ada")
BROWSER: Subject = (WORKSPACE, ANONYMOUS_ID, "browser")


class Memory:
    """The ledger and what is in force, as the store derives one from the other."""

    def __init__(self) -> None:
        self.ledger: dict[str, Decision] = {}
        self.standings: dict[Subject, Decided] = {}

    def record(self, evaluation: Evaluation) -> None:
        new = {d.decision_id: d for d in evaluation.decisions if d.decision_id not in self.ledger}
        self.ledger |= new
        self.standings |= in_force(self.standings, new.values(), evaluation.confirmations)

    def before(self, items: Sequence[Item]) -> Standings:
        """What was in force before the items."""
        ignored = earlier_than_batch(items, PURPOSES, self.standings)
        standings = {subject: dict(decided) for subject, decided in self.standings.items()}
        for (subject, purpose), ids in ignored.items():
            del standings[subject][purpose]
            rest = [d.standing for d in self.ledger.values() if (d.subject, d.purpose) == (subject, purpose) and d.decision_id not in ids]
            if rest:
                standings[subject][purpose] = max(rest, key=lambda standing: standing.precedence)
        return standings

    def evaluate(self, *items: Item, now_us: int = NOW_US) -> Evaluation:
        before = self.before(items)
        result = evaluate(items, PURPOSES, before, {subject for item in items for subject in item.subjects}, now_us)
        # Whoever is judged again under a lock is judged the same.
        assert evaluate(items, PURPOSES, before, result.changing, now_us) == result
        self.record(result)
        return result


def item(message_id: str, *subjects: Subject, at: int = 0, **preferences: bool) -> Item:
    return Item(WORKSPACE, subjects or (ADA,), tuple(preferences.items()), at, proof_of(message_id))


def granted(outcome: Outcome) -> set[str]:
    return set(outcome.granted_purposes)


def test_without_a_decision_the_default_policy_holds() -> None:
    result = Memory().evaluate(item("m1"))
    assert result == ([Outcome(("analytics",), (), True)], [], {})


def test_a_workspace_without_purposes_grants_nothing_and_links() -> None:
    assert evaluate([Item("other", (("other", USER_ID, "x"),), (("ads", True),))], PURPOSES, {}, (), NOW_US) == (
        [Outcome((), (), True)],
        [],
        {},
    )


def test_a_carried_answer_holds_for_itself_and_later_events_only() -> None:
    result = Memory().evaluate(item("m1"), item("m2", at=5, analytics=False), item("m3", at=6))
    assert [outcome.linkable for outcome in result.outcomes] == [True, False, False]
    (decision,) = result.decisions
    assert (decision.subject, decision.purpose, decision.granted, decision.decide_us, decision.proof) == (ADA, "analytics", False, 5, "m2")
    assert result.outcomes[2].decision_ids == (decision.decision_id,)


def test_categories_are_case_sensitive_and_unknown_ones_say_nothing() -> None:
    result = Memory().evaluate(item("m1", ADVERTISING=True, Ads=True, nonsense=True))
    assert result.decisions == []


def test_a_category_may_mean_several_purposes_and_the_stricter_of_two_categories_counts() -> None:
    result = Memory().evaluate(item("m1", C0004=True, ads=False))
    assert {(d.purpose, d.granted) for d in result.decisions} == {("advertising", False), ("email", True)}


def test_the_same_answer_again_is_no_new_line() -> None:
    memory = Memory()
    assert len(memory.evaluate(item("m1", at=1, ads=True)).decisions) == 1
    assert memory.evaluate(item("m2", at=2, ads=True), item("m3", at=3, ads=True)).decisions == []


def test_a_late_older_answer_is_kept_and_changes_nothing() -> None:
    memory = Memory()
    memory.evaluate(item("m2", at=2, ads=True))
    late = memory.evaluate(item("m1", at=1, ads=False))
    assert "advertising" in granted(late.outcomes[0])
    assert len(memory.ledger) == 2
    assert "advertising" in granted(memory.evaluate(item("m3")).outcomes[0])


def test_an_answer_given_again_after_a_while_outlasts_a_late_one_from_between() -> None:
    memory = Memory()
    memory.evaluate(item("m1", at=1, ads=False), now_us=4 * CONFIRM_AFTER_US)
    again = memory.evaluate(item("m3", at=3 * CONFIRM_AFTER_US, ads=False), now_us=4 * CONFIRM_AFTER_US)
    assert (again.decisions, len(again.confirmations)) == ([], 1)
    late = memory.evaluate(item("m2", at=2 * CONFIRM_AFTER_US, ads=True), now_us=4 * CONFIRM_AFTER_US)
    assert "advertising" not in granted(late.outcomes[0])
    assert len(memory.ledger) == 2


def test_a_confirmation_and_a_late_answer_in_one_batch() -> None:
    memory = Memory()
    memory.evaluate(item("m1", at=1, ads=False), now_us=4 * CONFIRM_AFTER_US)
    again, late = item("m3", at=3 * CONFIRM_AFTER_US, ads=False), item("m2", at=2 * CONFIRM_AFTER_US, ads=True)
    memory.evaluate(again, late, now_us=4 * CONFIRM_AFTER_US)
    assert "advertising" not in granted(memory.evaluate(item("m4")).outcomes[0])


def test_at_the_same_instant_the_denial_is_in_force() -> None:
    for first in (True, False):
        memory = Memory()
        memory.evaluate(item("m1", at=1, ads=first), item("m2", at=1, ads=not first))
        assert "advertising" not in granted(memory.evaluate(item("m3")).outcomes[0])


def test_between_the_subjects_of_an_event_the_stricter_wins_and_is_what_it_rests_on() -> None:
    memory = Memory()
    memory.evaluate(item("m1", ADA, at=1, ads=True), item("m2", BROWSER, at=2, ads=False))
    (outcome,) = memory.evaluate(item("m3", ADA, BROWSER)).outcomes
    denial = memory.standings[BROWSER]["advertising"].decision_id
    assert "advertising" not in granted(outcome)
    assert outcome.decision_ids == (denial,)


def test_an_answer_is_recorded_for_every_subject_of_its_event() -> None:
    memory = Memory()
    memory.evaluate(item("m1", ADA, BROWSER, at=1, ads=True))
    assert memory.standings.keys() == {ADA, BROWSER}


def test_a_decision_dated_into_the_future_counts_as_taken_now() -> None:
    memory = Memory()
    memory.evaluate(item("m1", at=NOW_US * 9, ads=True), now_us=NOW_US)
    memory.evaluate(item("m2", at=NOW_US + 1, ads=False), now_us=NOW_US + 2)
    assert "advertising" not in granted(memory.evaluate(item("m3")).outcomes[0])


def test_an_event_that_belongs_to_nobody_is_bound_by_its_own_denials_alone() -> None:
    nobody = Item(WORKSPACE, (), (("analytics", False), ("ads", True)), 1, "m1")
    assert Memory().evaluate(nobody, item("m2")) == ([Outcome((), (), False), Outcome(("analytics",), (), True)], [], {})


def test_nul_in_a_message_id_does_not_reach_the_proof() -> None:
    (decision,) = Memory().evaluate(item("m\0", ads=True)).decisions
    assert decision.proof == "m\N{REPLACEMENT CHARACTER}"


subjects = st.lists(st.sampled_from([ADA, BROWSER, (WORKSPACE, USER_ID, "bob")]), min_size=1, max_size=2, unique=True)
preferences = st.dictionaries(st.sampled_from(["ads", "C0004", "analytics", "email", "?"]), st.booleans(), max_size=3)
Drawn = list[tuple[list[Subject], dict[str, bool], int]]
carried = st.tuples(subjects, preferences, st.integers(0, 6))


def build(drawn: Drawn, start: int = 0) -> list[Item]:
    return [Item(WORKSPACE, tuple(who), tuple(answers.items()), at, f"m{number}") for number, (who, answers, at) in enumerate(drawn, start)]


@given(st.lists(carried, max_size=6), st.lists(carried, max_size=6))
def test_the_same_batch_again_writes_nothing_and_answers_the_same(earlier: Drawn, drawn: Drawn) -> None:
    memory = Memory()
    memory.evaluate(*build(earlier, start=100))
    batch = build(drawn)
    first = memory.evaluate(*batch)
    lines = dict(memory.ledger)
    again = memory.evaluate(*batch, now_us=NOW_US + 1)
    assert again.outcomes == first.outcomes
    assert memory.ledger == lines


@given(st.lists(carried, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_how_events_are_cut_into_batches_does_not_matter(drawn: Drawn, cuts: list[bool]) -> None:
    items = build(drawn)
    whole, cut = Memory(), Memory()
    expected = whole.evaluate(*items).outcomes
    batches: list[list[Item]] = [[]]
    for one, new in zip(items, cuts, strict=False):
        if new:
            batches.append([])
        batches[-1].append(one)
    assert [outcome for batch in batches for outcome in cut.evaluate(*batch).outcomes] == expected
    assert cut.ledger == whole.ledger


@given(st.lists(carried, max_size=10))
def test_what_is_in_force_is_the_latest_line_and_every_line_changed_something_or_came_late(
    drawn: Drawn,
) -> None:
    memory = Memory()
    memory.evaluate(*build(drawn))
    for subject, decided in memory.standings.items():
        for purpose, standing in decided.items():
            lines = [d for d in memory.ledger.values() if (d.subject, d.purpose) == (subject, purpose)]
            latest = max(lines, key=lambda d: (d.decide_us, not d.granted, d.decision_id))
            assert standing == latest.standing
    by_key: dict[tuple[Subject, str], Standing] = {}
    for decision in memory.ledger.values():
        key = decision.subject, decision.purpose
        known = by_key.get(key)
        assert known is None or known.granted != decision.granted
        if known is None or known.precedence < decision.standing.precedence:
            by_key[key] = decision.standing


@given(st.lists(carried, max_size=8), subjects)
def test_an_event_is_granted_what_no_subject_denies(drawn: Drawn, who: list[Subject]) -> None:
    memory = Memory()
    memory.evaluate(*build(drawn))
    (outcome,) = memory.evaluate(item("last", *who)).outcomes
    for purpose in PURPOSES[WORKSPACE].purposes:
        own = [memory.standings.get(subject, UNDECIDED) for subject in who]
        answers = [decided[purpose.name].granted for decided in own if purpose.name in decided]
        assert (purpose.name in outcome.granted_purposes) == (all(answers) if answers else purpose.default_policy is DefaultPolicy.ALLOW)
    assert outcome.linkable == ("analytics" in outcome.granted_purposes)


@given(st.lists(carried, max_size=8), subjects)
def test_an_outcome_rests_on_the_denials_of_a_purpose_or_else_on_its_grants(drawn: Drawn, who: list[Subject]) -> None:
    memory = Memory()
    memory.evaluate(*build(drawn))
    (outcome,) = memory.evaluate(item("last", *who)).outcomes
    expected: list[str] = []
    for name in sorted(purpose.name for purpose in PURPOSES[WORKSPACE].purposes):
        on_it = [own[name] for subject in who if name in (own := memory.standings.get(subject, UNDECIDED))]
        expected += [standing.decision_id for standing in on_it if standing.granted == all(other.granted for other in on_it)]
    assert list(outcome.decision_ids) == expected


@given(st.lists(carried, max_size=8), subjects, preferences, st.integers(0, 3 * CONFIRM_AFTER_US))
def test_news_is_what_differs_from_the_standing_or_confirms_it(
    drawn: Drawn, who: list[Subject], answers: dict[str, bool], decide_us: int
) -> None:
    memory = Memory()
    memory.evaluate(*build(drawn))
    for subject in who:
        decided = memory.standings.get(subject, UNDECIDED)
        expected = any(
            (standing := decided.get(purpose)) is None or standing.granted != answer or standing.is_confirmed_at(decide_us)
            for purpose, answer in answers.items()
        )
        assert is_news(answers, decided, decide_us) == expected


def _standing(granted: bool, at: int) -> Standing:
    return Standing(granted, at, f"d{at}", "form")


@given(st.lists(st.dictionaries(st.sampled_from(["advertising", "analytics", "email"]), st.booleans(), max_size=3), max_size=2))
def test_a_person_is_granted_what_an_event_of_the_same_ids_is(answers: list[dict[str, bool]]) -> None:
    decided = [{name: _standing(granted, 1) for name, granted in one.items()} for one in answers]
    subjects = (ADA, BROWSER)[: len(decided)]
    standings = dict(zip(subjects, decided, strict=True))
    (outcome,) = evaluate([Item(WORKSPACE, subjects)], PURPOSES, standings, (), NOW_US).outcomes
    workspace = PURPOSES[WORKSPACE]
    assert {name for name in workspace.by_name if is_granted(name, workspace.anywhere, decided)} == granted(outcome)
