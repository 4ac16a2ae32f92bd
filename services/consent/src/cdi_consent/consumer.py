"""NATS in: IDENTITY tells which ids are one person, CONSENT what was denied. Both lead to the other ids of a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdi.consent.v1 import purpose_pb2
from cdi.identity.v1 import profile_pb2
from cdi_consent.domain.decisions import Subject
from cdi_consent.persons import Persons
from cdi_kernel import topology
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Done, Message, Outcome, ReaderSpec

READER: Final = "consent"
_CHANGED: Final = topology.identity("changed")
_SPLIT: Final = "split_profile"
_OWN: Final = (purpose_pb2.DECISION_SOURCE_EVENT, purpose_pb2.DECISION_SOURCE_RECORD)
"""Of these sources denials travel; what has travelled, or was lifted, does not go on."""


class Consumer:
    """Handlers of the two streams. Doing a message again changes nothing."""

    def __init__(self, persons: Persons) -> None:
        self._persons = persons

    async def identity(self, messages: Sequence[Message[bytes]]) -> Sequence[Outcome]:
        """Merges and splits, in their order. New profiles and new ids of known ones ask for nothing: they have decided nothing yet."""
        for message in messages:
            if message.subject == _CHANGED:
                await self._change(profile_pb2.GraphChanged.FromString(message.body))
        return [Done()] * len(messages)

    async def consent(self, messages: Sequence[Message[purpose_pb2.DecisionsRecorded]]) -> Sequence[Outcome]:
        """Denials, those of a batch of messages together."""
        denied: dict[str, dict[Subject, None]] = {}
        for message in messages:
            for decision in message.body.decisions:
                if not decision.granted and decision.source in _OWN:
                    subject = decision.workspace_id, decision.subject_type, decision.subject_id
                    denied.setdefault(decision.workspace_id, {})[subject] = None
        for workspace_id, subjects in denied.items():
            await self._persons.denied(workspace_id, list(subjects))
        return [Done()] * len(messages)

    async def _change(self, changed: profile_pb2.GraphChanged) -> None:
        merged = [one for one in changed.canonicals if one.canonical_profile_id != one.profile_id]
        split = [one.profile_id for one in changed.canonicals if one.triggering_event_type == _SPLIT]
        since_us = changed.change_time.ToMicroseconds()
        if split:
            await self._persons.split(changed.workspace_id, list(dict.fromkeys(split)), since_us)
        elif merged:
            profile_ids = list(dict.fromkeys(one.canonical_profile_id for one in merged))
            await self._persons.merged(changed.workspace_id, profile_ids, since_us)


def identity_spec(service: str) -> ReaderSpec[bytes]:
    """The whole stream, undecoded: the subject says what a message is."""
    return ReaderSpec(service, READER, StreamName.IDENTITY, bytes, None)


def consent_spec(service: str) -> ReaderSpec[purpose_pb2.DecisionsRecorded]:
    """The whole stream."""
    return ReaderSpec(service, READER, StreamName.CONSENT, purpose_pb2.DecisionsRecorded.FromString, None)
