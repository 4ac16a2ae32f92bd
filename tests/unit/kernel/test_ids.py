"""Ids: texts of UUIDv7 by the batch are as good as those made one by one."""

import time
import uuid
from itertools import islice

from cdi_kernel.ids import uuid7_texts


def test_texts_are_distinct_uuids_of_version_7_and_of_now() -> None:
    before = time.time_ns() // 1_000_000
    texts = list(islice(uuid7_texts(), 1_000))
    after = time.time_ns() // 1_000_000
    ids = [uuid.UUID(text) for text in texts]
    assert [str(one) for one in ids] == texts
    assert len(set(ids)) == len(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    times = [one.int >> 80 for one in ids]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    assert len({one.int >> 56 & 0x3F for one in ids}) == 64, "the bits beside the variant are random"
