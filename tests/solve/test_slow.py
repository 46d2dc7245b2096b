"""Slow circuits under control: slopes ahead of the potentials, and a memory that grows, change the way, not the end."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from circuitlab import native
from circuitlab.control.dynamic_inversion import DynamicInversion, InversionEquations, RandomFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.preconditioned import build
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve import choose
from circuitlab.solve.anderson import PROVED, STALLED, Anderson
from circuitlab.solve.base import STRICTER, solve
from circuitlab.solve.choose import AHEAD, CONTRACTING, HISTORY, LAGGING, LONG, SolveSettings, find
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import MANY, controlled_equations, dense, exact_controlled, image_of
from tests.oracles.tasks import batch, task


def free_start(t: Task, b: Batch) -> Equations:
    return controlled_equations(t, b, t.free(t.system.drive(b.x)).fields.phi)


@pytest.mark.parametrize("name", MANY)
def test_slopes_ahead_leave_the_equilibrium_where_it_is(name: str) -> None:
    """scipy's controlled equilibrium is its own image, and the one that the iteration finds."""
    small = MANY[name]()
    t = task(small, controller=leaky_integral(1.0, 10.0))
    b = batch(t, 3)
    equations = free_start(t, b).anticipating(AHEAD)
    exact = exact_controlled(t, Twin(small), b)
    assert torch.allclose(image_of(equations, exact), exact, atol=1e-7)
    found = solve(equations, Anderson(1e-11, 400, 10, longest=40))
    assert bool(found.converged.all())
    assert torch.allclose(found.state, exact, atol=1e-7)


@pytest.mark.parametrize("share", [0.5, AHEAD])
def test_control_is_gated_so_far_ahead(share: float) -> None:
    """psi' = sigma'(p + share (p - phi)) (W^T psi) in a recurrent population, p = W sigma(phi) + U x + b + psi."""
    t = task(dense(12), controller=leaky_integral(0.5, 10.0))
    b = batch(t, 4)
    twin, equations = Twin(t.system.compiled.circuit), free_start(t, b)  # type: ignore[attr-defined]
    state = equations.start() + 0.3 * torch.randn(
        equations.start().shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    n, rows = t.system.size, slice(0, 12)
    phi, psi = state[:n].numpy(), state[n : 2 * n].numpy()
    drive = t.system.drive(b.x).numpy()
    potential = twin.w[rows, rows] @ np.tanh(phi[rows]) + drive[rows] + psi[rows]
    assert isinstance(equations, InversionEquations)
    image = image_of(equations.anticipating(share), state).numpy()
    ahead = potential + share * (potential - phi[rows])
    new = image[n : 2 * n]  # the outputs' control is known when the hidden neurons' is found
    arriving = twin.w.T[rows, rows] @ psi[rows] + twin.w.T[rows, 12:n] @ new[12:]
    assert new[rows] == pytest.approx((1 - np.tanh(ahead) ** 2) * arriving, abs=1e-12)
    assert image[rows] == pytest.approx(potential - psi[rows] + new[rows], abs=1e-12)
    plain = image_of(equations, state).numpy()[n : 2 * n]
    assert np.abs(plain[rows] - new[rows]).max() > 1e-3


def test_kinks_other_feedback_and_preconditioned_sweeps_stay_as_they_are() -> None:
    t = task(random_circuit(0, activation="relu"))
    b = batch(t, 3)
    equations = free_start(t, b)
    state = equations.start() + 0.1
    assert torch.equal(image_of(equations, state), image_of(equations.anticipating(AHEAD), state))
    t = task(dense(12), pathway=lambda system: DynamicInversion(RandomFeedback(system, 0)))
    equations = free_start(t, batch(t, 3))
    assert equations.anticipating(AHEAD) is equations
    t = task(dense(12))
    b = batch(t, 3)
    equations = free_start(t, b)
    phi = t.free(t.system.drive(b.x)).fields.phi
    assert isinstance(equations, InversionEquations)
    given = InversionEquations(equations.feedback, equations.batch, build(t.system, phi))
    assert given.anticipating(AHEAD) is given
    free = FreeEquations(t.system, t.system.drive(b.x))
    assert free.anticipating(AHEAD) is free


def test_samples_that_go_on_alone_keep_their_slopes_ahead() -> None:
    t = task(dense(12))
    b = batch(t, 4)
    equations = free_start(t, b).anticipating(AHEAD)
    state, columns = equations.start() + 0.2, torch.tensor([1, 3])
    alone = image_of(equations.select(columns), state[:, columns].contiguous())
    assert torch.allclose(alone, image_of(equations, state)[:, columns], atol=1e-14)


def ring(units: int) -> Circuit:
    """A linear circuit with eigenvalues of 0.97 spread evenly on a circle: the hardest for a short memory."""
    inside = edges(list(range(units)), [(k - 1) % units for k in range(units)], [0.97] * units)
    return circuit(
        [
            population("x", "input", units, activation="linear"),
            population("h", "unit", units, activation="linear"),
            population("y", "output", 1, activation="linear"),
        ],
        [
            projection("x_h", "x", "h", edges(list(range(units)), list(range(units)), [1.0] * units)),
            projection("h_h", "h", "h", inside),
            projection("h_y", "h", "y", edges([0], [0], [0.0])),
        ],
    )


@pytest.mark.parametrize("compiled", [True, False])
def test_a_memory_that_grows_ends_as_gmres_does(compiled: bool) -> None:
    """Exact once it holds as many differences as a linear problem has dimensions (Walker and Ni 2011); a short one is
    nowhere near by then."""
    units, depth = 30, 4
    t = task(ring(units))
    b = batch(t, samples=5)
    equations = FreeEquations(t.system, t.system.drive(b.x))
    with nullcontext() if compiled else native.disabled():
        found = solve(equations, Anderson(1e-9, 200, depth, longest=units + 4))
        short = solve(equations, Anderson(1e-9, 200, depth))
    assert bool(found.converged.all())
    assert int(found.iterations.max()) <= PROVED + units + 4
    assert int(short.iterations.min()) > int(found.iterations.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 8, 19])
