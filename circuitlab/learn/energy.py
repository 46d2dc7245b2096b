"""Choice of the lower-energy equilibrium: some samples of a batch are solved again by descent from the free state.

There can be several controlled equilibria, and an accelerated iteration may find one that descent from the free state
would not. The energy 1/2 |f(phi)|^2 + L/alpha tells which costs less control.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.dynamics.equations import Energy
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import find

ROUNDING = 100
"""Units of rounding error, of the energy and of half the squared potentials, that a lower energy must exceed."""


def energy_floor(energy: Energy, phi: Tensor, tolerance: float) -> Tensor:
    """Differences of energy that rounding and the tolerance can make, [sample].

    Near an equilibrium the energy is quadratic in the state's error, so that a share of `tolerance` leaves room for
    states that are wrong by a few hundred tolerances.
    """
    size = energy.value(phi).abs() + 0.5 * phi.square().sum(0)
    return (ROUNDING * torch.finfo(phi.dtype).eps + tolerance) * size


@torch.no_grad()
def checked(
    task: Task, drive: Tensor, batch: Batch, free: Solution, found: Solution
) -> tuple[Solution, int, int]:
    """Solve the batch's first `task.check` samples again by damped Newton descent from the free state.

    Where the descent converges to an energy lower by more than rounding and tolerance, or the first solution had not
    converged, its equilibrium is taken.

    Args:
        drive: U x + b, [unit, sample].
        free, found: the free and the controlled equilibrium.

    Returns:
        The controlled equilibrium to use, how many samples were checked, and how many had a lower energy.

    Raises:
        CircuitError: the equations have no energy.
    """
    count = min(task.check, drive.shape[1])
    some = torch.arange(count, device=drive.device)
    one = Controlled(
        task.system,
        drive[:, some],
        batch.target[:, some],
        task.loss,
        task.controller,
        free.fields.phi[:, some],
    )
    equations = task.pathway.equations(one)
    again = find(equations, replace(task.settings, method="levenberg", thorough=True))
    energy = equations.energy()
    assert energy is not None, "levenberg refuses equations without an energy"
    phi, before = again.fields.phi, found.fields.phi[:, some]
    floor = energy_floor(energy, before, task.settings.at(phi.dtype))
    lower = energy.value(phi) < energy.value(before) - floor
    lower &= again.converged & found.converged[some]
    wins = lower | (again.converged & ~found.converged[some])
    solution = _with(task, drive, batch, found, again, some, wins)
    return solution, count, int(lower.sum())


def _with(
    task: Task, drive: Tensor, batch: Batch, found: Solution, other: Solution, columns: Tensor, wins: Tensor
) -> Solution:
    """A solution with the samples that win replaced; iterations and products of all that were solved again added."""
    chosen = columns[wins]
    state, converged, residual, kinks = (
        t.clone() for t in (found.state, found.converged, found.residual, found.kinks)
    )
    state[:, chosen], converged[chosen] = other.state[:, wins], other.converged[wins]
    residual[chosen], kinks[chosen] = other.residual[wins], other.kinks[wins]
    whole = Controlled(task.system, drive, batch.target, task.loss, task.controller, found.fields.phi)
    return replace(
        found,
        fields=task.pathway.equations(whole).fields(state),
        state=state,
        converged=converged,
        residual=residual,
        kinks=kinks,
        iterations=found.iterations.index_add(0, columns, other.iterations),
        products=found.products.index_add(0, columns, other.products),
        method=f"{found.method}, {other.method}",
    )
