"""One circuit file at full size: time and peak memory of building, compiling, both equilibria and one local update."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from circuitlab.bench.circuits import random_circuit, task_of
from circuitlab.bench.machine import reset_peak, resident
from circuitlab.bench.results import Cell, Table
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.base import Solution
from circuitlab.spec.circuit import CircuitSpec

RATE = 1e-3
"""Step along the update, dimensionless."""


@dataclass
class Reading:
    """What one circuit cost.

    Args:
        seconds, processor: of each part, by the clock and of the processor.
        peak: bytes beyond the program at the highest point of each part and all before it.
        free, controlled: whether each equilibrium was found, in how many iterations, with what residual.
        changed: share of the plastic synapses that the update moved.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float | None] = field(default_factory=dict)
    neurons: int = 0
    synapses: int = 0
    edges: int = 0
    free: dict[str, float] = field(default_factory=dict)
    controlled: dict[str, float] = field(default_factory=dict)
    changed: float = 0.0

    @property
    def bytes_per_synapse(self) -> float | None:
        """Highest memory beyond the program, over synapses with parallel ones counted."""
        highest = [value for value in self.peak.values() if value is not None]
        return max(highest) / self.synapses if highest and self.synapses else None


def run(spec: CircuitSpec, alpha: float, seed: int) -> tuple[list[Table], dict[str, Any]]:
    """Measure a circuit; tables and raw numbers.

    Args:
        alpha: leak of the controller.
        seed: of the circuit, where its file has none, and of the one sample.
    """
    _settle(task_of(random_circuit(64, 0.25, 0.9, 4, 0), alpha, torch.float32), Reading(), 0)
    reading = Reading()
    before = resident("VmRSS")
    with _part(reading, "build", before):
        circuit = build(spec, seed)
    _count(circuit, reading)
    with _part(reading, "compile", before):
        task = task_of(circuit, alpha, torch.float32)
        for link in task.system.compiled.links.values():  # type: ignore[attr-defined]
            link.kernel.current()
    _settle(task, reading, seed, before)
    each = reading.bytes_per_synapse
    peaks = {part: None if value is None else value / 1e9 for part, value in reading.peak.items()}
    rows: list[list[Cell]] = [
        [part, reading.seconds[part], reading.processor[part], peaks[part]] for part in peaks
    ]
    head: list[Cell] = [spec.circuit, spec.scale, reading.neurons, reading.synapses, reading.edges]
    found = [
        [phase, bool(one["converged"]), int(one["iterations"]), one["residual"]]
        for phase, one in (("free", reading.free), ("controlled", reading.controlled))
    ]
    tables = [
        Table("The circuit", ("circuit", "scale", "neurons", "synapses", "edges"), [head]),
        Table(
            f"Time and peak memory beyond the program, one sample, float32, alpha {alpha:g}",
            ("part", "s", "processor, s", "peak, GB"),
            rows,
            "" if each is None else f"peak memory: {each:.1f} bytes per synapse",
        ),
        Table("Equilibria", ("equilibrium", "converged", "iterations", "residual"), found),
    ]
    return tables, {**vars(reading), "bytes_per_synapse": each}


def _count(circuit: Circuit, reading: Reading) -> None:
    reading.neurons = sum(circuit.populations[name].size for name in circuit.populations)
    reading.edges = circuit.synapses
    reading.synapses = sum(int(p.edges.multiplicity.sum()) for p in circuit.projections.values())


def _settle(task: Task, reading: Reading, seed: int, before: int | None = None) -> None:
    """Both equilibria of one sample, and one update of every plastic synapse by least control, applied."""
    compiled = task.system.compiled  # type: ignore[attr-defined]
    generator = np.random.default_rng(seed)
    x = torch.as_tensor(generator.random((compiled.input_size, 1)), dtype=compiled.dtype)
    target = torch.zeros(compiled.output_size, 1, dtype=compiled.dtype)
    target[0] = 1
    batch = Batch(x, target)
    with _part(reading, "free equilibrium", before):
        drive = task.system.drive(batch.x)
        free = task.free(drive)
    with _part(reading, "controlled equilibrium", before):
        controlled = task.controlled(drive, batch.target, free, batch.x)
    reading.free, reading.controlled = _found(free), _found(controlled)
    with _part(reading, "update", before), torch.no_grad():
        updates = task.system.update(controlled.fields.phi, controlled.fields.psi, batch.x)
        moved = total = 0
        for name, parameter in compiled.plastic().items():
            update = updates.pop(name)
            moved, total = moved + int(torch.count_nonzero(update)), total + update.numel()
            parameter.add_(update, alpha=RATE)
        compiled.enforce_sign()
    reading.changed = moved / max(total, 1)


def _found(solution: Solution) -> dict[str, float]:
    return {
        "converged": float(solution.converged.all()),
        "iterations": float(solution.iterations.max()),
        "residual": float(solution.residual.max()),
    }


@contextmanager
def _part(reading: Reading, name: str, before: int | None) -> Iterator[None]:
    """Time a part, and note the highest memory during it."""
    reset_peak()
    start, used = time.perf_counter(), time.process_time()
    yield
    reading.seconds[name], reading.processor[name] = time.perf_counter() - start, time.process_time() - used
    highest = resident("VmHWM")
    reading.peak[name] = None if before is None or highest is None else float(highest - before)
