"""Tasks on small circuits in float64, and finite differences of any function of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import OutputController, leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.choose import SolveSettings, find
from circuitlab.solve.levenberg import fits


def task(
    circuit: Circuit,
    *,
    losses: tuple[str, ...] = ("cross_entropy",),
    controller: OutputController | None = None,
    pathway=None,
    **settings,
) -> Task:
    """A task by dynamic inversion with tied feedback, tolerance 1e-12."""
    compiled = CompiledCircuit(circuit, torch.float64)
    system = CircuitSystem(compiled)
    parts = [(LOSSES[losses[i % len(losses)]], rows) for i, rows in enumerate(compiled.outputs.values())]
    settings = {"tolerance": 1e-12, **settings}
    return Task(
        system,
        OutputLoss(parts),
        pathway(system) if pathway else DynamicInversion(Feedback()),
        controller or leaky_integral(1.0, 100.0),
        SolveSettings(**settings),
    )


def batch(task: Task, samples: int = 4, seed: int = 0) -> Batch:
    """Normal inputs and one-hot targets in every output population."""
    rng = np.random.default_rng(seed)
    compiled = task.system.compiled  # type: ignore[attr-defined]
    target = np.zeros((compiled.output_size, samples))
    for rows in compiled.outputs.values():
        target[rows.start + rng.integers(rows.stop - rows.start, size=samples), np.arange(samples)] = 1
    x = rng.standard_normal((compiled.input_size, samples))
    return Batch(torch.as_tensor(x), torch.as_tensor(target))


def finite_differences(
    task: Task,
    function: Callable[[], torch.Tensor],
    per_parameter: int = 3,
    step: float = 1e-5,
) -> dict[str, list[tuple[int, float]]]:
    """Central differences of a function of the circuit's parameters, at some entries of each; a conductance that is
    listed in both directions moves as the one number that it is."""
    links = task.system.compiled.links  # type: ignore[attr-defined]
    found: dict[str, list[tuple[int, float]]] = {}
    for name, parameter in task.system.compiled.parameters_by_name().items():  # type: ignore[attr-defined]
        found[name] = []
        for index in range(0, len(parameter), max(1, len(parameter) // per_parameter)):
            values, moved = [], [index]
            if name in links and links[name].projection.kind == "electrical":
                moved = same_pair(links[name].projection, index)
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[moved] += sign * step
                    values.append(float(function()))
                    parameter[moved] -= sign * step
            found[name].append((index, (values[0] - values[1]) / (2 * step)))
    return found


def same_pair(projection: Projection, index: int) -> list[int]:
    """The edges of a gap junction: one, or two where it is listed in both directions."""
    e = projection.edges
    ends = (int(e.source[index]), int(e.target[index]))
    pairs = list(zip(e.source.tolist(), e.target.tolist(), strict=True))
    turned = ends[::-1] if projection.source == projection.target else ends
    return sorted({index, *(n for n, pair in enumerate(pairs) if pair == turned)})


def energy(task: Task, batch: Batch, at: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Sum over samples of H + L/alpha at the controlled equilibrium, H = 1/2 |psi|^2, as a function of the weights.

    `at` is the equilibrium whose branch is meant, [row, sample] (there may be several); what it becomes when a weight
    moves a little is followed from there by Newton steps where there is an energy without kinks, so that differences
    are taken on one branch of solutions (and fast).
    """

    def value() -> torch.Tensor:
        drive = task.system.drive(batch.x)
        problem = Controlled(
            task.system, drive, batch.target, task.loss, task.controller, at[: task.system.size]
        )
        equations = task.pathway.equations(problem)
        newton = fits(equations) and not task.system.kinked  # type: ignore[attr-defined]
        settings = replace(task.settings, method="levenberg") if newton else task.settings
        found = find(equations, settings, at)
        assert bool(found.converged.all())
        alpha = task.controller.alpha
        loss = task.loss.value(task.outputs(found.fields.phi), batch.target)
        return (0.5 * found.fields.psi.square().sum(0) + (loss / alpha if alpha else 0 * loss)).sum()

    return value


def free_loss(task: Task, batch: Batch) -> torch.Tensor:
    """Sum over samples of the loss at the free equilibrium."""
    free = task.free(task.system.drive(batch.x))
    assert bool(free.converged.all())
    return task.loss.value(task.outputs(free.fields.phi), batch.target).sum()
