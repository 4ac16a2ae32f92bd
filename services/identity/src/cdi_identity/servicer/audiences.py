"""gRPC in: ``cdi.identity.v1.AudiencesService``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from cdi.identity.v1 import audiences_service_pb2 as pb
from cdi.identity.v1 import audiences_service_pb2_grpc as pb_grpc
from cdi.identity.v1 import profile_pb2
from cdi_identity import convert
from cdi_identity.domain.audiences import MAX_CONDITIONS, MAX_PROFILE_IDS, Condition, Scheme, is_country
from cdi_identity.domain.json_values import is_number
from cdi_identity.onboarding import Audience, Audiences, Hashed
from cdi_kernel.faults import InvalidArgument
from cdi_runtime.rpc import Registration

FULL_NAME = pb.DESCRIPTOR.services_by_name["AudiencesService"].full_name

MESSAGE_DIGESTS: Final = 2_000
"""Digests after which a message is sent: 200 KB, and less than 300 KB whatever the last person has."""

_SCHEMES: Final[Mapping[int, Scheme]] = {
    pb.HASH_SCHEME_META: Scheme.META,
    pb.HASH_SCHEME_GOOGLE: Scheme.GOOGLE,
    pb.HASH_SCHEME_LIVERAMP: Scheme.LIVERAMP,
}


class AudiencesServicer(pb_grpc.AudiencesServiceServicer):
    """The method; faults are rendered by the interceptor."""

    def __init__(self, audiences: Audiences) -> None:
        self._audiences = audiences

    async def ExportAudience(self, request: pb.ExportAudienceRequest, context: Any) -> AsyncIterator[pb.ExportAudienceResponse]:
        """The people of an audience; the counts come last."""
        withheld = unhashable = 0
        async for exported in self._audiences.export(audience_of(request)):
            withheld += exported.withheld
            unhashable += exported.unhashable
            for people in _messages(exported.people):
                yield pb.ExportAudienceResponse(people=people)
        yield pb.ExportAudienceResponse(withheld=withheld, unhashable=unhashable)


def registration(audiences: Audiences) -> Registration:
    """The service, ready to be served."""
    return Registration(pb_grpc.add_AudiencesServiceServicer_to_server, AudiencesServicer(audiences), FULL_NAME)


def audience_of(request: pb.ExportAudienceRequest) -> Audience:
    """What is asked for.

    Raises:
        InvalidArgument: a field breaks a rule; names it.
    """
    for name in ("workspace_id", "purpose"):
        if not (text := getattr(request, name)) or "\0" in text:
            raise _invalid(name, "must not be empty or hold NUL")
    if request.scheme not in _SCHEMES:
        raise _invalid("scheme", "must be one of META, GOOGLE, LIVERAMP")
    country = request.default_country.upper()
    if country and not is_country(country):
        raise _invalid("default_country", "must be a country of ISO 3166-1 alpha-2")
    if len(request.conditions) > MAX_CONDITIONS:
        raise _invalid("conditions", f"must be at most {MAX_CONDITIONS}")
    if len(request.profile_ids) > MAX_PROFILE_IDS:
        raise _invalid("profile_ids", f"must be at most {MAX_PROFILE_IDS}")
    conditions = [_condition(condition, f"conditions[{position}]") for position, condition in enumerate(request.conditions)]
    given = [found for text in request.profile_ids if (found := convert.profile_id(text)) is not None]
    profile_ids = given if request.profile_ids else None
    return Audience(request.workspace_id, profile_ids, conditions, _SCHEMES[request.scheme], request.purpose, country)


def _condition(given: pb.TraitCondition, path: str) -> Condition:
    if not given.name:
        raise _invalid(f"{path}.name", "must not be empty")
    if not given.value:
        if given.at_least:
            raise _invalid(f"{path}.value", "must be a number, because at_least is set")
        return Condition(given.name)
    try:
        value = msgspec.json.decode(given.value)
    except (msgspec.MsgspecError, RecursionError):
        raise _invalid(f"{path}.value", f"must be JSON; a text stands in quotes: {json.dumps('gold')}") from None
    if given.at_least and not is_number(value):
        raise _invalid(f"{path}.value", "must be a number, because at_least is set")
    return Condition(given.name, value, has_value=True, at_least=given.at_least)


def _messages(people: Iterable[Hashed]) -> Iterator[list[pb.HashedPerson]]:
    """People in messages of bounded size."""
    message: list[pb.HashedPerson] = []
    digests = 0
    for hashed in people:
        message.append(_person(hashed))
        digests += len(hashed.digests)
        if digests >= MESSAGE_DIGESTS:
            yield message
            message, digests = [], 0
    if message:
        yield message


def _person(hashed: Hashed) -> pb.HashedPerson:
    hashes = [profile_pb2.Identifier(type=kind, value=digest) for kind, digest in hashed.digests]
    return pb.HashedPerson(profile_id=hashed.profile_id, hashes=hashes)


def _invalid(field: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {text}", metadata={"field": field}, field_violations=[(field, text)])
