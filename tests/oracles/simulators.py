"""Which Python has another simulator, Brian2 or NEST: that of `make oracles`, or this one."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OWN = Path(__file__).resolve().parents[2] / ".oracles" / "bin" / "python"


@cache
def python_with(module: str) -> str | None:
    """An interpreter that can import `brian2` or `nest`; None where there is none."""
    own = OWN.parents[1]
    if (own / "stamp").exists() and any(own.glob(f"lib/python*/site-packages/{module}")):
        return str(OWN)
    if find_spec(module) is None:
        return None
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False)
    return sys.executable if done.returncode == 0 else None
