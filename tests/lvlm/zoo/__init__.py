"""The zoo: for each family a tiny random model, offline. A file of this folder holds its row in ``ROWS``."""

from __future__ import annotations

import importlib
import pkgutil

from tests.lvlm.zoo.rows import Row, everything, stock_answer

__all__ = ["ZOO", "Row", "everything", "stock_answer"]

ZOO: dict[str, Row] = {}
for module in pkgutil.iter_modules(__path__):
    ZOO |= getattr(importlib.import_module(f"{__name__}.{module.name}"), "ROWS", {})
