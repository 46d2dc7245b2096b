"""circuitlab: circuits that learn by making their own control unnecessary."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "module": ("circuitlab.dynamics.module", "ModuleSystem"),
    "open": ("circuitlab.record.reader", "open_run"),
    "load": ("circuitlab.record.circuits", "load"),
    "export": ("circuitlab.graph.foreign.formats", "write_format"),
    "rewired": ("circuitlab.graph.nulls", "rewired"),
    "simulate": ("circuitlab.experiment.simulate", "simulate"),
}
"""What `import circuitlab` offers besides its packages, loaded when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'circuitlab' has no attribute '{name}'")
    where, what = _LAZY[name]
    return getattr(importlib.import_module(where), what)
