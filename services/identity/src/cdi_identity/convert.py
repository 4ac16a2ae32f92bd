"""Requests and responses of ``cdi.identity.v1`` ↔ the domain."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1 import profile_pb2
from cdi_identity.domain import traits
from cdi_identity.domain.identifiers import Identifier, usable
from cdi_identity.domain.resolution import Observation, Resolution
from cdi_identity.ports import StoredProfile
from cdi_kernel.faults import InvalidArgument

MAX_INPUTS: Final = 5_000
"""Inputs of one batch (contract of ``ResolveIdentitiesRequest.inputs``)."""

_ID_LENGTH: Final = 36
"""Characters of a profile id, all ASCII."""

# What stands in front of a profile id that is alone in its identity.
_SAMPLE: Final = pb.ResolveIdentitiesResponse(identities=[pb.ResolvedIdentity(profile_id="-" * _ID_LENGTH)])
_ID_ONLY: Final = _SAMPLE.SerializeToString()[:-_ID_LENGTH]


def observations(inputs: Sequence[pb.IdentityInput]) -> list[Observation]:
    """What the events of a batch say, in order.

    Raises:
        InvalidArgument: too many inputs, or a workspace id that cannot be one.
    """
    if len(inputs) > MAX_INPUTS:
        raise InvalidArgument(f"at most {MAX_INPUTS} inputs", field_violations=[("inputs", f"{len(inputs)} inputs")])
    result = [
        Observation(
            workspace_id := item.workspace_id,
            item.message_id,
            usable(workspace_id, item.identifiers),
            item.traits,
            _microseconds(item.event_time) if item.traits else 0,
        )
        for item in inputs
    ]
    if not all(workspace_id and "\0" not in workspace_id for workspace_id in {observation.workspace_id for observation in result}):
        raise InvalidArgument("a workspace id is empty or has a NUL character", field_violations=[("inputs.workspace_id", "not a name")])
    return result


def response(resolutions: Iterable[Resolution]) -> pb.ResolveIdentitiesResponse:
    """The answer to a batch.

    Put together from its serialized parts: a repeated field is the concatenation of its elements, each a message with its length in
    front, and most of them hold a profile id and nothing else. A third of the time of making a message for each.
    """
    parts: list[bytes] = []
    for resolution in resolutions:
        if resolution.created or resolution.merged or resolution.demoted or len(resolution.profile_id) != _ID_LENGTH:
            parts.append(pb.ResolveIdentitiesResponse(identities=[_identity(resolution)]).SerializeToString())
        else:
            parts += (_ID_ONLY, resolution.profile_id.encode())
    return pb.ResolveIdentitiesResponse.FromString(b"".join(parts))


def _identity(resolution: Resolution) -> pb.ResolvedIdentity:
    return pb.ResolvedIdentity(
        profile_id=resolution.profile_id,
        created=resolution.created,
        merged_profile_ids=resolution.merged,
        demoted_identifiers=[_identifier(identifier) for identifier in resolution.demoted],
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
        identifiers=[_identifier(identifier) for identifier in stored.identifiers],
        traits=traits.to_object(traits.from_document(stored.document)),
        merged_profile_ids=stored.merged_profile_ids,
    )
    result.create_time.FromMicroseconds(stored.create_us)
    return result


def _identifier(identifier: Identifier) -> profile_pb2.Identifier:
    return profile_pb2.Identifier(type=identifier[1], value=identifier[2])


def _microseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000 + time.nanos // 1_000
