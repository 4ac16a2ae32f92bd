"""Spans without a tracing back end: an OTLP receiver, a store in SQLite, and a trace as a tree.

Deliberately absent: metrics and logs over OTLP, search by anything but message id and trace id.
"""

from cdi_cli.traces.receiver import SpanReceiver
from cdi_cli.traces.span import SpanLink, StoredSpan
from cdi_cli.traces.store import SpanStore
from cdi_cli.traces.tree import SpanNode, tree_of

__all__ = ["SpanLink", "SpanNode", "SpanReceiver", "SpanStore", "StoredSpan", "tree_of"]
