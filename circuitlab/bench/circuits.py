"""Circuits made for measuring: random recurrent ones, and excitatory-inhibitory ones under Dale's law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges
from circuitlab.learn.base import Batch, Task
from circuitlab.report.spectrum import spectral_radius
from circuitlab.solve.choose import SolveSettings

EXCITATORY = 0.8
"""Share of excitatory neurons."""
TAU_U_MS = 100.0


def random_edges(generator: np.random.Generator, targets: int, sources: int, density: float) -> Edges:
    """Each target with the same number of different sources, drawn nearly uniformly; standard normal weights."""
    indegree = min(max(1, round(density * sources)), sources)
    if indegree == sources:
        source = np.tile(np.arange(sources), targets)
    else:
        # sorted numbers from a range too small by indegree - 1 become different ones when the k-th is raised by k
        rows = generator.integers(0, sources - indegree + 1, (targets, indegree), dtype=np.int64)
        source = (np.sort(rows, axis=1) + np.arange(indegree)).reshape(-1)
    target = np.repeat(np.arange(targets), indegree)
    weight = generator.standard_normal(len(source))
    return edges(target, source, weight)


def edges(target: np.ndarray, source: np.ndarray, weight: np.ndarray) -> Edges:
    """Edges from arrays sorted by target, then source, each of shape [edge]."""
    ones = np.ones(len(source), dtype=np.int32)
    return Edges(source.astype(np.int32), target.astype(np.int32), weight.astype(np.float64), ones)


def _circuit(name: str, seed: int, populations: list[Population], projections: list[Projection]) -> Circuit:
    return Circuit(name, "", seed, {p.name: p for p in populations}, {p.name: p for p in projections})


def _projection(name: str, source: str, target: str, e: Edges, plastic: bool = True) -> Projection:
    return Projection(name, source, target, "soma", "rate", plastic, "auto", e)


def random_circuit(neurons: int, density: float, radius: float, outputs: int, seed: int) -> Circuit:
    """Recurrent tanh neurons with an input of their own each, read by linear outputs.

    Args:
        density: share of the pairs of neurons that are joined, in (0, 1].
        radius: of the circular law that the eigenvalues of the recurrent weights follow, dimensionless.
    """
    generator = np.random.default_rng(seed)
    inner = random_edges(generator, neurons, neurons, density)
    indegree = len(inner) / neurons
    inner = replace(inner, weight=inner.weight * radius / np.sqrt(indegree))
    outer = random_edges(generator, outputs, neurons, 1.0)
    outer = replace(outer, weight=outer.weight / np.sqrt(neurons))
    return _circuit(
        "random",
        seed,
        [
            Population("x", "input", neurons, activation="linear"),
            Population("r", "unit", neurons),
            Population("y", "output", outputs, activation="linear"),
        ],
        [
            _projection("x_r", "x", "r", _own(neurons), plastic=False),
            _projection("r_r", "r", "r", inner),
            _projection("r_y", "r", "y", outer),
        ],
    )


def _own(neurons: int) -> Edges:
    index = np.arange(neurons)
    return edges(index, index, np.ones(neurons))


def balanced_circuit(neurons: int, density: float, radius: float, outputs: int, seed: int) -> Circuit:
    """Excitatory and inhibitory tanh neurons under Dale's law, excitation and inhibition balanced in the mean.

    Weights are absolute values of normal numbers, inhibitory ones stronger by the ratio of the populations' sizes; all
    recurrent ones are then scaled to the spectral radius.

    Raises:
        CircuitError: the spectral radius of the drawn weights was not found.
    """
    generator = np.random.default_rng(seed)
    sizes = {"e": round(EXCITATORY * neurons), "i": neurons - round(EXCITATORY * neurons)}
    strength = {"e": 1.0, "i": -sizes["e"] / sizes["i"]}
    populations = [Population(f"x_{k}", "input", n, activation="linear") for k, n in sizes.items()]
    populations += [
        Population("e", "unit", sizes["e"], sign="excitatory"),
        Population("i", "interneuron", sizes["i"], activation="tanh", sign="inhibitory"),
        Population("y", "output", outputs, activation="linear"),
    ]
    projections = [_projection(f"x_{k}_{k}", f"x_{k}", k, _own(n), plastic=False) for k, n in sizes.items()]
    for source in sizes:
        for target in (*sizes, "y"):
            count = outputs if target == "y" else sizes[target]
            drawn = random_edges(generator, count, sizes[source], 1.0 if target == "y" else density)
            weight = strength[source] * np.abs(drawn.weight) / np.sqrt(density * neurons)
            if target == "y":
                weight *= np.sqrt(density)
            drawn = replace(drawn, weight=weight)
            projections.append(_projection(f"{source}_{target}", source, target, drawn))
    drawn = _circuit("balanced", seed, populations, projections)
    found = spectral_radius(drawn)
    if not found:
        raise CircuitError(
            f"the spectral radius of {neurons:,} drawn neurons was not found; give another --seed"
        )
    scaled = [
        p
        if p.target == "y" or p.source.startswith("x_")
        else replace(p, edges=replace(p.edges, weight=p.edges.weight * radius / found))
        for p in projections
    ]
    return _circuit("balanced", seed, populations, scaled)


def task_of(circuit: Circuit, alpha: float, dtype: torch.dtype, loss: str = "cross_entropy") -> Task:
    """Control by dynamic inversion with tied feedback and default solving."""
    compiled = CompiledCircuit(circuit, dtype)
    losses = OutputLoss([(LOSSES[loss], rows) for rows in compiled.outputs.values()])
    system = CircuitSystem(compiled)
    controller = leaky_integral(alpha, TAU_U_MS)
    return Task(system, losses, DynamicInversion(Feedback()), controller, SolveSettings())


def random_batch(task: Task, samples: int, deviation: float, seed: int) -> Batch:
    """Normal inputs of a standard deviation, and random classes."""
    generator = np.random.default_rng(seed)
    compiled = task.system.compiled  # type: ignore[attr-defined]
    x = deviation * generator.standard_normal((compiled.input_size, samples))
    target = np.zeros((compiled.output_size, samples))
    target[generator.integers(compiled.output_size, size=samples), np.arange(samples)] = 1
    return Batch(torch.as_tensor(x, dtype=compiled.dtype), torch.as_tensor(target, dtype=compiled.dtype))
