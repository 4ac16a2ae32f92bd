"""What is made of URLs and rows before they go to Postgres."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

from cdi_warehouse_loader.warehouses.postgresql.copying import as_copied
from cdi_warehouse_loader.warehouses.postgresql.months import add_month, months_in
from cdi_warehouse_loader.warehouses.postgresql.session import addresses


def test_urls_get_what_notices_a_dead_connection_and_keep_what_is_given() -> None:
    own, asking = addresses("postgresql://us%40er:p%3Aw@one:5432,two:5433/db?sslmode=verify-full&connect_timeout=3")
    parts = urlsplit(own)
    assert own == asking
    assert (parts.scheme, parts.netloc, parts.path) == ("postgresql", "us%40er:p%3Aw@one:5432,two:5433", "/db")
    parameters = parse_qs(parts.query)
    assert (parameters["sslmode"], parameters["connect_timeout"], parameters["keepalives_idle"]) == (["verify-full"], ["3"], ["30"])


def test_queries_may_log_in_as_somebody_else() -> None:
    own, asking = addresses("postgresql://loader:pw@host/db?query_user=r%40d&query_password=a%2F%2Bb")
    assert urlsplit(own).netloc == "loader:pw@host"
    assert urlsplit(asking).netloc == "r%40d:a%2F%2Bb@host"
    assert "query_" not in own + asking


def test_texts_have_no_zero_and_no_dictionary() -> None:
    texts = pa.array(["a\0b", None, "", "ü\0"])
    expected = ["a\ufffdb", None, "", "ü\ufffd"]
    assert as_copied(texts).to_pylist() == expected
    assert as_copied(texts.dictionary_encode()).to_pylist() == expected
    assert as_copied(texts.slice(1, 2)).to_pylist() == [None, ""]
    assert as_copied(texts.slice(2)).to_pylist() == expected[2:]
    for other in (pa.array([None, None], pa.string()), pa.array([], pa.string()), pa.array([0, 1]), pa.array(["as it is"])):
        assert as_copied(other) is other


def test_months_of_rows_within_bounds() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    instants = [
        datetime(*at, tzinfo=UTC) for at in ((2026, 11, 1), (2026, 11, 30), (2026, 12, 1), (2027, 1, 1), (2021, 11, 1), (2021, 10, 31))
    ]
    received = pa.array([*instants, None], pa.timestamp("us", "UTC"))
    assert months_in(pa.record_batch({"received_at": received}), now) == {"2026-11", "2026-12", "2021-11"}
    assert months_in(pa.record_batch({"id": pa.array(["x"])}), now) == set()


def test_a_december_ends_with_its_year() -> None:
    attach = list(add_month("main", 1, "2026-12", ["id"]))[2]
    assert "from ('2026-12-01 00:00:00+00') to ('2027-01-01 00:00:00+00')" in attach
