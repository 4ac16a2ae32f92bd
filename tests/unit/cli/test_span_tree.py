"""A trace as a tree."""

from hypothesis import given
from hypothesis import strategies as st

from cdi_cli.traces import SpanNode, StoredSpan, tree_of


def span(name: str, parent: str = "", start: int = 0) -> StoredSpan:
    return StoredSpan("t", name, parent, "service", name, "internal", start, start + 1_000_000, False, {}, ())


def shape(nodes: tuple[SpanNode, ...]) -> list[object]:
    return [[node.span.name, *shape(node.children)] for node in nodes]


def test_children_stand_below_their_parent_by_start_whatever_the_order_of_arrival() -> None:
    spans = [
        span("load", "enrich", 40),
        span("EvaluateConsent", "enrich", 20),
        span("enrich", "collect", 10),
        span("collect"),
        span("deliver ads", "enrich", 30),
    ]
    assert shape(tree_of(spans)) == [["collect", ["enrich", ["EvaluateConsent"], ["deliver ads"], ["load"]]]]


def test_a_span_whose_parent_is_elsewhere_is_a_root_and_says_so() -> None:
    (root,) = tree_of([span("collect", parent="caller")])
    assert root.orphan
    assert not tree_of([span("collect")])[0].orphan


def test_nothing_gives_nothing() -> None:
    assert tree_of([]) == ()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 5)), max_size=10, unique_by=lambda each: each[0]))
def test_every_span_is_shown_exactly_once_even_in_a_circle(given_spans: list[tuple[int, int, int]]) -> None:
    spans = [span(str(name), str(parent), start) for name, parent, start in given_spans]

    def names(nodes: tuple[SpanNode, ...]) -> list[str]:
        return [name for node in nodes for name in (node.span.name, *names(node.children))]

    assert sorted(names(tree_of(spans))) == sorted(each.name for each in spans)