def test_compiled_loops_and_torch_agree_while_the_memory_grows(dtype: torch.dtype, samples: int) -> None:
    t = task(random_circuit(0, gain=0.7))
    b = batch(t, samples)
    t.system.compiled.to(dtype)  # type: ignore[attr-defined]
    b = Batch(b.x.to(dtype), b.target.to(dtype))
    runs = [
        Anderson(1e-8, 100, 2, 0.05, longest=6).begin(
            e, e.start()
        )  # short steps: there is always a way left to go
        for e in (controlled_equations(t, b), controlled_equations(t, b))
    ]
    close = dict(rtol=2e-2, atol=2e-3) if dtype == torch.float32 else dict(rtol=1e-7, atol=1e-8)
    for count in range(PROVED + 8):
        better = torch.ones(runs[0].state.shape[1], dtype=torch.bool)
        trouble = torch.zeros_like(better)
        if count == PROVED + 5 and samples > 3:
            better[1], trouble[1] = False, True
        for run, context in zip(runs, (nullcontext(), native.disabled()), strict=True):
            with context:
                run.judge()
                run.advance(better, trouble)
                if count == PROVED + 3 and samples > 3:
                    run.select(torch.arange(1, samples, 2))
        assert torch.allclose(runs[0].state, runs[1].state, **close)
    for run in runs:
        assert run.span == run.depth == 6
        assert run.limits[1] == STALLED + 6


def test_a_memory_that_has_not_grown_is_the_short_one() -> None:
    t = task(random_circuit(0, gain=0.7))
    b = batch(t, 5)
    runs = [
        Anderson(1e-8, 100, 3, longest=longest).begin(e, e.start())
        for longest, e in ((0, controlled_equations(t, b)), (12, controlled_equations(t, b)))
    ]
    better, trouble = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    for _ in range(PROVED - 3):
        for run in runs:
            run.judge()
            run.advance(better, trouble)
        assert torch.equal(runs[0].state, runs[1].state)


@pytest.mark.parametrize(
    ("rate", "taken"),
    [
        (LAGGING + 0.01, True),
        (LAGGING - 0.01, False),
        (CONTRACTING - 0.01, True),
        (CONTRACTING, False),
        (1.3, False),
    ],
)
def test_auto_takes_both_where_the_first_steps_are_slow(
    rate: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends in the same equilibria, to 1e-8, as sweeps without them."""
    t = task(random_circuit(2, p=0.3, hidden=30, gain=0.6), controller=leaky_integral(0.5, 10.0))
    b = batch(t, 6)
    seen: list[tuple[float, int]] = []
    begin = Anderson.begin

    def watched(self: Anderson, equations: InversionEquations, state: torch.Tensor):
        seen.append((equations.ahead, self.longest))
        return begin(self, equations, state)

    settings = SolveSettings(tolerance=1e-11, preconditioner="none")
    plain, equations = find(free_start(t, b), settings), free_start(t, b)
    monkeypatch.setattr(Anderson, "begin", watched)
    found = find(equations, settings, rate=rate)
    assert seen[0] == ((AHEAD, LONG) if taken else (0.0, 0))
    assert bool(found.converged.all()) and bool(plain.converged.all())
    assert torch.allclose(found.state, plain.state, atol=1e-8)


def test_what_it_leaves_over_goes_to_sweeps_with_slopes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ahead by far too much nothing settles; the solvers after the first do not take slopes ahead, and settle it."""
    monkeypatch.setattr(choose, "AHEAD", 1e4)
    t = task(random_circuit(2, p=0.3, hidden=30, gain=0.6), controller=leaky_integral(0.5, 10.0))
    b = batch(t, 6)
    found = find(free_start(t, b), SolveSettings(preconditioner="none", thorough=True), rate=0.8)
    assert "," in found.method
    assert bool(found.converged.all())


def test_a_history_without_room_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    t = task(dense(12))
    equations = free_start(t, batch(t, 4))
    state = equations.start()
    mixed = 2 * state[equations.mixed].numel() * 8
    assert choose._longest(equations, state) == LONG
    monkeypatch.setattr(choose, "HISTORY", 7 * mixed + 1)
    assert choose._longest(equations, state) == 7
    assert HISTORY == 2**28


def test_a_sample_that_just_missed_is_asked_for_little_more() -> None:
    """A second round begins without a memory: one that aims far lower costs a dozen sweeps for a few percent."""
    assert STRICTER[0] == 1 and 0.5 < STRICTER[1] < 1
    assert sorted(STRICTER, reverse=True) == list(STRICTER)
