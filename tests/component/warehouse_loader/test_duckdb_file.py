"""The DuckDB file: how its rows lie in it."""

from pathlib import Path

import duckdb
import pyarrow as pa

from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain.load import Load, TableLoad
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb import file
from cdi_warehouse_loader.warehouses.duckdb.warehouse import open_warehouse

MOST_ROWS = 30_720


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
