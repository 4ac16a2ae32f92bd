"""Imports of libraries without the optional ones that they would take along because these happen to be installed."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import cast


def import_without(module: str, optional: str) -> None:
    """Imports ``module`` as if ``optional`` were not installed; later imports of ``optional`` work as ever.

    Args:
        module: one that can do without.
        optional: what to leave out. It stays in place where somebody has imported it already.
    """
    if optional in sys.modules:
        return
    sys.modules[optional] = cast(ModuleType, None)  # the import system's own mark of a module that cannot be imported
    try:
        import_module(module)
    finally:
        del sys.modules[optional]
