"""All messages that a stream holds, read once, by a consumer that nothing is left of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cdi_kernel.faults import Unavailable
from cdi_kernel.topology import StreamName

if TYPE_CHECKING:
    from cdi_runtime.bus.connection import Bus

_NANOSECONDS: Final = 1_000_000_000
_PAGE: Final = 1_000
_WAIT_SECONDS: Final = 5


async def walk(bus: Bus, name: StreamName, *, headers_only: bool) -> AsyncIterator[Msg]:
    """The messages that are in a stream now, in order.

    Args:
        bus: the connection.
        name: the stream.
        headers_only: leave out what the messages hold.

    Raises:
        Unavailable: the server went away on the way.
    """
    config = {
        "deliver_policy": "all",
        "ack_policy": "none",
        "headers_only": headers_only,
        "inactive_threshold": 30 * _NANOSECONDS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    info = await bus.api(f"CONSUMER.CREATE.{name}", {"stream_name": name, "config": config})
    left = int(info["num_pending"])
    inbox = bus.client.new_inbox()
    subscription = await bus.client.subscribe(inbox)
    try:
        while left > 0:
            page = min(left, _PAGE)
            request = json.dumps({"batch": page, "expires": _WAIT_SECONDS * _NANOSECONDS}).encode()
            await bus.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{info['name']}", request, reply=inbox)
            for _ in range(page):
                yield await subscription.next_msg(timeout=_WAIT_SECONDS)
            left -= page
    except NatsError as error:
        raise Unavailable("nats", f"reading a stream failed: {type(error).__name__}") from error
    finally:
        await subscription.unsubscribe()
