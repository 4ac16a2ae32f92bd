"""What is read back of a file of the spool: all that is whole, nothing that is not."""

from hypothesis import example, given
from hypothesis import strategies as st

from cdi_collector.domain.spool_record import MARKER_BYTES, Record, Scan, encode, events_of, scan

MARKER = bytes(range(MARKER_BYTES))

records = st.builds(
    Record,
    st.text(max_size=20),
    st.uuids().map(str),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    st.binary(max_size=200) | st.binary(max_size=20).map(lambda rest: MARKER + rest),
    st.integers(0, 2**62),
)
files = st.lists(records, min_size=1, max_size=8)


def record(payload: bytes) -> Record:
    return Record("cdi.collected.3", "id", {"Cdi-Events": "7"}, payload, 1_700_000_000_000_000)


@given(files)
def test_all_that_was_written_is_read_in_order(written: list[Record]) -> None:
    content = b"".join(encode(one, MARKER) for one in written)
    assert scan(content, MARKER) == Scan(written, 0, len(content))


@given(files, st.data())
def test_of_a_torn_file_all_whole_records_are_read_and_nothing_else(written: list[Record], data: st.DataObject) -> None:
    blocks = [encode(one, MARKER) for one in written]
    cut = data.draw(st.integers(0, sum(map(len, blocks))))
    ends = [sum(map(len, blocks[: number + 1])) for number in range(len(blocks))]
    whole = [one for one, end in zip(written, ends, strict=True) if end <= cut]
    found = scan(b"".join(blocks)[:cut], MARKER)
    assert found == Scan(whole, 0, max((end for end in ends if end <= cut), default=0))


@given(files, st.binary(max_size=100))
@example([record(b"x")], bytes(64))
@example([record(b"x")], MARKER + bytes(64))
@example([record(b"x")], MARKER + b"\xff" * 64)
@example([record(b"x")], encode(record(b"y"), MARKER)[:-1])
def test_garbage_behind_the_last_record_is_not_read(written: list[Record], garbage: bytes) -> None:
    content = b"".join(encode(one, MARKER) for one in written)
    assert scan(content + garbage, MARKER) == Scan(written, 0, len(content))


@given(files, st.data())
def test_a_flipped_bit_costs_the_record_that_it_is_in_and_no_other(written: list[Record], data: st.DataObject) -> None:
    blocks = [encode(one, MARKER) for one in written]
    victim = data.draw(st.integers(0, len(blocks) - 1))
    bit = data.draw(st.integers(0, len(blocks[victim]) * 8 - 1))
    damaged = bytearray(blocks[victim])
    damaged[bit // 8] ^= 1 << bit % 8
    found = scan(b"".join([*blocks[:victim], bytes(damaged), *blocks[victim + 1 :]]), MARKER)
    assert found.records == [*written[:victim], *written[victim + 1 :]]
    assert found.unreadable == (len(damaged) if victim < len(blocks) - 1 else 0)


@given(st.binary(max_size=400), st.binary(min_size=MARKER_BYTES, max_size=MARKER_BYTES))
def test_what_was_never_written_is_not_read(content: bytes, marker: bytes) -> None:
    assert scan(content, marker) == Scan([], 0, 0)


def test_a_payload_that_looks_like_a_record_is_none() -> None:
    forged = encode(record(b"forged"), b"guessed!")
    content = bytearray(encode(record(forged), MARKER))
    content[len(MARKER)] ^= 1
    assert scan(bytes(content) + encode(record(b"next"), MARKER), MARKER).records == [record(b"next")]


def test_the_number_of_events_is_in_the_header() -> None:
    assert events_of(record(b"")) == 7
