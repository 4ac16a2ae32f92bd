"""Answers to batches: put together from bytes, they are the messages that protobuf would make."""

from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1 import profile_pb2
from cdi_identity import convert
from cdi_identity.domain.resolution import Resolution

PROFILE = "018f0000-0000-7000-8000-000000000000"
OTHER = "018f0000-0000-7000-8000-000000000001"


def test_an_answer_says_all_of_every_resolution_in_order() -> None:
    resolutions = [
        Resolution(PROFILE),
        Resolution(OTHER, created=True),
        Resolution(PROFILE, merged=[OTHER]),
        Resolution(OTHER, created=True, demoted=[("acme", "email", "e")], chosen_traits=b"{}"),
        Resolution("short", created=True),
    ]
    assert convert.response(resolutions) == pb.ResolveIdentitiesResponse(
        identities=[
            pb.ResolvedIdentity(profile_id=PROFILE),
            pb.ResolvedIdentity(profile_id=OTHER, created=True),
            pb.ResolvedIdentity(profile_id=PROFILE, merged_profile_ids=[OTHER]),
            pb.ResolvedIdentity(
                profile_id=OTHER,
                created=True,
                demoted_identifiers=[profile_pb2.Identifier(type="email", value="e")],
                chosen_traits=b"{}",
            ),
            pb.ResolvedIdentity(profile_id="short", created=True),
        ]
    )
