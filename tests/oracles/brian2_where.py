"""Which Python has Brian2: this one, or that of `make oracles`."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OWN = Path(__file__).resolve().parents[2] / ".oracles" / "bin" / "python"


@cache
def brian2_python() -> str | None:
    """An interpreter that can import Brian2; None where there is none."""
    if (OWN.parents[1] / "stamp").exists():
        return str(OWN)
    return sys.executable if find_spec("brian2") is not None else None
