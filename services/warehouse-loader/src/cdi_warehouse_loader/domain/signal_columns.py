"""What the collector noted of an event's sender, as columns of the context.

A signal that was not given is NULL and never false: no header is no answer. So a table gets such a column with the first event that says
it, as with everything of the context, and a column of that name that clients filled before is fitted to, not fought with.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdi.event.v1 import event_pb2
from cdi_warehouse_loader.domain.batch_columns import distinct
from cdi_warehouse_loader.domain.contexts import ContextPart
from cdi_warehouse_loader.domain.flatten import Flat
from cdi_warehouse_loader.domain.layout import SIGNAL_COLUMNS


def read_signals(signals: Sequence[bytes]) -> Sequence[ContextPart]:
    """Reads the signals of a batch; nothing when no event has any.

    Args:
        signals: per event, a serialized ``ClientSignals``; no bytes are no signals.

    Raises:
        google.protobuf.message.DecodeError: one is none.
    """
    if not any(signals):
        return ()
    wholes, row_of = distinct(signals)
    parsed = [event_pb2.ClientSignals.FromString(whole) for whole in wholes]
    columns = {name: [getattr(one, field) or None for one in parsed] for name, field in SIGNAL_COLUMNS.items()}
    columns = {name: values for name, values in columns.items() if any(values)}
    return [ContextPart(Flat(list(range(len(parsed))), columns, []), row_of)] if columns else []
