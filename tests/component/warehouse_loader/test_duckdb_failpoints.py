"""A load that is killed before each of its statements: a child process ends itself there, without any tidying up."""

import subprocess
import sys
from pathlib import Path

from cdi_testing import builders

from .engines import duckdb, load, rows

CHILD = """
import os, sys
from pathlib import Path
from cdi_testing import builders
from tests.component.warehouse_loader.engines import duckdb, load

place = duckdb(Path(sys.argv[1]))
warehouse = place.open()
left = int(sys.argv[2])

class Failing:
    def __init__(self, connection):
        self._connection = connection
    def execute(self, *arguments):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return self._connection.execute(*arguments)
    def __getattr__(self, name):
        return getattr(self._connection, name)

warehouse.ensure_tables("main")
warehouse._loading = Failing(warehouse._loading)
load(warehouse, builders.track("Bought", message_id="m2", properties={"price": 2.5, "new": "x"}),
     builders.identify(message_id="i2", traits={"plan": "pro"}), builders.track("Other", message_id="o2"))
"""
EVENTS = [builders.track("Bought", message_id="m1", properties={"price": 1}), builders.identify(message_id="i1", traits={"plan": "free"})]
BEFORE = {"main.tracks": 1, "main.bought": 1, "main.identifies": 1, "main.users": 1}
AFTER = {"main.tracks": 3, "main.bought": 2, "main.identifies": 2, "main.users": 1, "main.other": 1}


def test_a_load_is_whole_or_not_there_wherever_it_is_killed(tmp_path: Path) -> None:
    killed = 0
    while True:
        directory = tmp_path / str(killed)
        directory.mkdir()
        place = duckdb(directory)
        load(place.open(), *EVENTS)
        place.close()
        command = [sys.executable, "-c", CHILD, str(directory), str(killed)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False).returncode
        assert ended in (0, 9)
        again = place.open()
        tables = [table for table in AFTER if table.split(".")[1] in again.catalog["main"]]
        found = {table: rows(again, f"select count(*) from {table}")[0][0] for table in tables}
        assert found == (AFTER if ended == 0 else BEFORE), f"killed before statement {killed}"
        assert sum(again.counts().values()) == (5 if ended == 0 else 2)
        assert next(iter(again.positions.values())).sequence == (2 if ended == 0 else 1)
        assert ("new" in again.catalog["main"]["bought"]) == (ended == 0)
        place.close()
        if ended == 0:
            break
        killed += 1
    assert killed > 10
