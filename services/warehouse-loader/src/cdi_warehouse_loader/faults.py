"""Faults that only the loader has.

Unavailable
└── OutOfMemory     the warehouse's engine cannot hold a load; a smaller one may fit
"""

from __future__ import annotations

from cdi_kernel.faults import Unavailable


class OutOfMemory(Unavailable):
    """The load needs more memory than the engine may use. Every table that a load touches costs some."""
