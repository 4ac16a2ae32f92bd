"""`cdi trace`: the way of one sampled event as a tree of spans."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from cdi_cli.suite import find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, console, reported
from cdi_cli.traces import SpanNode, SpanStore, StoredSpan, tree_of

MessageId = Annotated[str, typer.Argument(help="The event's message id; without it, the newest traced events are listed.")]


@reported
def trace(message_id: MessageId = "", directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Show the spans of one event, in all services, as a tree."""
    store = SpanStore(find_suite(directory).spans_file)
    if not message_id:
        for traced in store.traced_messages():
            console.print(traced, markup=False)
        return
    spans = store.of_message(message_id)
    if not spans:
        raise CommandFailed(f"no span of {message_id}: it was not sampled (cdi up --sample-ratio 1 traces all), or has not arrived yet")
    for trace_id in dict.fromkeys(span.trace_id for span in spans):
        console.print(rendered(trace_id, [span for span in spans if span.trace_id == trace_id], store.linking_to(trace_id)))


def rendered(trace_id: str, spans: list[StoredSpan], linking: list[StoredSpan]) -> Tree:
    """A trace as a tree, the batches that held the event below it."""
    tree = Tree(f"trace {trace_id}")
    start = min(span.start_ns for span in spans)
    for root in tree_of(spans):
        _add(tree, root, start)
    batches = [span for span in linking if span.trace_id != trace_id]
    if batches:
        branch = tree.add("[dim]batches that held it (own traces, linked)[/dim]")
        for span in batches:
            branch.add(f"[dim]{_text(span, start)}[/dim]")
    return tree


def _add(tree: Tree, node: SpanNode, start: int) -> None:
    branch = tree.add(_text(node.span, start) + (" [dim](its parent is elsewhere)[/dim]" if node.orphan else ""))
    for child in node.children:
        _add(branch, child, start)


def _text(span: StoredSpan, start: int) -> str:
    offset = (span.start_ns - start) / 1e6
    failed = " [red]error[/red]" if span.error else ""
    return f"[cyan]{escape(span.service)}[/cyan] {escape(span.name)}  +{offset:.1f} ms  {span.duration_ms:.2f} ms{failed}"
