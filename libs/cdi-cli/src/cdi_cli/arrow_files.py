"""Answers of the warehouse as files: an Arrow IPC stream in, CSV or Parquet out, never all of it in memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from cdi_cli.terminal import CommandFailed

if TYPE_CHECKING:
    from cdi.warehouse.v1.warehouse_service_pb2 import QueryResponse

KINDS: Final = (".csv", ".parquet")


async def write_answer(answer: AsyncIterator[QueryResponse], output: Path) -> tuple[int, bool]:
    """Writes an answer to a file, which is there only once it is whole.

    Args:
        answer: the parts.
        output: the file; its ending says what it holds.

    Returns:
        Rows, and whether there were more.

    Raises:
        CommandFailed: the file's ending is none of ``KINDS``, or it cannot be written.
        Fault: the loader refused the statement.
    """
    if output.suffix not in KINDS:
        raise CommandFailed(f"{output}: the name of the file has to end in {' or '.join(KINDS)}")
    draft = output.with_name(output.name + ".part")
    truncated = False
    try:
        with tempfile.TemporaryFile() as arrived:
            async for part in answer:
                arrived.write(part.ipc)
                truncated = part.truncated
            arrived.seek(0)
            rows = await asyncio.to_thread(_write, arrived, draft, output.suffix)
        draft.replace(output)
    except OSError as error:
        raise CommandFailed(f"{output}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return rows, truncated


def _write(arrived: IO[bytes], draft: Path, suffix: str) -> int:
    import pyarrow as pa  # takes a tenth of a second, which only an export has to pay

    rows = 0
    with pa.ipc.open_stream(arrived) as batches, _writer(suffix)(str(draft), batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _writer(suffix: str) -> Callable[[str, Any], Any]:
    from pyarrow import csv, parquet

    writer: Callable[[str, Any], Any] = csv.CSVWriter if suffix == ".csv" else parquet.ParquetWriter
    return writer
