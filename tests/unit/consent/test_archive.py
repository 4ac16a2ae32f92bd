"""The archive as it comes into being."""

import csv
import hashlib
import io
import json
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from cdi_consent.domain.archive import Archive, csv_head, csv_rows

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts | st.lists(st.integers(0, 9))
objects = st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=3)


@given(st.lists(objects, min_size=1, max_size=5))
def test_what_goes_in_comes_out_and_the_manifest_says_so(rows: list[dict[str, object]]) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["none"]
    made = Archive()
    content = made.begin("s/rows.jsonl") + made.write(lines, len(rows))
    content += made.begin("s/rows.csv") + made.write(csv_head(columns) + csv_rows(columns, rows), len(rows)) + made.close({"of": "x"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.read("s/rows.jsonl") == lines
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["of"] == "x"
        assert [(one["name"], one["rows"]) for one in manifest["files"]] == [("s/rows.jsonl", len(rows)), ("s/rows.csv", len(rows))]
        assert all(hashlib.sha256(archive.read(one["name"])).hexdigest() == one["sha256"] for one in manifest["files"])
        read = list(csv.DictReader(io.StringIO(archive.read("s/rows.csv").decode(), newline="")))
    assert len(read) == len(rows)
    for got, row in zip(read, rows, strict=True):
        for name, value in row.items():
            assert got[name] == value if isinstance(value, str) else json.loads(got[name]) == value
