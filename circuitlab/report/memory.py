"""How much memory a circuit takes beyond Python and torch themselves, and what for.

A process on a circuit has three heights: building it, a training step on a minibatch, and an evaluation. None grows
with the iterations that a solver takes, nor with the steps of a run. What recordings keep and the data set itself come
on top, and where the solver finds a preconditioner worth its build, that is up to four dense matrices of the recurrent
group for a while. What the memory of an accelerated solver comes to hold in a slow circuit is told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab import native
from circuitlab.compile.kernels import Kernel
from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.learn.deep_feedback_control import BLOCK
from circuitlab.learn.evaluate import CONTROL_PORTION, PORTION
from circuitlab.learn.rules import RULES
from circuitlab.solve.base import COMPRESS_AT
from circuitlab.solve.choose import room
from circuitlab.spec.combinations import LINEAR, default_control

DEPTH = 4
"""Differences that an accelerated solver remembers, unless `solve.memory` says otherwise."""
SOLVER_BUFFERS = (
    ("start", 1.0),
    ("present and best state, image, and where the best image came from", 4.0),
    ("history: differences of states and residuals", 2.0 * DEPTH),
    ("last state and residual", 2.0),
)
"""What a solver holds, in states of the equations, [row, sample]."""
RESIDUAL, PRODUCTS = 1.0, float(DEPTH)
"""Without the compiled loops, for a while in every iteration: the residual in states of the equations, and its
products with the history, one block after the other, in [unit, sample]."""
SWEEP = 5.0
"""What sweeps hold, in [unit, sample]: prediction, potential, rate, rate before and raw control."""
HELD_FREE = 3.0
"""What lies beside the solver in every phase, in [unit, sample]: the drive, the free state and its (zero) control."""
HELD_ADJOINT = 1.0
"""Further, in a baseline's second phase: what its sweeps write beside the control."""
BEST_GATHERED = COMPRESS_AT
"""Once the samples still moving are gathered: their best states, in states of the equations,"""
HELD_GATHERED = 2 * COMPRESS_AT - (1 - COMPRESS_AT) * SWEEP
"""and in [unit, sample] their drive and potentials, less what their sweeps are smaller."""
DESCENT_STATES = 3.0
"""What a descent of the energy holds in states of the equations (start, present and best state),"""
DESCENT = 4.0 * DEPTH + 5.0 + 9.0
"""and in [unit, sample]: steps and changes of the gradient (two for each that `solve.memory` counts); where it stands
and goes, two gradients and the direction; and what evaluating the energy takes for a while."""
HELD_CONTRAST = 3.0
"""Further, in [unit, sample], where the credit lies between two equilibria: the first one of them."""
REAL_TIME = 2.0 * BLOCK + 6.0
"""What a rule that learns during the dynamics holds, in [unit, sample]: its factors of a block of time steps, and the
circuit's state."""
BUILDING_BYTES, KEPT_BYTES = 3, 10
"""Per edge of the largest projection: what building holds for a while (an order, weights before conversion), and what
the allocator keeps of that and of updates afterwards."""
ADAM = 2
"""Moments of the default optimizer, in parameters; and what it holds for a while for one parameter."""


@dataclass(frozen=True)
class Memory:
    """Bytes beyond Python and torch themselves.

    Args:
        graph: edges and initial weights, kept for the run file.
        kernels: parameters, indices, transposes and whatever else the kernels store.
        learning: gradients and the optimizer's moments.
        building: height while the circuit is built.
        step: height of a training step.
        evaluating: height of an evaluation during training.
        slow: what a step takes beyond that, at most, where a recurrent circuit is slow to settle.
    """

    graph: float
    kernels: float
    learning: float
    building: float
    step: float
    evaluating: float
    slow: float

    @property
    def peak(self) -> float:
        """Height of a whole training run, where the circuit settles soon."""
        return max(self.building, self.step, self.evaluating)

    def as_dict(self) -> dict[str, float]:
        """By name, in bytes."""
        return {**vars(self), "peak": self.peak}


def graph_bytes(projection: Projection) -> int:
    """Bytes of a projection's edges and initial weights."""
    return projection.edges.nbytes


