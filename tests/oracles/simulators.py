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
    if OWN.exists() and _imports(str(OWN), module):
        return str(OWN)
    return sys.executable if find_spec(module) is not None and _imports(sys.executable, module) else None


def _imports(python: str, module: str) -> bool:
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0
