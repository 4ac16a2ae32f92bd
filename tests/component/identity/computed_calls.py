"""How the tests of identity define computed traits, let events be counted, and read the values."""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.identity.v1 import computed_traits_service_pb2 as pb
from cdi_kernel import envelope, topology
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from cdi_testing.builders import WORKSPACE

READER = "identity"


def condition(path: str, operator: str, *values: Any) -> pb.Condition:
    """A condition on events."""
    written = [json.dumps(value) for value in values]
    return pb.Condition(path=path, operator=pb.ConditionOperator.Value(f"CONDITION_OPERATOR_{operator}"), values=written)


def trait(
    name: str, aggregation: str = "EVENT_COUNTER", path: str = "", window: timedelta | None = None, **fields: Any
) -> pb.ComputedTrait:
    """A definition over orders, unless the test says otherwise."""
    values = {"workspace_id": WORKSPACE, "event_type": "track", "event_names": ["Order Completed"]} | fields
    result = pb.ComputedTrait(name=name, aggregation=pb.Aggregation.Value(f"AGGREGATION_{aggregation}"), path=path, **values)
    if window is not None:
        result.window.FromTimedelta(window)
    return result


async def apply(stub, *traits: pb.ComputedTrait) -> list[pb.ApplyComputedTraitResponse]:
    """Applies definitions."""
    return [await stub.ApplyComputedTrait(pb.ApplyComputedTraitRequest(trait=each), timeout=20) for each in traits]


async def delete(stub, name: str, workspace: str = WORKSPACE) -> None:
    """Deletes a definition."""
    await stub.DeleteComputedTrait(pb.DeleteComputedTraitRequest(workspace_id=workspace, name=name), timeout=20)


async def states(stub, workspace: str = WORKSPACE) -> dict[str, pb.ComputedTraitState]:
    """All definitions of a workspace with their state, by name."""
    answer = await stub.ListComputedTraits(pb.ListComputedTraitsRequest(workspace_id=workspace), timeout=20)
    return {state.trait.name: state for state in answer.traits}


async def values(stub, profile_id: str, workspace: str = WORKSPACE) -> dict[str, Any]:
    """The values of a person, numbers as texts where JSON would round them."""
    answer = await stub.GetComputedValues(pb.GetComputedValuesRequest(workspace_id=workspace, profile_id=profile_id), timeout=20)
    return {item.name: json.loads(item.value, parse_float=str) for item in answer.values}


def order(profile_id: str, total: Any = None, *, second: int = 0, **fields: Any) -> Event:
    """An order as enrichment publishes it, resolved to a profile."""
    fields.setdefault("at", builders.EVENT_TIME + timedelta(seconds=second))
    if total is not None:
        fields.setdefault("properties", {"total": total})
    event = builders.track("Order Completed", **fields)
    event.identity.profile_id = profile_id
    return event


async def publish(bus: Bus, events: Sequence[Event], partition: int = 0) -> int:
    """One message of ENRICHED; returns its sequence."""
    ack = await bus.publish(
        topology.enriched(partition),
        EventBatch(events=events).SerializeToString(),
        message_id=builders.message_id(),
        headers={envelope.EVENTS: str(len(events)), envelope.SOURCE_SEQUENCE: "0"},
    )
    return ack.sequence


async def reading(bus: Bus, partitions: Iterable[int] = range(topology.DEFAULT_PARTITIONS)) -> None:
    """Returns when identity reads all partitions."""

    async def reads() -> bool:
        listed = await bus.api(f"CONSUMER.NAMES.{StreamName.ENRICHED}")
        return {topology.durable(READER, partition) for partition in partitions} <= set(listed["consumers"] or ())

    await eventually(reads)


async def counted(bus: Bus, events: Sequence[Event], partition: int = 0) -> None:
    """Publishes events and returns when identity has counted them."""
    await caught_up(bus, await publish(bus, events, partition), partition)


async def caught_up(bus: Bus, sequence: int, partition: int = 0) -> None:
    """Returns when identity has counted a partition up to a message of it.

    Not when nothing is pending: JetStream acknowledges a message before it tells the consumers of it, so for a moment nothing is.
    """

    async def settled() -> bool:
        info = await bus.api(f"CONSUMER.INFO.{StreamName.ENRICHED}.{topology.durable(READER, partition)}")
        return int(info["ack_floor"]["stream_seq"]) >= sequence

    await eventually(settled, within=60)
