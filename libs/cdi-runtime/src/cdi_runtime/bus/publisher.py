"""Publishing to JetStream: acknowledgements over one inbox, each with a deadline.

nats-py's own ``publish_async`` futures never time out and its ``publish`` costs a subscription lookup per message; here an acknowledgement
costs one dictionary entry and one timer.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from cdi.error.v1 import error_pb2
from cdi_kernel.envelope import MESSAGE_ID
from cdi_kernel.faults import Fault, TooLarge, Unavailable
from cdi_runtime.bus.message import Outgoing, PubAck

ACK_DEADLINE_SECONDS: Final = 5.0
"""How long a publish waits for its acknowledgement."""


class _Error(msgspec.Struct):
    description: str = ""


class _Answer(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Publisher:
    """Publishes over one connection and matches acknowledgements to publishes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._prefix = client.new_inbox()
        self._pending: dict[str, asyncio.Future[PubAck]] = {}
        self._next = 0

    async def start(self) -> None:
        """Subscribes to the inbox of acknowledgements."""
        await self._client.subscribe(f"{self._prefix}.*", cb=self._acknowledged)

    async def send(self, message: Outgoing) -> asyncio.Future[PubAck]:
        """Hands a message to the connection.

        Returns:
            A future with the acknowledgement or with ``Unavailable``.

        Raises:
            Unavailable: the connection is down.
            TooLarge: the message is over the server's limit.
        """
        if not self._client.is_connected:
            raise _away("not connected")
        self._next += 1
        token = str(self._next)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PubAck] = loop.create_future()
        self._pending[token] = future
        timer = loop.call_later(ACK_DEADLINE_SECONDS, self._expire, token)
        future.add_done_callback(partial(_settled, timer))
        headers = {**message.headers, MESSAGE_ID: message.message_id}
        try:
            await self._client.publish(message.subject, message.payload, reply=f"{self._prefix}.{token}", headers=headers)
        except MaxPayloadError as error:
            self._forget(token)
            limit = {"limit": str(self._client.max_payload), "size": str(len(message.payload))}
            raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, "the message is over the bus's limit", metadata=limit) from error
        except NatsError as error:
            self._forget(token)
            raise _away(type(error).__name__) from error
        return future

    async def attempt_all(self, messages: Sequence[Outgoing]) -> list[PubAck | Fault]:
        """Publishes messages, in order for each subject, and says what came of each, in the order given.

        A message leaves when the one before it on its subject is acknowledged; subjects go side by side. So whatever fails, what is
        stored on a subject is a beginning of what was given: were they sent ahead, a lost connection or a new stream leader could cost an
        earlier message and keep a later one, and publishing again would change the order. What stands behind a fault on its subject
        was not sent and has the same fault; the message that met it may be stored after all.
        """
        by_subject: dict[str, deque[int]] = defaultdict(deque)
        for index, message in enumerate(messages):
            by_subject[message.subject].append(index)
        outcomes: dict[int, PubAck | Fault] = {}
        # Round after round, one message of every subject that goes on: without a task for each subject.
        while by_subject:
            sent: list[tuple[str, int, asyncio.Future[PubAck] | Fault]] = []
            for subject, indexes in by_subject.items():
                index = indexes.popleft()
                try:
                    sent.append((subject, index, await self.send(messages[index])))
                except Fault as fault:
                    sent.append((subject, index, fault))
            for subject, index, acknowledgement in sent:
                outcomes[index] = outcome = await _outcome(acknowledgement)
                left = by_subject[subject]
                if isinstance(outcome, Fault):
                    outcomes.update(dict.fromkeys(left, outcome))
                if isinstance(outcome, Fault) or not left:
                    del by_subject[subject]
        return [outcomes[index] for index in range(len(messages))]

    def disconnected(self) -> None:
        """Nothing that was sent will be acknowledged over this connection."""
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(_away("the connection was lost"))

    async def _acknowledged(self, message: Msg) -> None:
        future = self._pending.pop(message.subject[len(self._prefix) + 1 :], None)
        if future is None or future.done():
            return
        if not message.data:
            future.set_exception(_away("no stream answers"))
            return
        answer = _decode(message.data)
        if answer.error is not None:
            future.set_exception(_away(answer.error.description))
        else:
            future.set_result(PubAck(answer.stream, answer.seq, answer.duplicate))

    def _expire(self, token: str) -> None:
        future = self._pending.pop(token, None)
        if future is not None and not future.done():
            future.set_exception(_away("no acknowledgement in time"))

    def _forget(self, token: str) -> None:
        future = self._pending.pop(token, None)
        if future is not None:
            future.cancel()


async def _outcome(acknowledgement: asyncio.Future[PubAck] | Fault) -> PubAck | Fault:
    try:
        return acknowledgement if isinstance(acknowledgement, Fault) else await acknowledgement
    except Fault as fault:
        return fault


def _settled(timer: asyncio.TimerHandle, future: asyncio.Future[PubAck]) -> None:
    timer.cancel()
    # Whoever waited for it may have been cancelled: then nobody else asks.
    if not future.cancelled():
        future.exception()


def _away(detail: str) -> Unavailable:
    return Unavailable("nats", f"the message bus did not store the message: {detail}", retry_after=1.0)
