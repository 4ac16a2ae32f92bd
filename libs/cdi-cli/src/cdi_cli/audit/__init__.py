"""Proof that every accepted event is accounted for at every sink (design §3, law 2).

``Reading`` is what the services and the bus say; ``lines_of`` does the sums; ``take_reading`` asks.
Deliberately absent: counting of its own.
"""

from cdi_cli.audit.reading import settled_reading, take_reading
from cdi_cli.audit.sums import AuditLine, Count, Lost, Reading, lines_of

__all__ = ["AuditLine", "Count", "Lost", "Reading", "lines_of", "settled_reading", "take_reading"]
