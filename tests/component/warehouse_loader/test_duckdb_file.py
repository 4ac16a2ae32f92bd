"""The DuckDB file: how its rows lie in it."""

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Load, TableLoad
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb import file
from cdi_warehouse_loader.warehouses.duckdb.warehouse import open_warehouse

MOST_ROWS = 10_240


def _row_groups(path: Path) -> list[int]:
    """Rows of each row group of the table, in their order."""
    with duckdb.connect() as connection:
        connection.execute("ATTACH '{}' AS warehouse (READ_ONLY)".format(str(path).replace("'", "''")))
        groups = """
            SELECT sum(count) FROM pragma_storage_info('warehouse.main.numbers')
            WHERE column_name = 'number' AND segment_type <> 'VALIDITY' GROUP BY row_group_id ORDER BY row_group_id
        """
        return [int(rows) for (rows,) in connection.execute(groups).fetchall()]


def test_row_groups_are_small_also_of_new_rows_in_a_file_from_before_and_where_it_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "it's.duckdb"
    options = Options(f"duckdb:{path}")
    with duckdb.connect() as connection:
        connection.execute("ATTACH '{}' AS warehouse".format(str(path).replace("'", "''")))
        connection.execute("CREATE TABLE warehouse.main.numbers AS SELECT range AS number FROM range(130_000)")
    before = _row_groups(path)
    assert max(before) > MOST_ROWS
    warehouse = open_warehouse(options)
    rows = pa.RecordBatch.from_pydict({"number": list(range(70_000))})
    warehouse.load(Load(StreamName.ENRICHED, 70_000, [TableLoad("main", "numbers", rows)], {}, {}))
    warehouse.close()
    added = _row_groups(path)[len(before) :]
    assert sum(added) > 0
    assert max(added) <= MOST_ROWS
    file.rewrite(options)
    anew = _row_groups(path)
    assert sum(anew) == 200_000
    assert max(anew) <= MOST_ROWS


def test_a_log_that_is_larger_than_the_memory_spills_beside_the_file_when_it_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crashed = tmp_path / "running.duckdb", tmp_path / "crashed.duckdb"
    running = open_warehouse(Options(f"duckdb:{path}", memory_limit="256MB", checkpoint_threshold="1GB"))
    rows = pa.RecordBatch.from_pydict({"text": ["long " * 40] * 5_000})
    for load in range(40):
        added = {} if load else {"text": ColumnType.TEXT}
        running.load(Load(StreamName.ENRICHED, 5_000, [TableLoad("main", "texts", rows, added)], {}, {}))
    for ending in ("", ".wal"):
        shutil.copy(f"{path}{ending}", f"{crashed}{ending}")
    running.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".tmp").write_text("where DuckDB spills by itself, so it could not")
    monkeypatch.chdir(elsewhere)
    open_warehouse(Options(f"duckdb:{crashed}", memory_limit="16MB")).close()
    with duckdb.connect(str(crashed), read_only=True) as connection:
        assert connection.execute("SELECT count(*), sum(length(text)) FROM texts").fetchall() == [(200_000, 40_000_000)]
