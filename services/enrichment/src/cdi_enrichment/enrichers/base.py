"""What an enricher is: a pure function over reference data that adds its part to what is known of an event.

Order does not matter: an enricher reads the subject and makes only its own part. It must bear any subject: what it cannot
read it leaves out.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from cdi_enrichment.domain.passage import Subject

__all__ = ["MAX_VALUE_LENGTH", "Enricher", "ReferenceFiles", "Subject"]

MAX_VALUE_LENGTH: Final = 500
"""Characters of any text that an enricher takes over from a client."""

K = TypeVar("K", bound=Hashable)


class Enricher(Protocol[K]):
    """One enricher, made once at the start with its reference data. Neither method ever raises, whatever the subject.

    Attributes:
        remembered: keys whose part is kept, the last used ones: as many as real traffic repeats.
    """

    remembered: int

    def key(self, subject: Subject) -> K | None:
        """What the part depends on, all of it; ``None`` when there is nothing to look for. Runs for every event, so it only picks."""
        ...

    def find(self, key: K) -> Message | None:
        """The enricher's field of ``cdi.event.v1.Enrichments``, or ``None`` to leave it unset. Runs once for many events."""
        ...


@dataclass(frozen=True, slots=True)
class ReferenceFiles:
    """Files that enrichers read at the start.

    Attributes:
        geo_database: a MaxMind DB file with countries or cities.
    """

    geo_database: Path
