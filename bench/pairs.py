"""A million pairs of identifiers, as events bring them: the same ones on every run.

People have one user id or none, some devices (anonymous ids), e-mail addresses and telephones; most have two or three identifiers, a
few have a dozen. Every identifier was first seen together with another one of its person, and some pairs are seen again. A device
shared by two people makes them one. That happens to a few, and never so that a limit of the default rules would be exceeded: a cluster
has at most one user id and five identifiers of every other type, so that merge protection does not come between the methods. The pairs
of all people are shuffled, so profiles are made apart and merged later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.people import anonymous_id, request
from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1.profile_pb2 import Identifier

WORKSPACE: Final = "pairs"
_DEVICES: Final = (1, 1, 1, 1, 2, 2, 3)
_EMAILS: Final = (0, 0, 1, 1, 1, 2)
_SHARED: Final = 0.07
_SEEN_AGAIN: Final = 0.25


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of identifiers.

    Attributes:
        names: type and value of each identifier.
        left: index of the first identifier of every pair.
        right: of the second one.
    """

    names: list[tuple[str, str]]
    left: NDArray[np.int32]
    right: NDArray[np.int32]

    def texts(self) -> list[str]:
        """Type and value of each identifier in one text, as a warehouse's table has them."""
        return [f"{kind}:{value}" for kind, value in self.names]

    def requests(self, batch: int) -> list[bytes]:
        """One event per pair, in batches."""
        made = [Identifier(type=kind, value=value) for kind, value in self.names]
        events = zip(self.left.tolist(), self.right.tolist(), strict=True)
        inputs = [
            pb.IdentityInput(workspace_id=WORKSPACE, message_id=f"pair-{number}", identifiers=[made[one], made[other]], event_type="track")
            for number, (one, other) in enumerate(events)
        ]
        return [request(inputs[at : at + batch]) for at in range(0, len(inputs), batch)]

    def singles(self, batch: int) -> list[bytes]:
        """One event per identifier, in their order: asks whose it is."""
        inputs = [
            pb.IdentityInput(workspace_id=WORKSPACE, message_id=f"whose-{number}", identifiers=[Identifier(type=kind, value=value)])
            for number, (kind, value) in enumerate(self.names)
        ]
        return [request(inputs[at : at + batch]) for at in range(0, len(inputs), batch)]


def make(count: int, seed: int = 1) -> Pairs:
    """``count`` pairs."""
    chance = random.Random(seed)
    names: list[tuple[str, str]] = []
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        known = chance.random() < 0.8
        first = _person(chance, names, pairs, known=known)
        if chance.random() < _SHARED:
            # Nobody with a user id: two of them in one cluster would exceed the limit of one.
            other = _person(chance, names, pairs, known=False)
            pairs.append((chance.choice(first), chance.choice(other)))
    del pairs[count:]
    chance.shuffle(pairs)
    columns = np.array(pairs, dtype=np.int32)
    used = np.unique(columns)
    # The cut may have left identifiers without a pair.
    place = np.full(len(names), -1, dtype=np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return Pairs([names[index] for index in used.tolist()], place[columns[:, 0]], place[columns[:, 1]])


def _person(chance: random.Random, names: list[tuple[str, str]], pairs: list[tuple[int, int]], *, known: bool) -> list[int]:
    """Adds somebody; two of them never have more than five devices or four addresses."""
    devices = chance.choice(_DEVICES) if known else chance.choice((1, 2))
    kinds = ["user_id"] if known else []
    kinds += ["anonymous_id"] * devices + ["email"] * chance.choice(_EMAILS)
    kinds += ["phone"] * (chance.random() < 0.15) + ["ios.id"] * (chance.random() < 0.1) + ["ga_client_id"] * (chance.random() < 0.1)
    if len(kinds) == 1:
        kinds.append("email")
    first = len(names)
    for index, kind in enumerate(kinds, start=first):
        names.append((kind, anonymous_id(f"pair {index}") if kind == "anonymous_id" else f"{kind[0]}{index:09d}"))
    own = list(range(first, len(names)))
    for position in range(1, len(own)):
        # Half of what is seen of a person is seen together with the user id, or whatever came first.
        pairs.append((own[0] if chance.random() < 0.5 else own[chance.randrange(position)], own[position]))
    if chance.random() < _SEEN_AGAIN:
        pairs.append((own[-1], own[chance.randrange(len(own) - 1)]))
    return own
