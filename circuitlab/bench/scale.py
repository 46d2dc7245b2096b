"""How the cost of a controlled solve grows with neurons, synapses, batch and iterations: slopes on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from circuitlab.bench.circuits import random_batch, random_circuit, task_of
from circuitlab.bench.cost import FAST, PLAIN, contenders, control_name, measure
from circuitlab.bench.results import Cell, Table
from circuitlab.bench.step import controlled_equations, iterate
from circuitlab.bench.timing import Spread, alternate, paired_ratio

ALPHA, RADIUS, INPUT, OUTPUTS = 1.0, 0.9, 1.0, 10


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        neurons: sizes of circuits with `indegree` synapses a neuron.
        densities: shares of pairs joined in a circuit of `fixed` neurons, for the axis of synapses.
        batches, iterations: the values of these axes, in a circuit of `fixed` neurons.
        indegree, fixed, batch, count: what the axes that do not vary are held at; `count` is of iterations.
        repeats: readings of each point. seed: of everything drawn.
    """

    neurons: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384, 32768)
    densities: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
    batches: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    iterations: tuple[int, ...] = (8, 16, 32, 64, 128)
    indegree: int = 64
    fixed: int = 2048
    batch: int = 16
    count: int = 20
    repeats: int = 7
    seed: int = 0


def limited(settings: Settings, largest: int) -> Settings:
    """The settings without circuits of more than so many neurons, and with no more synapses or samples than then."""
    fixed = min(settings.fixed, largest)
    return replace(
        settings,
        neurons=tuple(n for n in settings.neurons if n <= largest),
        batches=tuple(b for b in settings.batches if b <= largest // 8),
        fixed=fixed,
    )


@dataclass(frozen=True)
class Point:
    """One measured circuit.

    Args:
        axis: which of neurons, synapses, batch and iterations varies. value: its value.
        neurons, synapses, batch, iterations: all of them.
        seconds: readings of a controlled solve.
    """

    axis: str
    value: int
    neurons: int
    synapses: int
    batch: int
    iterations: int
    seconds: list[float]

    @property
    def least(self) -> float:
        """Least seconds of a solve: a busy machine only adds to them."""
        return Spread.of(self.seconds).least


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms (least squares), NaN for fewer than two points."""
    if len(values) < 2:
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Measure every axis, and the way to convergence at every size; tables and raw numbers."""
    points = [*_sizes(settings), *_densities(settings), *_others(settings)]
    axes = list(dict.fromkeys(point.axis for point in points))
    slopes = {}
    for axis in axes:
        of_axis = [p for p in points if p.axis == axis]
        slopes[axis] = slope([p.value for p in of_axis], [p.least for p in of_axis])
    summary: list[list[Cell]] = []
    for axis in axes:
        of_axis = [p for p in points if p.axis == axis]
        ends = [1e3 * p.least for p in (of_axis[0], of_axis[-1])]
        summary.append([axis, of_axis[0].value, of_axis[-1].value, *ends, slopes[axis]])
    rows: list[list[Cell]] = []
    for p in points:
        median = 1e3 * Spread.of(p.seconds).median
        each = 1e9 * p.least / (p.synapses * p.batch * p.iterations)
        rows.append([p.axis, p.neurons, p.synapses, p.batch, p.iterations, 1e3 * p.least, median, each])
    converged, raw = _converged(settings)
    tables = [
        Table(
            "Slopes of the least time of a controlled solve on logarithmic axes, float32",
            ("axis", "from", "to", "ms at first", "ms at last", "slope"),
            summary,
        ),
        Table(
            "Every point: least and median time of a controlled solve, float32",
            ("axis", "neurons", "synapses", "batch", "iterations", "ms", "median", "ns each"),
            rows,
        ),
        converged,
    ]
    return tables, {"points": [dict(vars(p)) for p in points], "slopes": slopes, "to_convergence": raw}


def _point(
    settings: Settings, axis: str, neurons: int, density: float, batches: Sequence[int]
) -> list[Point]:
    circuit = random_circuit(neurons, density, RADIUS, OUTPUTS, settings.seed)
    task = task_of(circuit, ALPHA, torch.float32)
    synapses = sum(len(link.projection.edges) for link in task.system.compiled.recurrent)  # type: ignore[attr-defined]
    found = []
    counts = settings.iterations if axis == "iterations" else (settings.count,)
    for batch in batches:
        equations = controlled_equations(task, random_batch(task, batch, INPUT, settings.seed))
        work = {str(count): iterate(task, equations, "auto", count) for count in counts}
        readings = alternate(work, settings.repeats)
        for count in counts:
            value = {"neurons": neurons, "synapses": synapses, "batch": batch, "iterations": count}[axis]
            found.append(Point(axis, value, neurons, synapses, batch, count, readings[str(count)]))
    return found


def _sizes(settings: Settings) -> list[Point]:
    found = []
    for neurons in settings.neurons:
        density = min(1.0, settings.indegree / neurons)
        found += _point(settings, "neurons", neurons, density, [settings.batch])
    return found


def _densities(settings: Settings) -> list[Point]:
    found = []
    for density in settings.densities:
        found += _point(settings, "synapses", settings.fixed, density, [settings.batch])
    return found


def _others(settings: Settings) -> list[Point]:
    density = min(1.0, settings.indegree / settings.fixed)
    return [
        *_point(settings, "batch", settings.fixed, density, settings.batches),
        *_point(settings, "iterations", settings.fixed, density, [settings.batch]),
    ]


def _converged(settings: Settings) -> tuple[Table, list[dict[str, Any]]]:
    """Products and time until both equilibria are found, by size."""
    rows: list[list[Cell]] = []
    raw = []
    control = control_name(ALPHA)
    for neurons in settings.neurons:
        circuit = random_circuit(
            neurons, min(1.0, settings.indegree / neurons), RADIUS, OUTPUTS, settings.seed
        )
        task = task_of(circuit, ALPHA, torch.float32)
        batch = random_batch(task, settings.batch, INPUT, settings.seed)
        found = measure(contenders(task, [ALPHA]), [batch])
        medians = [Spread.of(found[name].products).median for name in (control, PLAIN, FAST)]
        times = [1e3 * Spread.of(found[name].solve).least for name in (control, PLAIN)]
        ratio = paired_ratio(found[control].products, found[PLAIN].products)
        missed = " / ".join(str(sum(found[name].unconverged)) for name in (control, PLAIN, FAST))
        rows.append([neurons, *medians, ratio, *times, missed])
        raw.append({"neurons": neurons, "contenders": {name: vars(r) for name, r in found.items()}})
    title = f"Products with W per sample and ms until all is found, batch {settings.batch}, alpha {ALPHA:g}, float32"
    columns = ("neurons", "LC", "RBP", "RBP acc.", "LC/RBP", "LC, ms", "RBP, ms", "missed")
    return Table(title, columns, rows), raw
