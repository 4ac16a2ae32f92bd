"""What `cdi tail` shows of an event, and what it does not."""

from cdi.event.v1 import event_pb2
from cdi_cli.commands.tailing import fields_of, line_of

EVENT = event_pb2.Event(
    workspace_id="main",
    source_id="web",
    message_id="m-1",
    type=event_pb2.EVENT_TYPE_TRACK,
    name="Signed Up",
    user_id="ada@example.com",
    properties=b'{"plan":"secret-plan"}',
    client_ip="203.0.113.9",
    partition=3,
    consent=event_pb2.ConsentResult(granted_purposes=["analytics"]),
    identity=event_pb2.IdentityResult(profile_id="p-1"),
)
PERSONAL = ("ada@example.com", "secret-plan", "203.0.113.9")


def test_personal_fields_are_left_out_unless_asked_for() -> None:
    line, fields = line_of(EVENT, show_personal=False), str(fields_of(EVENT, show_personal=False))
    assert "Signed Up" in line
    assert "consent=analytics" in line
    assert not any(text in line or text in fields for text in PERSONAL)
    assert fields_of(EVENT, show_personal=False)["type"] == "track"


def test_personal_fields_are_shown_when_asked_for() -> None:
    fields = fields_of(EVENT, show_personal=True)
    assert fields["user_id"] == "ada@example.com"
    assert fields["properties"] == {"plan": "secret-plan"}
    assert "secret-plan" in line_of(EVENT, show_personal=True)
