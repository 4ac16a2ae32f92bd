"""What a family of SDKs is to the HTTP door: paths, and for each how a body becomes events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_collector.domain.client_event import Item

SUCCESS: Final = b'{"success": true}'


@dataclass(frozen=True, slots=True)
class Parcel:
    """A body, read.

    Attributes:
        items: the events, or why what stands in the place of one is none.
        write_key: as the body gives it.
        sent_us: when the client sent it, by its own clock; ``None`` if it did not say.
        payloads: the bytes of the items, asked for only when one is refused. ``None`` on a path for one event, whose refusal is
            the answer to the request.
    """

    items: Sequence[Item]
    write_key: str | None
    sent_us: int | None
    payloads: Callable[[], Sequence[bytes]] | None


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with a POST to a path.

    Attributes:
        max_bytes: of the body, after decompression too.
        read: turns the body into a parcel; raises the ``Fault`` that answers a body which is wrong as a whole.
        success: the body of the 200.
    """

    max_bytes: int
    read: Callable[[bytes], Parcel]
    success: bytes = SUCCESS


Routes = Mapping[str, Route]
"""Routes by path."""
