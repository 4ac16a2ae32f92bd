"""Events of a client that wrote protobuf, which are taken as they are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class EncodedEvents(msgspec.Struct, frozen=True, gc=False):
    """The events of a request in fields that mean the same in ``cdi.event.v1.Event``; they obey every rule but that of size already.

    Columns, in the order of the request.

    Attributes:
        message_ids: the client's.
        persons: what the partitions are made from: the anonymous id, else the user id.
        original_times: serialized ``Timestamp`` by the client's clock; empty if it did not say.
        original_us: the same in microseconds since 1970; ``None`` if it did not say.
        fields: all that the client said of each, serialized.
    """

    message_ids: Sequence[str]
    persons: Sequence[str]
    original_times: Sequence[bytes]
    original_us: Sequence[int | None]
    fields: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.fields)
