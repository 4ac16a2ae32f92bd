"""`cdi tail`: enriched events while they pass."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cdi.event.v1 import event_pb2
from cdi_cli.streams import open_bus
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, console, reported, run
from cdi_kernel.redaction import redacted
from cdi_kernel.topology import StreamName, stream

OnlyWorkspace = Annotated[str, typer.Option("--workspace", "-w", help="Only of this workspace.")]
OnlyType = Annotated[str, typer.Option("--type", help="Only of this type: track, identify, page …")]
OnlyName = Annotated[str, typer.Option("--name", help="Only of this name.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per event, with all fields.")]
ShowPersonal = Annotated[bool, typer.Option("--show-personal", help="Show ids, properties, traits and context too.")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="End after so many events; 0 goes on.")]

_JSON_FIELDS = ("properties", "traits", "context", "integrations")


@reported
def tail(
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: OnlyWorkspace = "",
    type: OnlyType = "",
    name: OnlyName = "",
    as_json: AsJson = False,
    show_personal: ShowPersonal = False,
    limit: Limit = 0,
) -> None:
    """Show enriched events live; personal fields are redacted."""

    def wanted(event: event_pb2.Event) -> bool:
        return all(
            not asked or asked == has for asked, has in ((workspace, event.workspace_id), (type, type_name(event)), (name, event.name))
        )

    async def follow(endpoints: Endpoints) -> None:
        shown = 0
        async with open_bus(endpoints, "tail") as bus:
            async for message in bus.tail(stream(StreamName.ENRICHED).subjects):
                for event in filter(wanted, event_pb2.EventBatch.FromString(message.payload).events):
                    print(
                        json.dumps(fields_of(event, show_personal), default=str, ensure_ascii=False)
                        if as_json
                        else line_of(event, show_personal)
                    )
                    shown += 1
                    if shown == limit:
                        return

    console.print("waiting for events; Ctrl-C ends", style="dim")
    run(follow(find_suite(directory)))


def line_of(event: event_pb2.Event, show_personal: bool) -> str:
    """An event on one line. Ids of the person, properties, traits and context only if asked for."""
    moment = datetime.fromtimestamp(event.event_time.seconds, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    parts = [moment, f"{event.workspace_id}/{event.source_id}", type_name(event), repr(event.name) if event.name else "-", event.message_id]
    parts.append(f"p{event.partition} profile={event.identity.profile_id or '-'}")
    parts.append(f"consent={','.join(event.consent.granted_purposes) or '-'}")
    found = [field.name for field, _ in event.enrichments.ListFields()]
    parts.append(f"enriched={','.join(found) or '-'}")
    if show_personal:
        parts.append(f"user={event.user_id or '-'} anonymous={event.anonymous_id or '-'}")
        parts += [f"{field}={getattr(event, field).decode(errors='replace')}" for field in _JSON_FIELDS[:2] if getattr(event, field)]
    return "  ".join(parts)


def fields_of(event: event_pb2.Event, show_personal: bool) -> dict[str, Any]:
    """The set fields of an event, JSON-ready; the type by its name."""
    fields = dict(redacted(event)) | {"type": type_name(event)}
    if show_personal:
        for field, value in event.ListFields():
            if field.GetOptions().debug_redact:
                fields[field.name] = _read(value) if field.name in _JSON_FIELDS else value
    return fields


def type_name(event: event_pb2.Event) -> str:
    """``EVENT_TYPE_TRACK`` → ``track``."""
    return event_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower()


def _read(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.decode(errors="replace")
