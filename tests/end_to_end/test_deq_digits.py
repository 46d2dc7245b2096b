"""The shipped deep equilibrium model learns digits by both rules; chance is a tenth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["least_control", "recurrent_backprop"])
def test_a_deep_equilibrium_model_learns_digits(rule: str) -> None:
    command = [sys.executable, "-W", "error", "experiments/deq_digits.py", "--rule", rule, "--epochs", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"test accuracy ([\d.]+) %", done.stdout)
    assert found is not None and float(found[1]) >= 88