def stored_bytes(kernel: Kernel) -> int:
    """Bytes that a kernel stores once it has been used: parameters, indices and copies, each storage once, without
    what it shares with the graph."""
    kernel.current()
    tensors = [*kernel.parameters(), *kernel.buffers()]
    tensors += [
        value for part in kernel.modules() for value in vars(part).values() if isinstance(value, Tensor)
    ]
    storages: dict[int, int] = {}
    for tensor in tensors:
        parts = [tensor]
        if tensor.layout == torch.sparse_csr:
            parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        for part in parts:
            storages[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    return sum(storages.values()) - kernel.borrowed


def solving(units: int, outputs: int, samples: int, rule: str, itemsize: int) -> float:
    """Bytes at the height of a rule's equilibria: its solver's buffers and what lies beside them."""
    if "energy_based" in default_control(rule).values():
        contrast = HELD_CONTRAST if RULES[rule].contrasts else 0.0
        rows = DESCENT_STATES * (units + outputs) + (DESCENT + HELD_FREE + contrast) * units
        return rows * samples * itemsize
    per_state = sum(multiple for _, multiple in SOLVER_BUFFERS)
    controls = RULES[rule].controls
    state = mixed(units, outputs, rule) + (outputs if controls and not _direct(rule) else 0)
    gathered = BEST_GATHERED * state + HELD_GATHERED * units
    slow = 0.0 if native.available() else RESIDUAL * state + PRODUCTS * units
    beside = SWEEP + HELD_FREE + (0.0 if controls else HELD_ADJOINT)
    rows = per_state * state + beside * units + max(gathered, slow)
    if rule == "deep_feedback_control":
        rows = max(rows, (REAL_TIME + HELD_FREE) * units)
    return rows * samples * itemsize


def mixed(units: int, outputs: int, rule: str) -> int:
    """Rows that an accelerated solver mixes and remembers in the phase that carries the credit."""
    if not RULES[rule].controls:
        return units
    return units + outputs if _direct(rule) else 2 * units


def _direct(rule: str) -> bool:
    """Whether the rule's own control reaches every unit from the controller, so that psi is no state."""
    return default_control(rule).get("pathway") in LINEAR


def growth(units: int, outputs: int, samples: int, rule: str, itemsize: int) -> float:
    """Bytes that the memory of the solver grows by, at most, in a circuit that is slow to settle."""
    if "energy_based" in default_control(rule).values():
        return 0.0
    size = mixed(units, outputs, rule) * samples * itemsize
    return 2.0 * max(0, room(size) - DEPTH) * size


def predict(
    circuit: Circuit, kernels: int, *, batch: int, rule: str, dtype: torch.dtype, own: int = 0
) -> Memory:
    """The memory of training a circuit by dynamic inversion (or a baseline) with the default solver and optimizer.

    Args:
        kernels: bytes that the circuit's kernels store, see `stored_bytes`.
        batch: samples per update.
        rule: as in experiment files.
        own: bytes that random weights S of the rule's own control store.
    """
    sizes = {name: circuit.populations[name].size for name in circuit.populations}
    kinds = {name: population.type for name, population in circuit.populations.items()}
    units = sum(sizes[name] for name in circuit.units)
    outputs = sum(size for name, size in sizes.items() if kinds[name] == "output")
    inputs = sum(size for name, size in sizes.items() if kinds[name] == "input")
    projections = list(circuit.projections.values())
    parameters = [
        len(p.edges.weight if p.edges.parameters is None else p.edges.parameters)
        for p in projections
        if p.plastic
    ]
    biases = [p.size for p in circuit.populations.values() if p.bias is not None]
    plastic = (sum(parameters) + sum(biases)) * dtype.itemsize
    largest = max([*parameters, *biases], default=0) * dtype.itemsize
    graph = float(sum(graph_bytes(p) for p in projections))
    stored = kernels + own + sum(biases) * dtype.itemsize
    learning = (1 + ADAM) * plastic
    edges = max((len(p.edges) for p in projections), default=0)
    building = graph + stored + BUILDING_BYTES * edges
    there = graph + stored + KEPT_BYTES * edges + learning
    samples = (inputs + 2 * outputs) * dtype.itemsize
    updating = plastic + ADAM * largest

    def height(rule: str, count: int) -> float:
        return samples * count + solving(units, outputs, count, rule, dtype.itemsize)

    free = solving(units, outputs, PORTION, "recurrent_backprop", dtype.itemsize) - (
        HELD_ADJOINT * units * PORTION * dtype.itemsize
    )
    return Memory(
        graph=graph,
        kernels=stored,
        learning=learning,
        building=building,
        step=there + max(height(rule, batch), samples * batch + updating),
        evaluating=there + max(free, height("least_control", CONTROL_PORTION)),
        slow=growth(units, outputs, batch, rule, dtype.itemsize) if circuit.strongly_connected() else 0.0,
    )
