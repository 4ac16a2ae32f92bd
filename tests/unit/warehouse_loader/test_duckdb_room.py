"""The estimate of DuckDB's memory that rows take which are not in the file yet."""

from cdi_warehouse_loader.warehouses.duckdb.room import Room

MEMORY = 48_000_000


def loaded(room: Room, tables: int, times: int = 1) -> Room:
    for _ in range(times):
        room.begin()
        assert all(room.takes(("main", f"t{number}")) for number in range(tables))
        room.commit()
    return room


def test_few_tables_never_run_short() -> None:
    assert not loaded(Room(MEMORY), 6, times=1_000).is_short()


def test_many_tables_run_short_before_their_next_load() -> None:
    room = loaded(Room(MEMORY), 100)
    assert room.is_short()
    room.folded_in()
    assert not room.is_short()


def test_a_load_takes_no_more_tables_than_there_is_room_for() -> None:
    room = Room(MEMORY)
    room.begin()
    taken = [room.takes(("main", f"t{number}")) for number in range(1_000)]
    assert taken.index(False) == sum(taken)
    assert 100 < sum(taken) < 1_000


def test_a_load_that_was_taken_back_takes_nothing() -> None:
    room = Room(MEMORY)
    room.begin()
    for number in range(1_000):
        room.takes(("main", f"t{number}"))
    assert not loaded(room, 6).is_short()


def test_a_second_load_into_the_same_tables_takes_more_than_the_first() -> None:
    assert not loaded(Room(MEMORY), 80).is_short()
    assert loaded(Room(MEMORY), 80, times=2).is_short()
