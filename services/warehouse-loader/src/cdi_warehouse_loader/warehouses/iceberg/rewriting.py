"""Deleting every file that no table consists of: what was replaced, and what loads that died have left."""

from __future__ import annotations

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY, CatalogDatabase
from cdi_warehouse_loader.warehouses.iceberg.storage import opened
from cdi_warehouse_loader.warehouses.iceberg.table import read


def rewrite(options: Options) -> None:
    """Afterwards nothing is stored of what was erased: erasing has written the tables' files anew, and here the old ones go. Blocks.

    The files are listed before the generation is counted up. Whatever load has written a listed file has either committed it, and then a
    table leads to it, or never will, since it finds another generation than it began with.

    Raises:
        Unavailable: it cannot now. Some files may be gone, none of a table's.
    """
    location, storage = opened(options)
    database = CatalogDatabase(location)
    try:
        listed = storage.listed()
        with database.writing() as transaction:
            transaction.next_generation()
            done = transaction.unrewritten()
            pointers = transaction.pointers()
        kept = {name for pointer in pointers.values() for name in read(storage, pointer).names}
        storage.delete(sorted(listed - kept))
        with database.writing() as transaction:
            transaction.forget_garbage(sorted(listed - kept))
            transaction.rewritten(done)
    except OSError as error:
        raise Unavailable(DEPENDENCY, f"the files of the lake cannot be reached: {type(error).__name__}") from error
    finally:
        database.close()
