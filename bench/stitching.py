"""The clusters of identifier pairs, as batch jobs make them: connected components by scipy, and SQL that repeats joins until all is stable.

Both start with a table of two text columns in memory (Arrow) and end with a cluster for every identifier; the clock runs from the one to
the other. The SQL is what a stitcher inside a warehouse does (RudderStack's is one): give every identifier the lowest number among its
neighbours, again and again, until nothing changes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bench.pairs import Pairs

_PREPARE = """
CREATE TABLE nodes AS SELECT row_number() OVER () AS node, name FROM (SELECT a AS name FROM pairs UNION SELECT b FROM pairs);
CREATE TABLE edges AS
    SELECT one.node AS node, other.node AS neighbour FROM pairs JOIN nodes one ON one.name = a JOIN nodes other ON other.name = b;
INSERT INTO edges SELECT neighbour, node FROM edges;
CREATE TABLE labels AS SELECT node, node AS label FROM nodes;
"""
_STEP = """
CREATE OR REPLACE TABLE next AS
    SELECT mine.node, least(any_value(mine.label), min(theirs.label)) AS label, any_value(mine.label) AS before
    FROM edges JOIN labels mine ON mine.node = edges.node JOIN labels theirs ON theirs.node = edges.neighbour
    GROUP BY mine.node
"""
_ADOPT = "CREATE OR REPLACE TABLE labels AS SELECT node, label FROM next"
_CHANGED = "SELECT count(*) FROM next WHERE label <> before"
_RESULT = "SELECT name, label FROM labels JOIN nodes USING (node)"


@dataclass(frozen=True, slots=True)
class Stitched:
    """What a method found.

    Attributes:
        clusters: of each identifier, as ``canonical`` numbers them.
        seconds: that it took.
        rounds: of joins; 0 where there are none.
    """

    clusters: NDArray[np.int64]
    seconds: float
    rounds: int = 0


def table(pairs: Pairs) -> pa.Table:
    """The pairs as a warehouse has them."""
    texts = pa.array(pairs.texts())
    return pa.table({"a": texts.take(pa.array(pairs.left)), "b": texts.take(pa.array(pairs.right))})


def with_scipy(pairs: Pairs) -> Stitched:
    """Connected components of the whole graph in memory."""
    columns = table(pairs)
    started = time.perf_counter()
    encoded = pa.chunked_array([*columns["a"].chunks, *columns["b"].chunks]).combine_chunks().dictionary_encode()
    indices = encoded.indices.to_numpy()
    left, right = indices[: len(indices) // 2], indices[len(indices) // 2 :]
    size = len(encoded.dictionary)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    seconds = time.perf_counter() - started
    return Stitched(_by_name(pairs, encoded.dictionary.to_pylist(), labels), seconds)


def with_duckdb(pairs: Pairs, threads: int) -> Stitched:
    """Joins until all is stable.

    Args:
        pairs: the input.
        threads: that DuckDB may use.
    """
    columns, rounds = table(pairs), 0
    with duckdb.connect(config={"threads": threads}) as database:
        database.register("pairs", columns)
        started = time.perf_counter()
        for statement in filter(str.strip, _PREPARE.split(";")):
            database.execute(statement)
        changed = 1
        while changed:
            database.execute(_STEP)
            changed = _count(database.execute(_CHANGED).fetchone())
            database.execute(_ADOPT)
            rounds += 1
        result = database.sql(_RESULT).to_arrow_table()
        seconds = time.perf_counter() - started
    return Stitched(_by_name(pairs, result["name"].to_pylist(), result["label"].to_numpy()), seconds, rounds)


def canonical(labels: Sequence[str] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters by number of their first identifier: equal if and only if the sets of sets are equal."""
    _, first, member = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    return first[member]


def _by_name(pairs: Pairs, names: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters in the order of the identifiers. Fails if a method knows others than there are."""
    place = {name: index for index, name in enumerate(pairs.texts())}
    ordered = np.full(len(place), -1, dtype=np.int64)
    ordered[[place[name] for name in names]] = labels
    if len(names) != len(place) or (ordered < 0).any():
        raise RuntimeError("not every identifier has a cluster")
    return canonical(ordered)


def _count(row: tuple[object, ...] | None) -> int:
    assert row is not None
    return int(str(row[0]))
