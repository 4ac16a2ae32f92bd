"""What the rest of the suite is told: everything, in order, in messages that NATS takes."""

from datetime import UTC, datetime

import msgspec

from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_identity.domain.changes import CanonicalEntry, TraitEntry
from cdi_identity.domain.decisions import Cause
from cdi_identity.domain.traits import Source, Trait, observed
from cdi_identity.store.announcing import CREATED, MAX_BYTES, REMOVED, Announcement

NOW = datetime(2026, 1, 15, tzinfo=UTC)
PROFILE = "018f0000-0000-7000-8000-000000000000"


def test_a_large_commit_is_told_in_several_messages_in_order() -> None:
    announcement = Announcement("acme", NOW)
    for number in range(2_000):
        announcement.mapping(("acme", "custom", "\N{GRINNING FACE}" * 480 + str(number)), PROFILE, CREATED, "m")
    messages = [GraphChanged.FromString(message.payload) for message in announcement.messages()]
    assert len(messages) > 10
    assert max(message.ByteSize() for message in messages) <= MAX_BYTES
    told = [int(mapping.identifier.value.lstrip("\N{GRINNING FACE}")) for message in messages for mapping in message.mappings]
    assert told == list(range(2_000))
    assert all(message.workspace_id == "acme" and message.HasField("change_time") for message in messages)


def test_entries_say_what_happened_and_why() -> None:
    announcement = Announcement("acme", NOW)
    [trait] = observed(b'{"plan":"pro"}', Source(-1_500_000, "m0", 7)).values()
    announcement.canonical(CanonicalEntry("acme", PROFILE, PROFILE, Cause("m1", "track")))
    announcement.mapping(("acme", "email", "e"), PROFILE, REMOVED, "m2")
    announcement.trait(TraitEntry("acme", PROFILE, "plan", trait), "r")
    announcement.trait(TraitEntry("acme", PROFILE, "old", Trait(Source(5), trait.value)), "r")
    announcement.trait(TraitEntry("acme", PROFILE, "gone", None), "r")
    [message] = announcement.messages()
    assert message.subject == "cdi.identity.changed"
    change = GraphChanged.FromString(message.payload)
    assert (change.canonicals[0].triggering_event_type, change.canonicals[0].triggering_event_id) == ("track", "m1")
    assert change.mappings[0].operation == REMOVED
    plan, old, gone = change.traits
    assert (plan.value, plan.event_time.seconds, plan.event_time.nanos, plan.triggering_event_id) == (b'"pro"', -2, 500_000_000, "m0")
    assert (old.triggering_event_id, gone.value, gone.triggering_event_id) == ("r", b"", "r")
    assert not gone.HasField("event_time")


def test_nothing_is_told_of_nothing() -> None:
    assert Announcement("acme", NOW).messages() == []


def test_entries_of_any_length_are_read_as_they_were_written() -> None:
    announcement = Announcement("acme", NOW)
    texts = ["x" * length for length in (0, 1, 127, 128, 200, 999, 1_000, 16_383, 16_384, 60_000)] + ["\N{GRINNING FACE}" * 100]
    values = [b'"%s"' % text.encode() for text in texts]
    for text, value in zip(texts, values, strict=True):
        [trait] = observed(b'{"t":1}', Source(1, text, 7)).values()
        announcement.canonical(CanonicalEntry("acme", PROFILE, "other", Cause(text, text)))
        announcement.mapping(("acme", "email", text), PROFILE, CREATED, text)
        announcement.trait(TraitEntry("acme", PROFILE, text, trait._replace(value=msgspec.Raw(value))), "r")
        announcement.reread(PROFILE)
    changes = [GraphChanged.FromString(message.payload) for message in announcement.messages()]
    canonicals = [entry for change in changes for entry in change.canonicals]
    assert [(entry.triggering_event_id, entry.triggering_event_type) for entry in canonicals] == [(text, text) for text in texts]
    assert {(entry.profile_id, entry.canonical_profile_id) for entry in canonicals} == {(PROFILE, "other")}
    mappings = [entry for change in changes for entry in change.mappings]
    assert [(entry.identifier.value, entry.triggering_event_id) for entry in mappings] == [(text, text) for text in texts]
    assert {(entry.identifier.type, entry.profile_id, entry.operation) for entry in mappings} == {("email", PROFILE, CREATED)}
    traits = [entry for change in changes for entry in change.traits]
    assert [(entry.name, entry.value) for entry in traits] == list(zip(texts, values, strict=True))
    assert [entry.triggering_event_id for entry in traits] == [text or "r" for text in texts]
    assert [profile_id for change in changes for profile_id in change.reread_profile_ids] == [PROFILE] * len(texts)
