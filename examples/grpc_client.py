"""Events over gRPC: a batch with IngestEvents, then batches on a stream with StreamEvents. Sends again what the collector could not take.

    python examples/grpc_client.py 127.0.0.1:8081 <write key>

Needs grpcio and the generated code (libs/cdi-protos); nothing else of CDI.
"""

from __future__ import annotations

import argparse
import random
import time
import uuid
from collections.abc import Iterator, Sequence

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from cdi.collector.v1.collector_service_pb2 import EventInput, IngestEventsRequest, IngestResult, StreamEventsRequest
from cdi.collector.v1.collector_service_pb2_grpc import CollectorServiceStub
from cdi.event.v1.event_pb2 import EVENT_TYPE_TRACK

DETAILS_KEY = "grpc-status-details-bin"
RETRYABLE = {code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED, code_pb2.DEADLINE_EXCEEDED, code_pb2.ABORTED}
ATTEMPTS = 8


def order(number: int, user_id: str) -> EventInput:
    """A track event. The message id is made once, so that sending it again does no harm."""
    return EventInput(
        type=EVENT_TYPE_TRACK,
        name="Order Completed",
        message_id=str(uuid.uuid4()),
        user_id=user_id,
        properties_json=b'{"total": %d}' % number,
    )


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """What the collector says of a failed call, with its details."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


def pause(status: status_pb2.Status, attempt: int) -> float:
    """Seconds to wait: as the collector asks, else twice as long every time."""
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    return random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 10.0)


def refusals(results: Sequence[IngestResult]) -> int:
    """Shows the events that were refused, each with its reason; returns how many."""
    refused = [result for result in results if result.status.code]
    for result in refused:
        info = error_details_pb2.ErrorInfo()
        reason = info.reason if result.status.details and result.status.details[0].Unpack(info) else ""
        print(f"event {result.index} ({result.message_id}) refused: {reason}: {result.status.message}")
    return len(refused)


def ingest(stub: CollectorServiceStub, events: Sequence[EventInput]) -> int:
    """Stores a batch, however often that takes; returns how many events are stored."""
    request = IngestEventsRequest(events=events)
    for attempt in range(ATTEMPTS):
        request.sent_time.GetCurrentTime()
        try:
            response = stub.IngestEvents(request, timeout=30)
        except grpc.RpcError as error:
            status = status_of(error)
            if status.code not in RETRYABLE:
                raise
            print(f"not now: {status.message}")
            time.sleep(pause(status, attempt))
        else:
            return len(events) - refusals(response.results)
    raise SystemExit("the collector takes nothing; giving up")


def stream(stub: CollectorServiceStub, batches: Sequence[Sequence[EventInput]]) -> int:
    """Stores batches on streams, however many these take; returns how many events are stored."""
    waiting, stored = dict(enumerate(batches)), 0
    for attempt in range(ATTEMPTS):
        status = status_pb2.Status()
        try:
            for answer in stub.StreamEvents(_requests(dict(waiting))):
                if answer.status.code == code_pb2.OK:
                    batch = waiting.pop(answer.request_id)
                    stored += len(batch) - refusals(answer.results)
                elif answer.status.code in RETRYABLE:
                    status = answer.status
                else:
                    print(f"batch {answer.request_id} refused: {answer.status.message}")
                    del waiting[answer.request_id]
        except grpc.RpcError as error:
            status = status_of(error)
            if status.code not in RETRYABLE:
                raise
        if not waiting:
            return stored
        print(f"{len(waiting)} batches not now: {status.message}")
        time.sleep(pause(status, attempt))
    raise SystemExit("the collector takes nothing; giving up")


def _requests(batches: dict[int, Sequence[EventInput]]) -> Iterator[StreamEventsRequest]:
    # gRPC asks for the next one only when the collector takes more: flow control reaches down to here.
    for number, events in batches.items():
        yield StreamEventsRequest(request_id=number, batch=IngestEventsRequest(events=events))


def with_key(target: str, write_key: str) -> grpc.Channel:
    """A channel whose calls carry the write key."""
    channel = grpc.insecure_channel(target)
    return grpc.intercept_channel(channel, _WriteKey(write_key))


class _WriteKey(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self, write_key: str) -> None:
        self._metadata = (("authorization", f"Bearer {write_key}"),)

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=self._metadata), request)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=self._metadata), requests)


def main() -> None:
    """Sends ten orders and one event without a person in a batch, and a hundred orders on a stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port of the collector's gRPC server")
    parser.add_argument("write_key")
    arguments = parser.parse_args()
    with with_key(arguments.target, arguments.write_key) as channel:
        stub = CollectorServiceStub(channel)
        batch = [order(number, "user-1") for number in range(10)] + [order(10, "")]
        print(f"IngestEvents: {ingest(stub, batch)} stored")
        batches = [[order(number, f"user-{n}") for number in range(10)] for n in range(10)]
        print(f"StreamEvents: {stream(stub, batches)} stored")


if __name__ == "__main__":
    main()
