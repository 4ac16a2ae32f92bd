"""Remembering changes no answer: replicas that remember are held against judging from the ledger alone, whatever happens on the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_consent.application import PurposeBook
from cdi_consent.convert import written
from cdi_consent.domain.decisions import (
    ANONYMOUS_ID,
    CONFIRM_AFTER_US,
    USER_ID,
    Decided,
    Decision,
    Source,
    Standing,
    Subject,
    decision_id,
    in_force,
    proof_of,
)
from cdi_consent.domain.evaluation import Item, earlier_than_batch, evaluate
from cdi_consent.domain.known import digest_of
from cdi_consent.domain.policy import ConsentPolicy, DefaultPolicy
from cdi_consent.domain.purposes import SUPPRESSED, Purpose, snapshot
from cdi_consent.domain.tombstones import Digest, Digester, Tombstone
from cdi_consent.evaluating import Evaluating
from cdi_consent.memory import Memory
from cdi_consent.ports import Ledger, Look, Moment, PurposeStore
from cdi_consent.tombstones import Tombstones

NOW_US = 10 * CONFIRM_AFTER_US
NAMED = [
    Purpose("acme", "advertising", categories=("ads",), regional_defaults=(("US", DefaultPolicy.ALLOW),)),
    Purpose("acme", "analytics", default_policy=DefaultPolicy.SEGMENT, required_for_linking=True),
]
PURPOSES = snapshot(NAMED)
ADA: Subject = ("acme", USER_ID, "ada")
BROWSER: Subject = ("acme", ANONYMOUS_ID, "browser")
BOB: Subject = ("acme", USER_ID, "bob")
DIGEST = Digester(b"k")


class Store:
    """What all replicas share, in memory: the ledger, what is in force, who has changed when, the tombstones."""

    def __init__(self) -> None:
        self.ledger: dict[str, Decision] = {}
        self.current: dict[Subject, Decided] = {}
        self.changes: list[bytes] = []
        self.pruned = 0
        self.buried: dict[Digest, Tombstone] = {}
        self.read: list[Subject] = []

    async def look(self, subjects: Collection[Subject], since: Moment | None) -> Look:
        self.read += subjects
        place = int(since[1]) if since else -1
        changed = self.changes[place:] if place >= self.pruned else None
        return Look(("", str(len(self.changes))), len(self.buried), changed, await self._of(subjects))

    async def _of(self, subjects: Collection[Subject]) -> dict[Subject, Decided]:
        return {subject: self.current[subject] for subject in subjects if subject in self.current}

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator["Store"]:
        yield self

    @contextlib.asynccontextmanager
    async def writing(self, subjects: Collection[Subject]) -> AsyncIterator["Store"]:
        yield self

    async def standings(self, subjects: Collection[Subject]) -> dict[Subject, Decided]:
        return await self._of(subjects)

    async def standings_without(self, ignored: Mapping[tuple[Subject, str], Sequence[str]]) -> dict[tuple[Subject, str], Standing]:
        found: dict[tuple[Subject, str], Standing] = {}
        for (subject, purpose), ids in ignored.items():
            rest = [d.standing for d in self.ledger.values() if (d.subject, d.purpose) == (subject, purpose) and d.decision_id not in ids]
            if rest:
                found[subject, purpose] = max(rest, key=lambda standing: standing.precedence)
        return found

    async def record(
        self,
        decisions: Sequence[Decision],
        confirmations: Mapping[tuple[Subject, str], Standing] = {},
        restored: Mapping[tuple[Subject, str], Standing | None] = {},
    ) -> None:
        new = {one.decision_id: one for one in decisions if one.decision_id not in self.ledger}
        self.ledger |= new
        after = in_force(self.current, new.values(), confirmations, restored)
        self.current |= after
        self.changes += map(digest_of, after)

    def erase(self, subject: Subject) -> None:
        self.current.pop(subject, None)
        self.ledger = {key: one for key, one in self.ledger.items() if one.subject != subject}
        self.changes.append(digest_of(subject))

    async def since(self, generation: int) -> AsyncIterator[tuple[str, Digest]]:
        for digest in list(self.buried)[generation:]:
            yield "acme", digest

    async def found(self, keys: Sequence[tuple[str, Digest]]) -> dict[Digest, Tombstone]:
        return {digest: self.buried[digest] for _, digest in keys if digest in self.buried}

    async def newest(self) -> tuple[list[Purpose], list[ConsentPolicy]]:
        return NAMED, []


async def replica(store: Store, size: int) -> Evaluating:
    book = PurposeBook(cast("PurposeStore", store))
    await book.reload()
    return Evaluating(cast("Ledger", store), book, Memory(store, size), Tombstones(store, DIGEST), lambda: NOW_US, written)


async def judged(store: Store, items: Sequence[Item]) -> list[bytes]:
    """The answers without any memory, one batch after what the ledger holds; what is news is recorded."""
    left = [item for item in items if not is_buried(store, item)]
    before = {subject: dict(decided) for subject, decided in store.current.items()}
    ignored = earlier_than_batch(left, PURPOSES, before)
    for subject, purpose in ignored:
        del before[subject][purpose]
    for (subject, purpose), standing in (await store.standings_without(ignored)).items():
        before[subject][purpose] = standing
    evaluation = evaluate(left, PURPOSES, before, {subject for item in items for subject in item.subjects}, NOW_US)
    await store.record(evaluation.decisions, evaluation.confirmations)
    outcomes = iter(evaluation.outcomes)
    return [written(SUPPRESSED if is_buried(store, item) else next(outcomes)) for item in items]


def is_buried(store: Store, item: Item) -> bool:
    return any(DIGEST(subject) in store.buried for subject in item.subjects)


def recorded(subject: Subject, granted: bool, decide_us: int) -> Decision:
    identity = decision_id("record", subject, "advertising", granted, decide_us, "form")
    return Decision(identity, subject, "advertising", granted, decide_us, NOW_US, "form", Source.RECORD)


subjects = st.sampled_from([(), (ADA,), (BROWSER,), (ADA, BROWSER), (BOB,), (BOB, BROWSER)])
answers = st.dictionaries(st.sampled_from(["ads", "analytics", "nothing"]), st.booleans(), max_size=2).map(lambda one: tuple(one.items()))
times = st.integers(0, 8).map(lambda number: number * CONFIRM_AFTER_US // 2)
signals = st.sampled_from([(), (("us_privacy", b"1YYN"),), (("segment", b'{"categoryPreferences":{"ads":false}}'),)])


@st.composite
def items(draw: st.DrawFn) -> Item:
    given_, said, region = draw(answers), draw(signals), draw(st.sampled_from(["", "US", "DE"]))
    answered = bool(given_ or said) or draw(st.booleans())
    proof = proof_of(f"m{draw(st.integers(0, 6))}") if answered else ""
    return Item("acme", draw(subjects), given_, draw(times) if answered else 0, proof, answered, region, said)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What happens: batches of events that come again and again, on either replica, and what others do meanwhile."""
    pool = draw(st.lists(items(), min_size=1, max_size=4))
    batches = st.tuples(st.just("batch"), st.integers(0, 1), st.lists(st.sampled_from(pool), min_size=1, max_size=5))
    events = st.one_of(
        batches,
        batches,
        st.just(("again",)),
        st.tuples(st.just("record"), st.sampled_from([ADA, BROWSER, BOB]), st.booleans(), times),
        st.tuples(st.just("erase"), st.sampled_from([ADA, BROWSER])),
        st.tuples(st.just("bury"), st.sampled_from([ADA, BROWSER, BOB])),
        st.just(("prune",)),
    )
    return draw(st.lists(events, min_size=2, max_size=12))


