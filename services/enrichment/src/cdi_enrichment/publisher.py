"""NATS out: what a message of COLLECTED becomes on ENRICHED and REJECTED.

Message ids and sequences come from the collected message alone, so publishing again after a crash makes nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from cdi.event.v1 import rejected_event_pb2
from cdi_enrichment.domain.passage import Passage
from cdi_kernel import topology
from cdi_kernel.envelope import EVENT_BATCH_SCHEMA, EVENTS, REJECTED_BATCH_SCHEMA, SCHEMA, SOURCE_SEQUENCE, TRACEPARENT, frame, pack
from cdi_runtime.bus import Outgoing


def enriched_messages(passages: Iterable[Passage], traceparent: str) -> Iterator[Outgoing]:
    """One message per collected message that has events left, in the order of the stream.

    Args:
        passages: events that passed, in order.
        traceparent: of the batch's span; empty unless sampled.
    """
    trace = {TRACEPARENT: traceparent} if traceparent else {}
    for (partition, sequence), group in groupby(passages, key=_message):
        frames = [frame(passage.serialized()) for passage in group]
        headers = {SCHEMA: EVENT_BATCH_SCHEMA, EVENTS: str(len(frames)), SOURCE_SEQUENCE: str(sequence), **trace}
        yield Outgoing(topology.enriched(partition), b"".join(frames), f"enriched-{partition}-{sequence}", headers)


def rejected_messages(rejections: Sequence[tuple[Passage, rejected_event_pb2.RejectedEvent]]) -> Iterator[Outgoing]:
    """Messages per collected message and workspace, cut to the size of a bus message.

    Args:
        rejections: events that were turned away, in the order of the stream, with their records.
    """
    for (partition, sequence), group in groupby(rejections, key=lambda pair: _message(pair[0])):
        by_workspace: dict[str, list[bytes]] = {}
        for _, record in group:
            by_workspace.setdefault(record.workspace_id, []).append(frame(record.SerializeToString()))
        for workspace_id, frames in by_workspace.items():
            for number, part in enumerate(pack(frames)):
                yield Outgoing(
                    topology.rejected(workspace_id),
                    part.payload,
                    f"rejected-{partition}-{sequence}-{topology.token(workspace_id)}-{number}",
                    {SCHEMA: REJECTED_BATCH_SCHEMA, EVENTS: str(part.events)},
                )


def _message(passage: Passage) -> tuple[int, int]:
    return passage.partition, passage.place.sequence
