"""Tables and pictures that the commands share, and where an experiment comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuitlab.report.plots import STYLE
from circuitlab.spec.circuit import CircuitSpec
from circuitlab.spec.experiment import ExperimentSpec, load_experiment

ROOT = Path(__file__).resolve().parents[2]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
SOFT = "loss={name: cross_entropy, soft_targets: 0.01}"


def show(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        cells = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |", flush=True)


def strict(value: Any) -> Any:
    """As strict JSON has it: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def panels(count: int, width: float = 4.6, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with so many panels side by side, in so many rows; the panels row after row."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * count + 0.6, 4.2 * rows), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(np.ravel(figure.subplots(rows, count)))


def experiment(name: str, *overrides: str, circuit: CircuitSpec | None = None) -> ExperimentSpec:
    """An experiment file of this project, with changes."""
    return load_experiment(ROOT / "experiments" / f"{name}.yaml", ["record={}", *overrides], circuit=circuit)
