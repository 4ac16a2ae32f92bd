"""Identity over gRPC: whose ids a person has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import grpc

from cdi.identity.v1 import profile_pb2, profiles_service_pb2
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi_consent.domain.decisions import SUBJECT_TYPES, Subject, can_be_subject
from cdi_consent.domain.tombstones import PROFILE_ID
from cdi_consent.ports import Known, Person
from cdi_runtime.rpc import call

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceAsyncStub

DEADLINE_SECONDS: Final = 5.0
"""Until a call is given up."""

MAX_KEYS: Final = 1_000
"""Of one call (profiles_service.proto)."""

_NO_TRAIT: Final = ["-"]
"""Asks for no trait that anybody has: traits are none of consent's business."""


class ProfilesClient:
    """Asks the identity service; see ``Profiles``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: ProfilesServiceAsyncStub = ProfilesServiceStub(channel)

    async def by_id(self, workspace_id: str, profile_ids: Sequence[str]) -> list[Person | None]:
        """See ``Profiles``."""
        return await self._find(workspace_id, [profiles_service_pb2.ProfileKey(profile_id=one) for one in profile_ids])

    async def of_subjects(self, workspace_id: str, subjects: Sequence[Subject]) -> list[Person | None]:
        """See ``Profiles``."""
        identifiers = [profile_pb2.Identifier(type=kind, value=value) for _, kind, value in subjects]
        return await self._find(workspace_id, [profiles_service_pb2.ProfileKey(identifier=one) for one in identifiers])

    async def known(self, workspace_id: str, people: Sequence[Sequence[Subject]]) -> list[Known]:
        """See ``People``."""
        keys = [_key(subject) for person in people for subject in person]
        profiles = iter(await self._profiles(workspace_id, keys))
        return [_known(workspace_id, [next(profiles) for _ in person]) for person in people]

    async def _find(self, workspace_id: str, keys: Sequence[profiles_service_pb2.ProfileKey]) -> list[Person | None]:
        profiles = await self._profiles(workspace_id, keys)
        return [None if profile is None else _person(workspace_id, profile) for profile in profiles]

    async def _profiles(self, workspace_id: str, keys: Sequence[profiles_service_pb2.ProfileKey]) -> list[profile_pb2.Profile | None]:
        found: list[profile_pb2.Profile | None] = []
        for start in range(0, len(keys), MAX_KEYS):
            request = profiles_service_pb2.BatchGetProfilesRequest(
                workspace_id=workspace_id, keys=keys[start : start + MAX_KEYS], trait_names=_NO_TRAIT
            )
            answer = await call(self._stub.BatchGetProfiles, request, timeout=DEADLINE_SECONDS, peer="identity")
            found += [one.profile if one.HasField("profile") else None for one in answer.found]
        return found


def _key(subject: Subject) -> profiles_service_pb2.ProfileKey:
    _, kind, value = subject
    if kind == PROFILE_ID:
        return profiles_service_pb2.ProfileKey(profile_id=value)
    return profiles_service_pb2.ProfileKey(identifier=profile_pb2.Identifier(type=kind, value=value))


def _known(workspace_id: str, profiles: Sequence[profile_pb2.Profile | None]) -> Known:
    found = [profile for profile in profiles if profile is not None]
    subjects = dict.fromkeys((workspace_id, one.type, one.value) for profile in found for one in profile.identifiers)
    ids = dict.fromkeys(one for profile in found for one in (profile.profile_id, *profile.merged_profile_ids))
    return Known(tuple(subjects), tuple(ids))


def _person(workspace_id: str, profile: profile_pb2.Profile) -> Person:
    ids = [(workspace_id, one.type, one.value) for one in profile.identifiers if one.type in SUBJECT_TYPES]
    return Person(profile.profile_id, tuple(subject for subject in ids if can_be_subject(subject[2])))
