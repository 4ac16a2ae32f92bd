"""A trace as a tree, and as lines of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cdi_cli.traces.span import StoredSpan


@dataclass(frozen=True, slots=True)
class SpanNode:
    """A span and the spans below it, by start.

    Attributes:
        span: the span.
        children: its children.
        orphan: it names a parent that is not in the trace, as when the caller's span went to another back end.
    """

    span: StoredSpan
    children: tuple[SpanNode, ...]
    orphan: bool = False


def tree_of(spans: Sequence[StoredSpan]) -> tuple[SpanNode, ...]:
    """The roots of a trace with everything below them, by start. A span whose parent is absent is a root; a circle is cut."""
    known = {span.span_id for span in spans}
    children: dict[str, list[StoredSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: each.start_ns):
        children[span.parent_span_id if span.parent_span_id in known else ""].append(span)
    placed: set[str] = set()

    def node(span: StoredSpan) -> SpanNode:
        placed.add(span.span_id)
        below = tuple(node(child) for child in children[span.span_id] if child.span_id not in placed)
        return SpanNode(span, below, orphan=bool(span.parent_span_id) and span.parent_span_id not in known)

    roots = [node(span) for span in children[""]]
    roots += [node(span) for span in sorted(spans, key=lambda each: each.start_ns) if span.span_id not in placed]
    return tuple(roots)
