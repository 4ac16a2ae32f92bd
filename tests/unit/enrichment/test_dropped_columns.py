"""Members of an event whose purpose is denied."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_kernel.faults import Rejected
from cdi_kernel.json_paths import without
from cdi_testing import builders


@pytest.mark.parametrize(
    ("document", "path", "left"),
    [
        ('{"a": 1.50, "b": {"c": 2, "d": 1e3}}', "b.c", '{"a":1.50,"b":{"d":1e3}}'),
        ('{"a": 1}', "a", "{}"),
        ('{"a": 1}', "b", '{"a": 1}'),
        ('{"a": 1}', "a.b", '{"a":1}'),
        ('{"a": [{"b": 1, "c": 2}, 7, {"b": 3}]}', "a.b", '{"a":[{"c": 2},7,{}]}'.replace(": ", ":")),
        ('{"\\u0061": 1, "b": 2}', "a", '{"b":2}'),
        ("", "a", ""),
        ("[]", "a", "[]"),
        ("7", "a", "7"),
    ],
)
def test_only_the_member_goes(document: str, path: str, left: str) -> None:
    assert without(document.encode(), path.split(".")).decode() == left


@given(st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False, allow_infinity=False))))
def test_the_rest_means_the_same(document: dict[str, dict[str, float]]) -> None:
    expected = {key: {inner: value for inner, value in own.items() if (key, inner) != ("a", "b")} for key, own in document.items()}
    assert json.loads(without(json.dumps(document).encode(), ["a", "b"])) == expected


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(Rejected):
        without(b'{"a": ', ["a"])


def test_nothing_that_was_dropped_is_read_or_goes_on() -> None:
    event = builders.identify(traits={"email": "ada@example.org", "plan": "pro"}, context={"ip": "8.8.8.8", "userAgent": "Mozilla/5.0"})
    event.client_ip = "8.8.8.8"
    passage = Passage(event, Place(1, 0), 0, event.SerializeToString())
    passage.validate(PlanSnapshot())
    assert passage.subject.email == "ada@example.org"
    passage.drop(["context.ip", "traits.email"])
    assert (passage.subject.email, passage.subject.client_ip) == (None, "")
    written = passage.serialized()
    assert b"ada@" not in written
    assert b"8.8.8.8" not in written
    assert b"pro" in written