async def lived(history: Sequence[tuple[Any, ...]], size: int) -> None:
    """Lets it happen to two replicas that remember, and to one that does not: they answer and record the same."""
    shared, alone = Store(), Store()
    replicas = [await replica(shared, size), await replica(shared, size)]
    last: tuple[Any, ...] = ("batch", 0, [])
    for event in history:
        kind, *given_ = event if event != ("again",) else last
        if kind == "batch":
            last = ("batch", 1 - given_[0], given_[1])
            answers_ = (await replicas[given_[0]].evaluate(given_[1], lambda _: 0)).answers
            assert answers_ == await judged(alone, given_[1])
        for store in (shared, alone):
            if kind == "record":
                await store.record([recorded(*given_)])
            elif kind == "erase":
                store.erase(given_[0])
            elif kind == "bury":
                store.buried.setdefault(DIGEST(given_[0]), Tombstone(None, True))
            elif kind == "prune":
                store.pruned = len(store.changes)
        assert (shared.ledger, shared.current) == (alone.ledger, alone.current)


@settings(max_examples=200)
@given(histories(), st.sampled_from([0, 2, 100]))
def test_replicas_that_remember_answer_and_record_as_one_that_does_not(history: list[tuple[Any, ...]], size: int) -> None:
    asyncio.run(lived(history, size))


