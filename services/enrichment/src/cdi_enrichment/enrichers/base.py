"""What an enricher is: a pure function over reference data that adds its part to what is known of an event.

Order does not matter: an enricher reads the subject and writes only its own part. It must bear any subject: what it cannot
read it leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain.passage import Subject

__all__ = ["MAX_VALUE_LENGTH", "Enricher", "ReferenceFiles", "Subject"]

MAX_VALUE_LENGTH: Final = 500
"""Characters of any text that an enricher takes over from a client."""


class Enricher(Protocol):
    """One enricher, made once at the start with its reference data. Holds no state but caches."""

    def __call__(self, subject: Subject, found: event_pb2.Enrichments) -> None:
        """Writes its own part into ``found``, or leaves it unset. Never raises for any subject."""
        ...


@dataclass(frozen=True, slots=True)
class ReferenceFiles:
    """Files that enrichers read at the start.

    Attributes:
        geo_database: a MaxMind DB file with countries or cities.
    """

    geo_database: Path
