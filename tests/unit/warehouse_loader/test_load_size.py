"""How large loads become."""

from cdi_warehouse_loader.domain.load_size import EVENTS_PER_TABLE, GROWTH, LoadSize

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


def test_what_memory_had_no_room_for_is_not_tried_again() -> None:
    size = LoadSize(USUAL)
    size.loaded(5_000)
    size.was_too_large(16_000)
    assert size.now() == 8_000
    size.loaded(5_000)
    assert size.now() == 8_000
    size.was_too_large(6_000)
    size.loaded(5_000)
    assert size.now() == USUAL
