"""The lake under kill -9: every message is in each of its tables once, counts and positions agree, and no file is left over."""

import random
import subprocess
import sys
from pathlib import Path

from cdi_testing import builders
from cdi_warehouse_loader.domain.load import START, StreamPartition
from cdi_warehouse_loader.ports import Warehouse

from .engines import LOADED, iceberg, load, rows

PARTITIONS, KILLS, SECONDS = 2, 8, 1.2
LOADS_AFTER_THE_LAST_KILL = 20


def test_killed_at_any_moment_it_has_each_message_once(tmp_path: Path) -> None:
    moments = random.Random(20_261_126)
    for number in range(KILLS):
        child = subprocess.Popen([sys.executable, "-m", __name__, str(tmp_path)], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"opened\n"
        # Every other one gets somewhere, however slow the machine is; the others may be killed in their first load.
        assert not number % 2 or child.stdout.readline() == b"loaded\n"
        try:
            child.wait(moments.uniform(0.0, SECONDS))  # the kill's moment is the input here
        except subprocess.TimeoutExpired:
            child.kill()
        assert child.wait() == -9
        child.stdout.close()
    place = iceberg(tmp_path)
    warehouse = place.open()
    before = _messages(warehouse)
    assert before >= KILLS // 2
    _go_on(warehouse, LOADS_AFTER_THE_LAST_KILL)
    messages = before + LOADS_AFTER_THE_LAST_KILL
    assert _messages(warehouse) == messages
    for table, each in (("tracks", 2), ("seen", 1), ("bought", 1), ("identifies", 1)):
        assert rows(warehouse, f"select count(*), count(distinct id) from main.{table}") == [[messages * each] * 2]
    for partition in range(PARTITIONS):
        last = warehouse.positions[StreamPartition("ENRICHED", partition)].sequence
        loaded = rows(warehouse, f"select min(number), max(number), count(*) from main.seen where partition = {partition}")
        assert loaded == [[1, last, last]]
    # What does not fit its column, and who there is.
    assert rows(warehouse, "select count(*), count(distinct message_id) from main.discards") == [[messages - PARTITIONS] * 2]
    assert rows(warehouse, "select count(*), count(distinct id), max(number) from main.users") == [
        [PARTITIONS * 5, PARTITIONS * 5, max(at.sequence for at in warehouse.positions.values())]
    ]
    assert warehouse.counts() == {LOADED: messages * 3}
    assert sum(entry.events for entry in warehouse.loads(10_000)) == messages * 3
    place.rewrite()
    again = place.open()
    kept = {file.removeprefix("file://") for table in again._lake.committed().values() for file in table.names}
    assert {str(file) for file in (tmp_path / "lake" / "tables").rglob("*") if file.is_file()} == kept
    assert rows(again, "select count(*), count(distinct id) from main.tracks") == [[messages * 2] * 2]


def _messages(warehouse: Warehouse) -> int:
    return sum(at.sequence for where, at in warehouse.positions.items() if where.stream == "ENRICHED")


def _go_on(warehouse: Warehouse, loads: int | None = None) -> None:
    """Loads messages, numbered by their sequences, from where the warehouse stands."""
    done = 0
    while done != loads:
        partition = done % PARTITIONS
        number = warehouse.positions.get(StreamPartition("ENRICHED", partition), START).sequence + 1
        name, user = f"{partition}-{number}", f"user-{partition}-{number % 5}"
        load(
            warehouse,
            builders.track("Seen", message_id=f"seen-{name}", user_id=user, properties={"number": number, f"wide_{number % 11}": number}),
            builders.track("Bought", message_id=f"bought-{name}", user_id=user, properties={"total": number if number == 1 else "many"}),
            builders.identify(message_id=f"is-{name}", user_id=user, traits={"number": number}),
            partition=partition,
        )
        done += 1


if __name__ == "__main__":
    opened = iceberg(Path(sys.argv[1])).open()
    print("opened", flush=True)  # noqa: T201
    _go_on(opened, 1)
    print("loaded", flush=True)  # noqa: T201
    _go_on(opened)
