"""A replica of a reader as a process of its own, so that a test can kill it: prints ``partition sequence payload`` per handled message."""

import asyncio
import sys

from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Done, Message, Outcome, ReaderSpec, connect, reading
from cdi_runtime.service import ServiceContext


async def main(url: str, name: str, partitions: int, delay: float) -> None:
    context = ServiceContext(name)

    async def handle(messages: list[Message[str]]) -> list[Outcome]:
        await asyncio.sleep(delay)
        for message in messages:
            sys.stdout.write(f"{message.partition} {message.sequence} {message.body}\n")
        sys.stdout.flush()
        return [Done()] * len(messages)

    spec = ReaderSpec("test", "test", StreamName.COLLECTED, bytes.decode, partitions, lanes=partitions, max_events=5)
    async with connect(url, name) as bus, reading(bus, spec, handle, context):
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
