"""Requests and responses of ``cdi.identity.v1`` ↔ the domain."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1 import profile_pb2, rules_pb2
from cdi_identity.domain import traits
from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.identifiers import Identifier, usable
from cdi_identity.domain.resolution import Observation, Resolution
from cdi_identity.domain.rules import Rules
from cdi_identity.operating import Request
from cdi_identity.ports import StoredProfile
from cdi_kernel.faults import InvalidArgument

MAX_INPUTS: Final = 5_000
"""Inputs of one batch (contract of ``ResolveIdentitiesRequest.inputs``)."""

_ID_LENGTH: Final = 36
"""Characters of a profile id, all ASCII."""


def _around_id(created: bool) -> tuple[bytes, bytes]:
    """What stands before and after the profile id in an identity that says nothing else, or only that the event made the profile."""
    sample = pb.ResolveIdentitiesResponse(identities=[pb.ResolvedIdentity(profile_id="-" * _ID_LENGTH, created=created)])
    before, _, after = sample.SerializeToString().partition(b"-" * _ID_LENGTH)
    return before, after


_KNOWN: Final = _around_id(created=False)
_CREATED: Final = _around_id(created=True)


class Inputs:
    """The events of a request.

    Args:
        inputs: in order.
        tombstones: generation of consent's tombstones by which they were judged; ``None``: they need no judgement.

    Raises:
        InvalidArgument: too many inputs, or a workspace id that cannot be one.
    """

    def __init__(self, inputs: Sequence[pb.IdentityInput], tombstones: int | None = None) -> None:
        self.tombstones = tombstones
        if len(inputs) > MAX_INPUTS:
            raise InvalidArgument(f"at most {MAX_INPUTS} inputs", field_violations=[("inputs", f"{len(inputs)} inputs")])
        self._inputs = inputs
        self.workspace_ids = list({item.workspace_id: None for item in inputs})
        if not all(map(_is_name, self.workspace_ids)):
            raise InvalidArgument(
                "a workspace id is empty or has a NUL character", field_violations=[("inputs.workspace_id", "not a name")]
            )

    def observations(self, rules: Mapping[str, Rules]) -> list[Observation]:
        """What the events say, in order, by the rules of their workspaces."""
        # One text for all events of a workspace.
        given = {workspace_id: (workspace_id, rules[workspace_id]) for workspace_id in self.workspace_ids}
        found = []
        for item in self._inputs:
            workspace_id, applied = given[item.workspace_id]
            brought, document = usable(workspace_id, item.identifiers, applied), item.traits
            time_us = _microseconds(item.event_time) if document else 0
            found.append(Observation(workspace_id, item.message_id, brought, document, time_us, item.event_type))
        return found


def response(resolutions: Iterable[Resolution]) -> pb.ResolveIdentitiesResponse:
    """The answer to a batch.

    Put together from its serialized parts: a repeated field is the concatenation of its elements, each a message with its length in
    front, and most of them hold a profile id and little else. A third of the time of making a message for each.
    """
    parts: list[bytes] = []
    for resolution in resolutions:
        if resolution.merged or resolution.demoted or resolution.chosen_traits or len(resolution.profile_id) != _ID_LENGTH:
            parts.append(pb.ResolveIdentitiesResponse(identities=[_identity(resolution)]).SerializeToString())
        else:
            before, after = _CREATED if resolution.created else _KNOWN
            parts += (before, resolution.profile_id.encode(), after)
    return pb.ResolveIdentitiesResponse.FromString(b"".join(parts))


def _identity(resolution: Resolution) -> pb.ResolvedIdentity:
    return pb.ResolvedIdentity(
        profile_id=resolution.profile_id,
        created=resolution.created,
        merged_profile_ids=resolution.merged,
        demoted_identifiers=[_identifier(identifier) for identifier in resolution.demoted],
        chosen_traits=resolution.chosen_traits,
    )


def profile_id(text: str) -> str | None:
    """A profile id in its canonical spelling; ``None`` if the text is no UUID, so that no profile has it."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def profile(stored: StoredProfile) -> profile_pb2.Profile:
    """A profile as it is shown."""
    result = profile_pb2.Profile(
        profile_id=stored.profile_id,
        workspace_id=stored.workspace_id,
        traits=traits.shown(stored.documents),
        merged_profile_ids=stored.merged_profile_ids,
    )
    # Field by field: half the time of messages that are made first and copied in, and of the timestamp's own arithmetic.
    for _, kind, value in stored.identifiers:
        result.identifiers.add(type=kind, value=value)
    seconds, rest_us = divmod(stored.create_us, 1_000_000)
    result.create_time.seconds, result.create_time.nanos = seconds, rest_us * 1_000
    return result


def request(asked: pb.MergeProfilesRequest | pb.SplitProfileRequest) -> Request:
    """Who asks for what.

    Raises:
        InvalidArgument: an id is missing, or a text is too long.
    """
    violations = []
    if not _is_name(asked.workspace_id):
        violations.append(("workspace_id", "not a name"))
    if not _is_name(asked.request_id) or len(asked.request_id) > 100:
        violations.append(("request_id", "1 to 100 characters"))
    if len(asked.reason) > 500:
        violations.append(("reason", "at most 500 characters"))
    if violations:
        raise InvalidArgument("the request is not valid", field_violations=violations)
    return Request(asked.workspace_id, asked.request_id, asked.reason)


def identifiers(workspace_id: str, given: Iterable[profile_pb2.Identifier]) -> list[Identifier]:
    """Identifiers of a workspace."""
    return [(workspace_id, item.type, item.value) for item in given]


def before(page_token: str) -> int | None:
    """The number that a page goes on below; ``None`` for the first page.

    Raises:
        InvalidArgument: it is no token of an answer.
    """
    if not page_token:
        return None
    if not page_token.isascii() or not page_token.isdecimal() or len(page_token) > 18:
        raise InvalidArgument("the page token is not one of an answer", field_violations=[("page_token", "unknown")])
    return int(page_token)


def page_size(asked: int) -> int:
    """Decisions of one page: at most 1,000, 100 if nothing is asked for."""
    return min(max(asked, 0) or 100, 1_000)


def decision(decided: Decision) -> rules_pb2.Decision:
    """A decision as it is shown."""
    result = rules_pb2.Decision(
        kind=rules_pb2.DecisionKind.ValueType(decided.kind),
        profile_id=decided.profile_id,
        other_profile_ids=decided.other_profile_ids,
        identifiers=[_identifier(identifier) for identifier in decided.identifiers],
        triggering_event_id=decided.cause.message_id,
        triggering_event_type=decided.cause.event_type,
        rules_version=decided.rules_version,
        reason=decided.reason,
    )
    for demotion in decided.demotions:
        reason = rules_pb2.DemotionReason.ValueType(demotion.reason)
        result.demotions.add(identifier=_identifier(demotion.identifier), reason=reason, limited_type=demotion.limited_type)
    result.decide_time.FromMicroseconds(decided.decide_us)
    return result


def workspace(workspace_id: str) -> str:
    """A workspace id that somebody asks by.

    Raises:
        InvalidArgument: it cannot be one.
    """
    if not _is_name(workspace_id):
        raise InvalidArgument("the workspace id is empty or has a NUL character", field_violations=[("workspace_id", "not a name")])
    return workspace_id


def _is_name(text: str) -> bool:
    return bool(text) and "\0" not in text


def _identifier(identifier: Identifier) -> profile_pb2.Identifier:
    return profile_pb2.Identifier(type=identifier[1], value=identifier[2])


def _microseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000 + time.nanos // 1_000
