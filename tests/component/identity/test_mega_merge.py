"""An attack that would make one person of a whole town: a shared device and ``identify(null)``."""

import random

from cdi_cli.embedded import ServiceProcess

from .conftest import Client
from .identity_calls import names, profile_of, resolve, seen

EVENTS, BATCH, PEOPLE = 100_000, 2_000, 1_000


async def test_a_shared_device_and_identify_null_end_with_bounded_profiles(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    chance = random.Random(7)
    for _ in range(0, EVENTS, BATCH):
        batch = []
        for _ in range(BATCH):
            number = chance.randrange(PEOPLE)
            who = chance.choice((f"user_id:u{number}", "user_id:null", "user_id:undefined", "user_id:0"))
            email = chance.choice((f"email:e{chance.randrange(PEOPLE)}@example.com", "email:null"))
            batch.append(seen(who, email, "anonymous_id:kiosk", f"anonymous_id:d{number % 50}"))
        assert len(await resolve(stub, *batch)) == BATCH
    people = {}
    for number in range(PEOPLE):
        profile = await profile_of(stub, f"user_id:u{number}")
        if profile is not None:
            people[profile.profile_id] = profile
    assert len(people) > PEOPLE * 0.9
    for profile in people.values():
        kinds = [item.type for item in profile.identifiers]
        assert kinds.count("user_id") == 1
        assert max(map(kinds.count, kinds)) <= 5
        assert len(profile.merged_profile_ids) <= 100
    assert await profile_of(stub, "user_id:null") is None
    kiosk = await profile_of(stub, "anonymous_id:kiosk")
    assert kiosk is not None
    assert len(names(kiosk)) <= 11
