"""How long tests give what CDI promises within a time: twice as long, for a busy machine."""

from typing import Final

WITHDRAWAL_KNOWN_SECONDS: Final = 4.0
"""A request of the router that begins later than this after a withdrawal holds nothing of that person (``services/router/README.md``)."""
