"""Circuits of many kinds, their exact equilibria by scipy on the dense twin, and the equations that solvers see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import OwnFeedback
from circuitlab.dynamics.equations import Equations
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import AdjointEquations
from circuitlab.learn.base import Batch, Task
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin, cross_entropy


def chain(*, back: bool = False, later: bool = False, uncontrolled: bool = False, seed: int = 0) -> Circuit:
    """x -> a -> (e <-> i, each onto itself) -> b -> y0 and y1, the recurrent group in the middle.

    Args:
        back: y0 also projects to e (so that the outputs are in the recurrent group).
        later: y0 also projects to b2, behind it, which projects to y1.
        uncontrolled: b has no control.
    """
    rng = np.random.default_rng(seed)
    sizes = {"x": 4, "a": 5, "e": 6, "i": 3, "b": 4, "b2": 3, "y0": 3, "y1": 2}
    pops = [
        population("x", "input", 4, activation="linear"),
        population("a", "pyramidal", 5, activation="softplus", bias=0.1 * rng.standard_normal(5)),
        population("e", "pyramidal", 6, activation="tanh", bias=0.1 * rng.standard_normal(6)),
        population("i", "interneuron", 3, activation="sigmoid"),
        population("b", "unit", 4, activation="elu", controlled=not uncontrolled),
        *([population("b2", "unit", 3, activation="tanh")] if later else []),
        population("y0", "output", 3, bias=0.1 * rng.standard_normal(3)),
        population("y1", "output", 2),
    ]
    pairs = ["x_a", "a_e", "x_e", "e_e", "e_i", "i_e", "i_i", "e_b", "a_b", "b_y0", "e_y0", "b_y1"]
    pairs += (["y0_e"] if back else []) + (["y0_b2", "b2_y1"] if later else [])
    projections = []
    for name in pairs:
        source, target = name.split("_")
        gain = 0.3 if name == "y0_e" else 0.7
        projections.append(
            projection(name, source, target, sparse(rng, sizes[target], sizes[source], 0.7, gain))
        )
    return circuit(pops, projections)


def forward(*, later: bool = False, seed: int = 0) -> Circuit:
    """x -> a -> b -> y0, and with `later` y0 -> b2 -> y1: acyclic."""
    rng = np.random.default_rng(seed)
    sizes = {"x": 4, "a": 5, "b": 4, "b2": 3, "y0": 3, "y1": 2}
    pops = [
        population("x", "input", 4, activation="linear"),
        population("b", "unit", 4, activation="tanh"),  # in the file before what it reads
        population("a", "pyramidal", 5, activation="softplus", bias=0.1 * rng.standard_normal(5)),
        *([population("b2", "unit", 3, activation="tanh")] if later else []),
        population("y0", "output", 3),
        *([population("y1", "output", 2)] if later else []),
    ]
    pairs = ["x_a", "a_b", "x_b", "b_y0", "a_y0", *(["y0_b2", "b2_y1"] if later else [])]
    projections = []
    for name in pairs:
        source, target = name.split("_")
        projections.append(
            projection(name, source, target, sparse(rng, sizes[target], sizes[source], 0.8, 1.0))
        )
    return circuit(pops, projections)


def dense(units: int = 64, gain: float = 0.9, seed: int = 0) -> Circuit:
    """x -> r -> y with every pair of the tanh units in r joined, weights normal with spectral radius about `gain`."""
    rng = np.random.default_rng(seed)
    pops = [
        population("x", "input", 8, activation="linear"),
        population("r", "unit", units, activation="tanh"),
        population("y", "output", 4),
    ]
    projections = [
        projection("x_r", "x", "r", sparse(rng, units, 8, 1.0, 1.0)),
        projection("r_r", "r", "r", sparse(rng, units, units, 1.0, gain)),
        projection("r_y", "r", "y", sparse(rng, 4, units, 1.0, 1.0)),
    ]
    return circuit(pops, projections)


def with_bursts(base: Circuit, seed: int = 1) -> Circuit:
    """A circuit with burst-coded projections from its outputs and between its recurrent populations."""
    rng = np.random.default_rng(seed)
    projections = dict(base.projections)
    for source, target in (("y0", "e"), ("e", "e")):
        sizes = base.populations[target].size, base.populations[source].size
        name = f"{source}_{target}_burst"
        projections[name] = projection(name, source, target, sparse(rng, *sizes, 0.8, 0.4), "apical", "burst")
    return replace(base, projections=projections)


# Recurrence is weak, so that there is one equilibrium; the relu has a seed at which no neuron rests on its kink.
MANY: dict[str, Callable[[], Circuit]] = {
    "two populations": lambda: random_circuit(0, gain=0.4),
    "dale": lambda: random_circuit(1, dale=True, gain=0.3),
    "two outputs": lambda: random_circuit(2, outputs=(3, 2), gain=0.4),
    "relu": lambda: random_circuit(0, activation="relu", gain=0.5),
    "chain": lambda: chain(),
    "outputs project back": lambda: chain(back=True),
    "an output feeds a later population": lambda: chain(later=True),
    "not controlled": lambda: chain(uncontrolled=True),
    "acyclic": lambda: forward(),
    "acyclic past an output": lambda: forward(later=True),
}


def gradient_of(task: Task, target: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """dL/dy of the cross-entropies of all output populations together."""
    rows = [part for _, part in task.loss.parts]
    parts = [cross_entropy(target[r]) for r in rows]
    return lambda y: np.concatenate([part(y[r]) for part, r in zip(parts, rows, strict=True)])


def feedback_matrix(task: Task, twin: Twin) -> np.ndarray:
    """S of dynamic inversion as a dense matrix: W^T, random weights, or the burst projections."""
    feedback = task.pathway.feedback  # type: ignore[attr-defined]
    if not isinstance(feedback, OwnFeedback):
        return twin.w.T
    if not feedback.weights():
        return twin.s
    s = np.zeros((twin.n, twin.n))
    for name, values in feedback.weights().items():
        p = task.system.compiled.circuit.projections[name]  # type: ignore[attr-defined]
        to, of = twin.rows[p.target].start, twin.rows[p.source].start
        np.add.at(s, (of + p.edges.source, to + p.edges.target), values.numpy())
    return s


def exact_free(twin: Twin, b: Batch) -> torch.Tensor:
    """The free equilibrium by scipy, [unit, sample]."""
    return torch.tensor(np.stack([twin.free(x) for x in b.x.t().numpy()], axis=1))


def exact_controlled(task: Task, twin: Twin, b: Batch) -> torch.Tensor:
    """phi, psi, u by scipy, [row, sample]."""
    s, alpha = feedback_matrix(task, twin), task.controller.alpha
    found = [
        twin.controlled_root(x, gradient_of(task, t), alpha, s)
        for x, t in zip(b.x.t().numpy(), b.target.t().numpy(), strict=True)
    ]
    return torch.tensor(np.stack(found, axis=1))


def exact_adjoint(twin: Twin, phi: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """psi = sigma'(phi) (W^T psi) + L psi + D^T error by a linear solve, [unit, sample]."""
    found = []
    for one, wrong in zip(phi.t().numpy(), error.t().numpy(), strict=True):
        response = np.eye(twin.n) - twin.slope(one)[:, None] * twin.w.T - twin.l
        found.append(np.linalg.solve(response, twin.d.T @ wrong))
    return torch.tensor(np.stack(found, axis=1))


def controlled_equations(task: Task, b: Batch, phi: torch.Tensor | None = None) -> Equations:
    """The controlled equations of a batch, starting from phi (zero where None)."""
    drive = task.system.drive(b.x)
    phi = torch.zeros_like(drive) if phi is None else phi
    return task.pathway.equations(Controlled(task.system, drive, b.target, task.loss, task.controller, phi))


def adjoint_equations(task: Task, b: Batch, phi: torch.Tensor, preconditioner=None) -> AdjointEquations:
    """The second phase of backpropagation at phi."""
    y = phi[task.system.output]
    error, rounding = task.loss.gradient(y, b.target), task.loss.rounding(y, b.target)
    return AdjointEquations(task.system, phi, task.system.drive(b.x), -error, rounding, preconditioner)


def image_of(equations: Equations, state: torch.Tensor) -> torch.Tensor:
    """One sweep."""
    image = torch.empty_like(state)
    equations.sweep(state, image)
    return image
