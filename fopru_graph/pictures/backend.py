"""matplotlib, whatever MPLBACKEND says."""

from __future__ import annotations

import contextlib
import os
import sys
from types import ModuleType


def import_matplotlib() -> ModuleType:
    """Import matplotlib, which refuses to be imported if MPLBACKEND names a backend that is not installed.

    What a notebook starts inherits the notebook's. Figures are drawn without any; a usable one stays chosen for whoever
    else draws in this process.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    module: ModuleType = matplotlib
    return module
