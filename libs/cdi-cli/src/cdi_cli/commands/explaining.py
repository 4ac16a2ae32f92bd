"""`cdi explain`: what happened to one event, at every stage and sink, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi.enrichment.v1 import enrichment_service_pb2
from cdi.event.v1 import event_pb2, outcome_pb2
from cdi.router.v1 import router_service_pb2
from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.commands.querying import Question, rows_of
from cdi_cli.commands.tailing import line_of, type_name
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.streams import enriched_of, open_bus
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, Workspace, console, reported, run
from cdi_kernel.faults import Fault, NotFound
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus

TABLES: Final = {
    "track": "tracks",
    "identify": "identifies",
    "page": "pages",
    "screen": "screens",
    "group": "groups",
    "alias": "aliases",
    "self_describing": "tracks",
}
"""Event type → the table that has every event of the type (Segment's layout)."""

SUPPRESSED: Final = "the person is suppressed, or was erased after the event was received"

MessageId = Annotated[str, typer.Argument(help="The event's message id.")]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the explanation: where, what, and why."""

    where: str
    what: str
    why: str


@reported
def explain(message_id: MessageId, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main") -> None:
    """Tell the whole way of one event."""
    steps = run(_walk(find_suite(directory), workspace, message_id))
    if not steps:
        raise CommandFailed(f"nobody knows {message_id} in workspace {workspace}: not accepted, or older than the dedupe window")
    table = Table("where", "what", "why", title=message_id, title_justify="left")
    for step in steps:
        table.add_row(step.where, step.what, step.why)
    console.print(table)


async def _walk(endpoints: Endpoints, workspace: str, message_id: str) -> list[Step]:
    async with open_bus(endpoints, "explain") as bus, connect_peers(endpoints) as peers:
        rejections = await _rejections(peers, message_id)
        request = enrichment_service_pb2.ExplainEventRequest(workspace_id=workspace, message_id=message_id)
        try:
            place = await ask((await peers.enrichment()).ExplainEvent, request)
        except NotFound:
            return rejections
        event = await _event(bus, place)
        suppressed = event is not None and await _suppressed(peers, event)
        after = await _after_collected(bus, peers, workspace, message_id, place, rejections, suppressed=suppressed)
        return [_collected(place, event), *after]


async def _event(bus: Bus, place: enrichment_service_pb2.ExplainEventResponse) -> event_pb2.Event | None:
    """The event as the collector stored it; ``None`` when retention has removed it since."""
    try:
        message = await bus.message(StreamName.COLLECTED, place.collected_sequence)
    except NotFound:
        return None
    return event_pb2.EventBatch.FromString(message.payload).events[place.index]


def _collected(place: enrichment_service_pb2.ExplainEventResponse, event: event_pb2.Event | None) -> Step:
    where = f"COLLECTED {place.collected_sequence}, event {place.index}, partition {place.partition}"
    if event is None:
        return Step("collector", f"accepted: {where}", "retention has removed the message since")
    return Step("collector", f"accepted: {where}", f"{type_name(event)} {event.name!r} of source {event.source_id}")


async def _after_collected(
    bus: Bus,
    peers: Peers,
    workspace: str,
    message_id: str,
    place: enrichment_service_pb2.ExplainEventResponse,
    rejections: list[Step],
    *,
    suppressed: bool,
) -> list[Step]:
    message = await enriched_of(bus, place.partition, place.collected_sequence)
    events = event_pb2.EventBatch.FromString(message.payload).events if message is not None else ()
    event = next((each for each in events if each.message_id == message_id and each.workspace_id == workspace), None)
    if message is None or event is None:
        if suppressed:
            return [Step("enrichment", "suppressed", SUPPRESSED)]
        return rejections or [Step("enrichment", "not enriched", "on its way, filtered, or removed by retention since")]
    said = [line_of(event, show_personal=False)]
    if event.consent.dropped_columns:
        said.append(f"taken out, because a purpose is denied: {', '.join(event.consent.dropped_columns)}")
    enriched = Step("enrichment", f"enriched: ENRICHED {message.sequence}", "\n".join(said))
    return [enriched, *rejections, *await _loads(peers, event, suppressed=suppressed), *await _deliveries(peers, event, message.sequence)]


async def _rejections(peers: Peers, message_id: str) -> list[Step]:
    sql = f"SELECT stage, reason, description FROM rejected_events WHERE message_id = {quoted(message_id)} LIMIT 20"
    rows = await _rows(peers, sql)
    return [Step(str(row[0]), f"rejected: {row[1]}", str(row[2])) for row in rows]


async def _suppressed(peers: Peers, event: event_pb2.Event) -> bool:
    """Whether the person is suppressed, or was erased after the event was received. Asking records nothing."""
    asked = consent_service_pb2.ConsentInput(
        workspace_id=event.workspace_id, user_id=event.user_id, anonymous_id=event.anonymous_id, received_time=event.received_time
    )
    answer = await ask((await peers.consent()).EvaluateConsent, consent_service_pb2.EvaluateConsentRequest(inputs=[asked]))
    return answer.results[0].suppressed


async def _loads(peers: Peers, event: event_pb2.Event, *, suppressed: bool) -> list[Step]:
    """What each warehouse has of the event, or why it may not have it."""
    request = warehouse_service_pb2.ListWarehousesRequest(workspace_id=event.workspace_id, page_size=1_000)
    warehouses = (await ask((await peers.warehouse()).ListWarehouses, request)).warehouses
    asked = consent_service_pb2.ListPurposesRequest(workspace_id=event.workspace_id, page_size=1_000)
    purposes = (await ask((await peers.consent()).ListPurposes, asked)).purposes
    steps: list[Step] = []
    # A workspace without a document is loaded all the same.
    for warehouse in warehouses or [warehouse_service_pb2.Warehouse(name="main")]:
        table = TABLES.get(type_name(event), "tracks")
        sql = f"SELECT loaded_at FROM {warehouse.schema or 'main'}.{table} WHERE id = {quoted(event.message_id)}"
        rows = await _rows(peers, sql, warehouse.connection)
        rules = {purpose.name: rule for purpose in purposes for rule in purpose.warehouses if rule.warehouse == warehouse.name}
        needed = [*warehouse.purposes, *(name for name, rule in rules.items() if rule.rows)]
        denied = [purpose for purpose in dict.fromkeys(needed) if purpose not in event.consent.granted_purposes]
        if rows:
            why = [f"at {rows[0][0]}", *await _withheld(peers, event, rules)]
            step = Step(f"warehouse:{warehouse.name}", f"loaded into {table}", "\n".join(why))
        elif suppressed:
            step = Step(f"warehouse:{warehouse.name}", "suppressed", SUPPRESSED)
        elif denied:
            why = [f"not granted: {', '.join(denied)}", *await _consent(peers, event.workspace_id, denied, event.consent.decision_ids)]
            step = Step(f"warehouse:{warehouse.name}", "filtered: consent_denied", "\n".join(why))
        else:
            step = Step(f"warehouse:{warehouse.name}", "not loaded yet", "on its way")
        steps.append(step)
    return steps


async def _withheld(peers: Peers, event: event_pb2.Event, rules: Mapping[str, purpose_pb2.WarehouseRule]) -> list[str]:
    """The members of a loaded event that are NULL in a warehouse, and why; by the rules as they are now."""
    denied = {name: rule.columns for name, rule in rules.items() if rule.columns and name not in event.consent.granted_purposes}
    if not denied:
        return []
    paths = sorted({path for columns in denied.values() for path in columns})
    decided = await _consent(peers, event.workspace_id, list(denied), event.consent.decision_ids)
    return [f"loaded as NULL, because a purpose is denied: {', '.join(paths)}", *decided]


async def _deliveries(peers: Peers, event: event_pb2.Event, sequence: int) -> list[Step]:
    request = router_service_pb2.ExplainDeliveryRequest(event=event.SerializeToString(), enriched_sequence=sequence)
    answer = await ask((await peers.router()).ExplainDelivery, request)
    steps: list[Step] = []
    for each in answer.explanations:
        what = _outcome(each.outcome) + (f": {each.reason}" if each.reason else "")
        why = [each.description, *await _consent(peers, event.workspace_id, each.missing_purposes, each.decision_ids)]
        steps.append(Step(f"destination:{each.destination}", what, "\n".join(why)))
    return steps


async def _consent(peers: Peers, workspace: str, purposes: Sequence[str], decision_ids: Sequence[str]) -> list[str]:
    """Why purposes were not granted: each with its decision, the version under which that was given, and its time."""
    if not purposes:
        return []
    request = consent_service_pb2.ExplainDecisionRequest(workspace_id=workspace, purposes=purposes, decision_ids=decision_ids)
    try:
        answer = await ask((await peers.consent()).ExplainDecision, request)
    except NotFound:
        return [f"{', '.join(purposes)}: no purpose of this workspace"]
    return [line for state in answer.purposes for line in state_lines(state)]


def state_lines(state: purpose_pb2.PurposeState) -> list[str]:
    """What decided about a purpose, a line each."""
    if not state.decisions:
        policy = purpose_pb2.DefaultPolicy.Name(state.default_policy).removeprefix("DEFAULT_POLICY_").lower()
        versions = f"purpose version {state.purpose_version}, policy version {state.policy_version}"
        return [f"{state.purpose}: no decision, default policy {policy} ({versions})"]
    return [_decision(decision) for decision in state.decisions]


def _decision(decision: purpose_pb2.Decision) -> str:
    verdict = "granted" if decision.granted else "denied"
    source = purpose_pb2.DecisionSource.Name(decision.source).removeprefix("DECISION_SOURCE_").lower()
    when = decision.decide_time.ToJsonString()
    versions = f"purpose version {decision.purpose_version}, policy version {decision.policy_version}"
    whence = f"{source} {decision.proof}" if source != "unspecified" else decision.proof
    return f"{decision.purpose}: {verdict} at {when} by {decision.subject_type} ({whence}), decision {decision.decision_id}, {versions}"


def _outcome(outcome: outcome_pb2.Outcome.ValueType) -> str:
    if outcome == outcome_pb2.OUTCOME_UNSPECIFIED:
        return "not reached yet"
    return outcome_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower().replace("_", "-")


async def _rows(peers: Peers, sql: str, connection: str = "") -> list[list[Any]]:
    """Rows; none when the table does not exist yet."""
    try:
        return (await rows_of(peers, Question(sql, connection)))[1]
    except Fault as fault:
        if fault.retryable:
            raise
        return []


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
