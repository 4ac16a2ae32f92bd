"""Which files of the lake become one: few files in the end, each row written anew a few times, no file beyond its size."""

from pyiceberg.manifest import DataFile
from pyiceberg.typedef import Record

from cdi_warehouse_loader.warehouses.iceberg.compaction import JOINED, LARGEST_ROWS, ready


def file(rows: int, *, day: int = 0, bytes_per_row: int = 40) -> DataFile:
    return DataFile.from_args(partition=Record(day), record_count=rows, file_size_in_bytes=rows * bytes_per_row)


def test_after_thousands_of_loads_there_are_few_files_and_each_row_was_written_a_few_times() -> None:
    files: list[DataFile] = []
    loads, rows, written = 5_000, 700, 0
    for _ in range(loads):
        files.append(file(rows))
        for group in ready(files):
            joined = sum(one.record_count for one in group)
            assert joined <= LARGEST_ROWS
            written += joined
            names = {id(one) for one in group}
            files = [one for one in files if id(one) not in names] + [file(joined)]
            break
    assert sum(one.record_count for one in files) == loads * rows
    assert len(files) < loads * rows / LARGEST_ROWS * 2 + 3 * JOINED
    assert written < 4 * loads * rows


def test_files_of_different_days_and_sizes_are_not_joined() -> None:
    days = [file(10, day=day) for day in range(2 * JOINED)]
    assert list(ready(days)) == []
    assert list(ready([file(10) for _ in range(JOINED - 1)] + [file(100_000)])) == []
    assert [len(group) for group in ready([file(10, day=day % 2) for day in range(2 * JOINED)])] == [JOINED, JOINED]


def test_a_large_file_stays_as_it_is() -> None:
    assert list(ready([file(LARGEST_ROWS, bytes_per_row=1) for _ in range(2 * JOINED)])) == []
    assert list(ready([file(1_000, bytes_per_row=64 * 1024) for _ in range(2 * JOINED)])) == []
    (group,) = ready([file(LARGEST_ROWS // 2 - 1, bytes_per_row=1) for _ in range(3)])
    assert len(group) == 2
