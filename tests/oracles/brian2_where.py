"""Which Python has Brian2: this one, or that of `make oracles`."""

from __future__ import annotations

import subprocess
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
    if find_spec("brian2") is None:
        return None
    done = subprocess.run([sys.executable, "-c", "import brian2"], capture_output=True, check=False)
    return sys.executable if done.returncode == 0 else None
