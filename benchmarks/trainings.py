"""Training runs for the tables of the docs, each in a process of its own, and how their numbers are written."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def run(folder: str, name: str, experiment: str, seed: int, options: tuple[str, ...], threads: int) -> dict:
    """One training run's summary, as `circuitlab run --json` prints it.

    Args:
        folder, name: the run file is runs/FOLDER/NAME-SEED.h5.
        experiment: a file of experiments/, without its ending.
        options: changes, as after `--set`.
    """
    out = ROOT / "runs" / folder / f"{name}-{seed}.h5"
    sets = [word for option in (f"seed={seed}", f"threads={threads}", *options) for word in ("--set", option)]
    code = "import sys; from circuitlab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    file = str(ROOT / "experiments" / f"{experiment}.yaml")
    command = [sys.executable, "-c", code, "run", file, "-o", str(out), "--overwrite", "--json", *sets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def accuracy(found: list[dict]) -> str:
    """Test accuracy in percent, over seeds."""
    return spread([100 * one["last"]["test_accuracy"] for one in found], 2)


def unconverged(found: list[dict]) -> float:
    """Share of samples that did not reach their equilibrium in training, in percent, over seeds."""
    return 100 * sum(one["unconverged_samples"] for one in found) / sum(one["samples"] for one in found)


def line(cells: list[object] | tuple[object, ...]) -> None:
    """Print one row of a markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def heading(cells: list[str] | tuple[str, ...]) -> None:
    """Print the head of a markdown table."""
    line(cells)
    print("|---" * len(cells) + "|", flush=True)
