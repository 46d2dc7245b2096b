"""The cost of control on large sparse circuits of excitatory and inhibitory neurons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuitlab.bench.circuits import balanced_circuit, random_batch, task_of
from circuitlab.bench.cost import FAST, PLAIN, contenders, control_name, mark_changed
from circuitlab.bench.results import Cell, Table
from circuitlab.experiment.assemble import DTYPES
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.base import default_tolerance

COLUMNS = ("radius", "input sd", "alpha", "LC", "RBP", "RBP acc.", "both", "LC/RBP", "LC/RBP acc.", "missed")


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        neurons, density, outputs: of the circuits.
        radii: spectral radii. inputs: standard deviations of each neuron's input.
        alphas: leaks of the controller, per sample.
        batch, dtype, seed: of the samples.
    """

    neurons: int = 5000
    density: float = 0.01
    outputs: int = 20
    radii: tuple[float, ...] = (0.9, 1.2, 1.5)
    inputs: tuple[float, ...] = (0.5, 2.0)
    alphas: tuple[float, ...] = (0.1,)
    batch: int = 8
    dtype: str = "float64"
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """One circuit, input and leak.

    Args:
        products: per contender's name, of every sample. converged: likewise, both phases.
        seconds: of a batch, by name.
    """

    radius: float
    deviation: float
    alpha: float
    products: dict[str, list[float]]
    converged: dict[str, list[bool]]
    seconds: dict[str, float]

    def row(self) -> list[Cell]:
        """Means over the samples that both of a pair solved."""
        control = control_name(self.alpha)
        both = self._both(control, PLAIN)
        means = [self._mean(name, self.converged[name]) for name in (control, PLAIN, FAST)]
        missed = " / ".join(str(sum(not c for c in self.converged[name])) for name in (control, PLAIN, FAST))
        ratios = [self.ratio(control, PLAIN), self.ratio(control, FAST)]
        return [self.radius, self.deviation, self.alpha, *means, sum(both), *ratios, missed]

    def ratio(self, above: str, below: str) -> float | None:
        """Products of one contender over another's, summed over the samples that both solved; None without any."""
        both = self._both(above, below)
        if not any(both):
            return None
        return self._sum(above, both) / self._sum(below, both)

    def _both(self, a: str, b: str) -> list[bool]:
        return [x and y for x, y in zip(self.converged[a], self.converged[b], strict=True)]

    def _sum(self, name: str, which: Sequence[bool]) -> float:
        return sum(p for p, used in zip(self.products[name], which, strict=True) if used)

    def _mean(self, name: str, which: Sequence[bool]) -> float | None:
        return self._sum(name, which) / sum(which) if any(which) else None


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Measure every radius, input and leak; tables and raw numbers."""
    cases = []
    for radius in settings.radii:
        circuit = balanced_circuit(
            settings.neurons, settings.density, radius, settings.outputs, settings.seed
        )
        task = task_of(circuit, settings.alphas[0], DTYPES[settings.dtype])
        for deviation in settings.inputs:
            batch = random_batch(task, settings.batch, deviation, settings.seed)
            cases += [_case(task, batch, radius, deviation, alpha) for alpha in settings.alphas]
    tolerance = default_tolerance(DTYPES[settings.dtype])
    neurons = f"{settings.neurons:,} excitatory and inhibitory neurons, {100 * settings.density:g}% joined"
    title = f"Products with W per sample: {neurons}, {settings.dtype}, tolerance {tolerance:g}"
    rows = [case.row() for case in cases]
    return [Table(title, COLUMNS, rows)], {"sparse": [dict(vars(case)) for case in cases]}


def _case(task: Task, batch: Batch, radius: float, deviation: float, alpha: float) -> Case:
    products, converged, seconds = {}, {}, {}
    for name, contender in contenders(task, [alpha]).items():
        mark_changed(contender.task)
        begun = time.perf_counter()
        outcome = contender.rule.outcome(contender.task, batch)
        seconds[name] = time.perf_counter() - begun
        products[name] = (outcome.free.products + outcome.credit.products).tolist()
        converged[name] = outcome.used.tolist()
    return Case(radius, deviation, alpha, products, converged, seconds)
