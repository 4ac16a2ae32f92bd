"""The people of ``bench.identity``: the same ones on every run, and requests about them, ready to be sent.

A person has an anonymous id (a UUID, so that neighbours in time are strangers in the index), a user id and, every other one, an e-mail
address, which makes 2.5 identifiers; and three small traits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from hashlib import md5
from typing import Final

from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1.profile_pb2 import Identifier

WORKSPACE: Final = "bench"
EVENT_SECONDS: Final = 1_795_000_000
_IDENTIFY_SHARE: Final = 0.1
_VISITORS: Final = 5_000
_EVENTS_PER_VISIT: Final = 10


def anonymous_id(seed: str) -> str:
    """A UUID that follows from a text."""
    digits = md5(seed.encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def user_id(person: int) -> str:
    """The user id of a person."""
    return f"u{_shuffled(person):010d}"


def identifiers(person: int) -> list[Identifier]:
    """All identifiers of a person."""
    found = [Identifier(type="anonymous_id", value=anonymous_id(str(person))), Identifier(type="user_id", value=user_id(person))]
    if person % 2:
        found.append(Identifier(type="email", value=f"person.{_shuffled(person)}@example.com"))
    return found


def first_event(person: int) -> pb.IdentityInput:
    """The event that makes a person known: all identifiers, and traits."""
    event = pb.IdentityInput(
        workspace_id=WORKSPACE,
        message_id=f"first-{person:09d}",
        identifiers=identifiers(person),
        traits=b'{"name":"Person %d","plan":"%s","age":%d}' % (person, (b"free", b"pro")[person % 2], 20 + person % 60),
        event_type="identify",
    )
    event.event_time.seconds = EVENT_SECONDS
    return event


def later_event(person: int, message: str, second: int, *, identify: bool) -> pb.IdentityInput:
    """An event of a known person, ``second`` seconds after the first one: as a page view brings it (anonymous id and user id), or an
    identify call that says what is known."""
    event = first_event(person)
    event.message_id = message
    event.event_time.seconds += second
    if not identify:
        event.event_type = "track"
        event.ClearField("traits")
        del event.identifiers[2:]
    return event


def new_people(first: int, count: int, batch: int) -> Iterator[bytes]:
    """Requests that make people known, made as they are needed."""
    for begin in range(first, first + count, batch):
        yield request(first_event(person) for person in range(begin, min(begin + batch, first + count)))


def known_people(people: int, batches: int, batch: int, seed: int, *, identify: bool = False, visits: bool = False) -> list[bytes]:
    """Requests about people drawn evenly from the first ``people``.

    Args:
        people: how many are known.
        batches: how many requests.
        batch: events of each.
        seed: another one gives other events; a higher one, later ones.
        identify: a tenth of the events repeat the person's traits, as identify calls do.
        visits: a person that was drawn stays for ten events on average, among thousands of others, as visitors do. Otherwise each
            event is of somebody else, the worst case for every cache.
    """
    chance = random.Random(seed)
    visitors = [chance.randrange(people) for _ in range(_VISITORS if visits else 1)]

    def event(number: int) -> pb.IdentityInput:
        seat = chance.randrange(len(visitors))
        person = visitors[seat]
        if not visits or chance.random() < 1 / _EVENTS_PER_VISIT:
            visitors[seat] = chance.randrange(people)
        calls = identify and chance.random() < _IDENTIFY_SHARE
        return later_event(person, f"later-{seed}-{number}", 1 + number + seed * batches * batch, identify=calls)

    return [request(event(index * batch + position) for position in range(batch)) for index in range(batches)]


def strangers(people: int, count: int, batch: int, seed: int) -> list[bytes]:
    """Requests about ``count`` of the first ``people``, about each of them once."""
    chosen = random.Random(seed).sample(range(people), count)
    events = [later_event(person, f"once-{seed}-{person}", 1, identify=False) for person in chosen]
    return [request(events[begin : begin + batch]) for begin in range(0, count, batch)]


def everybody(people: int, batch: int) -> Iterator[bytes]:
    """Requests about each of the first ``people`` once, made as they are needed."""
    for begin in range(0, people, batch):
        yield request(later_event(person, f"met-{person}", 1, identify=False) for person in range(begin, min(begin + batch, people)))


def questions(people: int, count: int, seed: int) -> list[tuple[bytes, Identifier]]:
    """Requests for single profiles, drawn evenly, by any of the person's identifiers; each with that identifier."""
    chance = random.Random(seed)
    asked = [chance.choice(identifiers(chance.randrange(people))) for _ in range(count)]
    return [(pb.GetProfileRequest(workspace_id=WORKSPACE, identifier=one).SerializeToString(), one) for one in asked]


def request(events: Iterable[pb.IdentityInput]) -> bytes:
    """The bytes of a batch."""
    return pb.ResolveIdentitiesRequest(inputs=events).SerializeToString()


def _shuffled(person: int) -> int:
    # An odd factor modulo a power of two only shuffles, so numbers are distinct for as many people.
    return person * 2_654_435_761 % (1 << 32)
