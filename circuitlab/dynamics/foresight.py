"""A first guess of the controlled state: the circuit's linear response to its output controller.

Linearised at the mean slopes S of a batch, control and potentials answer the controller u by two matrices with one
column for each output,

    Psi = S W^T Psi + D^T,                      Phi = W S Phi + Psi,
    psi ~ sigma'(phi) (W^T Psi) u + D^T u,      phi ~ phi_free + Phi u,

which a few steps find: a step on k columns costs k / batch of a product for every sample. A solver that begins there
needs fewer sweeps than from no control; the equations it solves are the exact ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.preconditioned import WHOLE, Minibatch

NEAR, MOST = 0.03, 6
"""Accuracy of the two matrices that is enough, and most steps towards it."""
DEAREST = 1.5
"""Products per sample above which a guess is not worth its price."""


@dataclass(frozen=True)
class Response:
    """The linear response to the output controller.

    Args:
        raw: W^T Psi, [unit, output unit]. phi: Phi, [unit, output unit].
        extra: what finding and using them costs, in products with all recurrent weights per sample of the batch.
    """

    raw: Tensor
    phi: Tensor
    extra: float


def steps(rate: float) -> int:
    """Steps that bring both matrices within `NEAR`, from the rate of the free state's first steps, in (0, 1)."""
    return min(MOST, max(1, math.ceil(math.log(NEAR) / math.log(min(max(rate, 0.01), 0.99)))))


def price(system: CircuitSystem, count: int, samples: int) -> float:
    """Products per sample: `count` steps of each matrix on as many columns as there are outputs, and their use."""
    outputs = system.output.stop - system.output.start
    return 2 * count * outputs / samples + 2 * system.size * outputs / system.synapses


def respond(system: CircuitSystem, phi: Tensor, count: int, minibatch: Minibatch = WHOLE) -> Response:
    """Find the response at the mean slopes of some potentials, [unit, sample], by `count` sweeps of each matrix."""
    outputs = system.output.stop - system.output.start
    mean = minibatch.mean(system.slopes(phi, system.rates(phi)))
    slopes = mean
    if system.controlled is not None:
        slopes = slopes * system.controlled
    columns = torch.zeros(system.size, outputs, dtype=phi.dtype, device=phi.device)
    columns[system.output].fill_diagonal_(1)
    raw, psi = torch.zeros_like(columns), columns.clone()
    for _ in range(count):
        old = psi.clone()
        for rows in system.backward_order:
            raw[rows].zero_()
            for back in system.tied.get(rows.start, []):
                back.route.add((psi if back.fresh else old)[back.route.source], raw[rows])
            psi[rows] = slopes[rows] * raw[rows] + columns[rows]
    return Response(raw, spread(system, mean, psi, psi, count), price(system, count, phi.shape[1]))


def spread(system: CircuitSystem, slopes: Tensor, psi: Tensor, start: Tensor, count: int) -> Tensor:
    """How potentials answer controls, Phi = W S Phi + Psi, by `count` sweeps from a start, all [unit, column].

    With gap junctions Phi = (W S Phi + G Phi) / (1 + d) + Psi, for controls that are divided by 1 + d already.

    Args:
        slopes: S, [unit, 1].
    """
    moved = start.clone()
    if system.junctions is not None:
        share = 1 / (1 + system.junctions.loads())
        for _ in range(count):
            arriving = system.arriving(slopes * moved, torch.zeros_like(moved))
            system.junctions.add_neighbours(moved, arriving)
            moved = arriving * share + psi
        return moved
    for _ in range(count):
        rates = slopes * moved
        for plan in system.plans:
            out = moved[plan.rows].copy_(psi[plan.rows])
            for route in plan.late:
                route.add(rates[route.source], out)
            for route in plan.early:
                route.add(slopes[route.source] * moved[route.source], out)
    return moved
