"""The arithmetic of the audit."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cdi_cli.audit import AuditLine, Count, Lost, Reading, lines_of

WAREHOUSE, ADS = "warehouse:main", "destination:ads"

# 100 in COLLECTED, 3 refused by the collector; of the 100: 4 duplicates, 6 break the plan, 90 are enriched.
SETTLED = Reading(
    collected=100,
    rejected=9,
    waiting={"enrichment": 0, WAREHOUSE: 0, ADS: 0, "rejected": 0},
    counts=(
        Count("enrichment", "accepted", 100),
        Count("enrichment", "duplicate", 4),
        Count("enrichment", "rejected", 6, "schema_violation"),
        Count("enrichment", "enriched", 90),
        Count(WAREHOUSE, "loaded", 90),
        Count(ADS, "delivered", 70),
        Count(ADS, "filtered", 15, "consent_denied"),
        Count(ADS, "dead_lettered", 2, "destination_refused"),
        Count(ADS, "parked", 3),
        Count("rejected", "rejected", 6, "enrichment:schema_violation"),
        Count("rejected", "rejected", 3, "collector:missing_identity"),
    ),
    sinks=(ADS, WAREHOUSE),
)
COUNTS_OF_ADS = tuple(count for count in SETTLED.counts if count.sink == ADS)


def without(reading: Reading, *removed: Count) -> tuple[Count, ...]:
    return tuple(count for count in reading.counts if count not in removed)


def line(reading: Reading, sink: str) -> AuditLine:
    return next(each for each in lines_of(reading) if each.sink == sink)


def balanced(reading: Reading) -> dict[str, bool]:
    return {each.sink: each.balanced for each in lines_of(reading)}


def test_every_sink_accounts_for_every_accepted_event() -> None:
    ads = line(SETTLED, ADS)
    assert ads.accepted == 103
    assert ads.outcomes["duplicate"] == 4
    assert ads.outcomes["rejected"] == 9
    assert line(SETTLED, WAREHOUSE).settled
    assert ads.settled
    assert line(SETTLED, "rejected").accepted == 9
    assert line(SETTLED, "rejected").settled
    assert ads.reasons == {
        ("rejected", "schema_violation"): 6,
        ("filtered", "consent_denied"): 15,
        ("dead_lettered", "destination_refused"): 2,
    }


def test_an_event_that_no_one_knows_is_missing() -> None:
    reading = replace(SETTLED, collected=101)
    assert balanced(reading) == {ADS: False, WAREHOUSE: False, "rejected": True}
    assert line(reading, ADS).unaccounted == 1


def test_what_is_on_its_way_balances_but_is_not_settled() -> None:
    reading = replace(SETTLED, collected=150, waiting={**SETTLED.waiting, "enrichment": 1})
    assert all(balanced(reading).values())
    assert not line(reading, WAREHOUSE).settled
    one_sink_behind = replace(SETTLED, waiting={**SETTLED.waiting, ADS: 2}, counts=without(SETTLED, *COUNTS_OF_ADS))
    assert all(balanced(one_sink_behind).values())
    assert line(one_sink_behind, ADS).unaccounted == 90


def test_counted_twice_never_balances_even_while_events_are_on_their_way() -> None:
    reading = replace(SETTLED, counts=(*SETTLED.counts, Count(WAREHOUSE, "loaded", 1)), waiting={WAREHOUSE: 5})
    assert not balanced(reading)[WAREHOUSE]


def test_dead_letters_of_the_bus_are_accounted_for_where_they_were_lost() -> None:
    before_the_sinks = replace(SETTLED, collected=110, lost=(Lost("enrichment", 10),))
    assert all(balanced(before_the_sinks).values())
    at_one_sink = replace(SETTLED, lost=(Lost(WAREHOUSE, 90),), counts=without(SETTLED, Count(WAREHOUSE, "loaded", 90)))
    assert all(balanced(at_one_sink).values())
    assert line(at_one_sink, WAREHOUSE).outcomes["dead_lettered"] == 90


def test_a_sink_that_has_counted_nothing_is_not_left_out() -> None:
    reading = replace(SETTLED, counts=without(SETTLED, Count(WAREHOUSE, "loaded", 90)))
    assert line(reading, WAREHOUSE).unaccounted == 90
    assert not balanced(reading)[WAREHOUSE]


def test_a_sink_does_not_account_for_what_was_enriched_before_it_existed() -> None:
    reading = replace(SETTLED, counts=without(SETTLED, *COUNTS_OF_ADS), earlier={ADS: 90})
    assert line(reading, ADS).settled
    assert line(reading, ADS).outcomes["earlier"] == 90


@given(st.lists(st.sampled_from(["loaded", "duplicate", "rejected", "refused", "filtered"]), max_size=60))
def test_whatever_becomes_of_events_the_account_is_settled(fates: list[str]) -> None:
    of = {fate: fates.count(fate) for fate in ("loaded", "duplicate", "rejected", "refused", "filtered")}
    reading = Reading(
        collected=len(fates) - of["refused"],
        rejected=of["rejected"] + of["refused"],
        waiting={},
        counts=(
            Count("enrichment", "duplicate", of["duplicate"]),
            Count("enrichment", "rejected", of["rejected"], "schema_violation"),
            Count(WAREHOUSE, "loaded", of["loaded"]),
            Count(WAREHOUSE, "filtered", of["filtered"], "consent_denied"),
            Count("rejected", "rejected", of["rejected"] + of["refused"], "any"),
        ),
        sinks=(WAREHOUSE,),
    )
    assert all(each.settled for each in lines_of(reading))
    assert line(reading, WAREHOUSE).accepted == len(fates)