def said(proof: str, granted: bool, at_us: int = 5, *who: Subject) -> Item:
    return Item("acme", who or (ADA,), (("ads", granted),), at_us, proof, True)


PLAIN = Item("acme", (ADA,))
BOTH = Item("acme", (ADA, BROWSER))
GRANTED = [("batch", 0, [said("m1", True)]), ("batch", 0, [said("m2", True)])]


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            [*GRANTED, ("batch", 0, [PLAIN, said("m1", True)])], id="an event that comes again does not speak for those before it"
        ),
        pytest.param([*GRANTED, ("batch", 0, [said("m3", True, 3 * CONFIRM_AFTER_US)])], id="an answer that confirms is news"),
        pytest.param([("batch", 0, [Item("acme", (BOB,), region=region)]) for region in ("US", "US", "DE", "")], id="the region counts"),
        pytest.param(
            [("batch", 0, [PLAIN]), ("bury", BOB), ("batch", 0, [PLAIN]), ("bury", ADA), ("batch", 0, [PLAIN])], id="a new tombstone"
        ),
        pytest.param([("batch", 0, [BOTH]), ("batch", 0, [said("m1", True), BOTH])], id="news holds for later events of the same batch"),
        pytest.param(
            [*GRANTED, ("batch", 1, [said("m3", False, 6)]), ("batch", 0, [Item("acme", (BOB,))]), ("batch", 0, [PLAIN])],
            id="news on another replica",
        ),
        pytest.param([*GRANTED, ("batch", 0, [PLAIN]), ("record", ADA, False, 6), ("prune",), ("batch", 0, [PLAIN])], id="told no more"),
        pytest.param([*GRANTED, ("batch", 0, [PLAIN]), ("erase", ADA), ("batch", 0, [PLAIN])], id="an erasure"),
    ],
)
def test_what_was_remembered_does_not_outlive_its_reason(history: list[tuple[Any, ...]]) -> None:
    asyncio.run(lived(history, 100))


def test_who_is_remembered_is_read_once_and_again_after_a_change_elsewhere() -> None:
    async def run() -> None:
        store = Store()
        one, two = await replica(store, 100), await replica(store, 100)
        event = Item("acme", (ADA, BROWSER))
        for _ in range(3):
            await two.evaluate([event], lambda _: 0)
        assert store.read == [ADA, BROWSER]
        await one.evaluate([Item("acme", (ADA,), (("ads", True),), 5, "m1", True)], lambda _: 0)
        store.read.clear()
        (answer,) = (await two.evaluate([event], lambda _: 0)).answers
        assert store.read == [ADA]
        assert answer == (await judged(store, [event]))[0]
        assert b"advertising" in answer

    asyncio.run(run())


def test_no_more_are_remembered_than_fit() -> None:
    async def run() -> None:
        store = Store()
        memory = Memory(store, 100)
        for number in range(1_000):
            await memory.recollect([("acme", USER_ID, str(number)), ADA])
        store.read.clear()
        await memory.recollect([ADA, *(("acme", USER_ID, str(number)) for number in range(1_000))])
        assert 850 <= len(store.read) <= 950
        assert ADA not in store.read

    asyncio.run(run())
