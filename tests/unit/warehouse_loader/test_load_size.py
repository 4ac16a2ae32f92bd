"""How large loads become."""

from cdi_warehouse_loader.domain.load_size import EVENTS_PER_TABLE, GROWTH, LOADS_UNTIL_LARGER, MOST_EVENTS, LoadSize

USUAL = 4_000


def test_few_tables_leave_a_load_as_large_as_usual() -> None:
    size = LoadSize(USUAL)
    size.loaded(USUAL // EVENTS_PER_TABLE)
    assert size.now() == USUAL


def test_a_load_grows_with_its_tables_up_to_a_limit_and_shrinks_with_them() -> None:
    size = LoadSize(USUAL)
    size.loaded(100)
    assert size.now() == 100 * EVENTS_PER_TABLE
    size.loaded(5_000)
    assert size.now() == USUAL * GROWTH
    size.loaded(3)
    assert size.now() == USUAL


def test_no_load_grows_beyond_what_saves_anything() -> None:
    for usual in (MOST_EVENTS // 2, MOST_EVENTS, MOST_EVENTS + 1):
        size = LoadSize(usual)
        size.loaded(5_000)
        assert size.now() == max(usual, MOST_EVENTS)


def test_what_memory_had_no_room_for_is_not_tried_soon_again() -> None:
    size = LoadSize(USUAL)
    size.loaded(5_000)
    size.was_too_large(16_000)
    assert size.now() == 8_000
    size.loaded(5_000)
    assert size.now() == 8_000
    size.was_too_large(6_000)
    size.loaded(5_000)
    assert size.now() == USUAL


def test_it_is_tried_again_in_steps_after_many_loads() -> None:
    size = LoadSize(USUAL)
    size.was_too_large(6_000)
    found = []
    for _ in range(6 * LOADS_UNTIL_LARGER):
        size.loaded(5_000)
        found.append(size.now())
    steps = [USUAL * factor for factor in (1, 2, 4, 8, 16, GROWTH)]
    assert sorted(set(found)) == steps
    assert found.index(2 * USUAL) == LOADS_UNTIL_LARGER - 1
    size.was_too_large(USUAL * GROWTH)
    assert size.now() == USUAL * GROWTH // 2
