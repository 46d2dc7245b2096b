"""With the compiled loops an iteration allocates nothing but numbers per sample, whatever the circuit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab import native
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import Feedback, InversionEquations, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.preconditioned import build
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import AdjointEquations
from circuitlab.solve.anderson import Anderson
from circuitlab.solve.base import Solver, judge
from circuitlab.solve.fixed_point import FixedPoint
from tests.oracles.allocations import allocations
from tests.oracles.circuits import circuit, population, projection, sparse
from tests.oracles.tasks import batch, task

pytestmark = pytest.mark.compiled

UNITS, OUTPUTS, SAMPLES = 150, 40, 64
SMALL = 4096
"""Bytes: 8 numbers of every sample, which is what the bookkeeping of two blocks takes; an output population's activity
is 5 times as much, a hidden one's 19 times."""
ANDERSON = Anderson(1e-12, 100)
ITERATIONS = 17
"""More than twice the sweeps between two looks at the rounding of the controller."""


def made(kind: str, activation: str = "tanh") -> Circuit:
    """Two hidden populations and an output one: `dense` and `sparse` recurrent, or in `layers`."""
    rng = np.random.default_rng(0)
    p = 0.05 if kind == "sparse" else 1.0
    sizes = {"x": 30, "a": UNITS, "b": UNITS, "y": OUTPUTS}
    types = {"x": "input", "a": "unit", "b": "unit", "y": "output"}
    pairs = [("x", "a"), ("a", "b"), ("b", "y")]
    if kind != "layers":
        pairs += [("a", "a"), ("b", "b"), ("b", "a")]
    if kind == "sparse":
        pairs.append(("y", "b"))
    return circuit(
        [population(n, types[n], sizes[n], activation="linear" if n in "xy" else activation) for n in sizes],
        [projection(f"{s}_{t}", s, t, sparse(rng, sizes[t], sizes[s], p, 0.3)) for s, t in pairs],
    )


def equations(
    which: str, small: Circuit, loss: str = "cross_entropy", preconditioned: bool = False
) -> Equations:
    t = task(small, losses=(loss,), controller=leaky_integral(0.5, 10.0))
    b, system = batch(t, SAMPLES), t.system
    assert isinstance(system, CircuitSystem)
    drive = system.drive(b.x)
    phi = t.free(drive).fields.phi
    y = t.outputs(phi)
    given = build(system, phi) if preconditioned else None
    if which == "free":
        return FreeEquations(system, drive, given)
    if which == "adjoint":
        error, rounding = t.loss.gradient(y, b.target), t.loss.rounding(y, b.target)
        return AdjointEquations(system, phi, drive, -error, rounding, given)
    batched = Controlled(system, drive, b.target, t.loss, t.controller, phi)
    if which == "linear":
        return LinearFeedback.random(system, 0, 0.1).equations(batched)
    return InversionEquations(RandomFeedback(system, 0) if which == "random" else Feedback(), batched, given)


@pytest.mark.parametrize("kind", ["dense", "sparse", "layers"])
@pytest.mark.parametrize("which", ["controlled", "free", "adjoint", "random", "linear"])
def test_an_iteration_allocates_nothing(which: str, kind: str) -> None:
    check(equations(which, made(kind)))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "softplus", "elu"])
def test_nor_does_it_for_another_activation_or_loss(activation: str) -> None:
    check(equations("controlled", made("sparse", activation), "squared_error"))


@pytest.mark.parametrize("which", ["controlled", "free", "adjoint"])
def test_nor_does_it_with_a_preconditioner_or_without_a_history(which: str) -> None:
    check(equations(which, made("dense"), preconditioned=True))
    check(equations(which, made("dense")), FixedPoint(1e-12, 100))


def check(found: Equations, solver: Solver = ANDERSON) -> None:
    """No allocation of more than SMALL while the solver is at work, once its history is full."""
    assert native.available(), native.reason()
    run = solver.begin(found, found.start().contiguous())
    counts, waited = torch.zeros(2, SAMPLES, dtype=torch.long)
    least = torch.full((SAMPLES,), torch.inf, dtype=torch.float64)
    flags = torch.ones(3, SAMPLES, dtype=torch.bool)

    def iterate(times: int) -> None:
        for count in range(times):
            run.judge()
            judge(run.norms, run.floors, 1e-12, run.limits, count, least, waited, flags, counts, True)
            run.advance(flags[1], flags[2])

    with torch.no_grad():
        iterate(20)  # past the first look at rounding, which makes a small matrix once for all
        taken = allocations(lambda: iterate(ITERATIONS))
        seen = allocations(lambda: torch.empty(SMALL + 1, dtype=torch.uint8))
    assert max(seen) > SMALL
    assert max(taken, default=0) <= SMALL
