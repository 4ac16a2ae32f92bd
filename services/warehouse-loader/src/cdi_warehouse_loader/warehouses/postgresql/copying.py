"""Columns as the driver and Postgres take them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def as_copied(array: Any) -> Any:
    """A column as it can be copied: the driver takes no dictionaries, and Postgres has no text with U+0000, for which U+FFFD stands."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_string(array.type) or array.null_count == len(array):
        return array
    return pc.replace_substring(array, "\0", "\ufffd") if _has_zero(array) else array


def _has_zero(array: Any) -> bool:
    """Whether U+0000 is in a column of text, which may be a slice of a much larger one."""
    _, offsets, characters = array.buffers()
    if characters is None:
        return False
    place = memoryview(offsets).cast("i")
    first, last = place[array.offset], place[array.offset + len(array)]
    return b"\0" in characters.slice(first, last - first).to_pybytes()
