"""CDI warehouse loader: rows and stream position in one transaction.

Consumes ENRICHED, REJECTED, IDENTITY (``GraphChanged``). Serves ``WarehouseService`` and ``CleanRoomService`` of ``cdi.warehouse.v1``.
Produces dead letters only.
Owns one DuckDB file: the tables of the warehouse, and in its schema ``_cdi`` positions, counts, documents, the load log and the ledger.
Invariants: one row per message id in each of its tables, whatever crashes; a message is acknowledged after the commit that holds its rows;
a value that does not fit is kept in ``discards``; one process holds the file, others wait; no answer leaves a clean room unpaid.
Deliberately absent: staging files, a second database, deduplication by message id (enrichment's work; a stream position suffices here).
"""

from cdi_runtime.lean import import_without

# Arrow takes numpy along where that happens to be installed: 18 MB that nothing here uses.
import_without("pyarrow.compute", "numpy")
