"""The driver shared by all solvers: per-sample stopping, honest residuals, and samples that fail alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from circuitlab import native
from circuitlab.control.base import Controlled
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.anderson import Anderson
from circuitlab.solve.base import LOOKS, PARTS, Solver, gathered, judge, solve
from circuitlab.solve.choose import find
from circuitlab.solve.euler import Euler
from circuitlab.solve.fixed_point import FixedPoint
from circuitlab.solve.levenberg import Levenberg
from tests.oracles.allocations import allocations
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.dense_twin import Twin, cross_entropy
from tests.oracles.numpy_check import KINKED
from tests.oracles.tasks import batch, task

SOLVERS: dict[str, Solver] = {
    "fixed_point": FixedPoint(1e-8, 1000, 0.5),
    "anderson": Anderson(1e-8, 300),
    "euler": Euler(1e-8, 4000, 2.0),
    "levenberg": Levenberg(1e-8, 60),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def hopeless_circuit() -> Circuit:
    """A relu unit with a self-connection of 2: phi = 2 relu(phi) + x has no solution for x > 0 (it runs away)."""
    return circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="relu"),
            population("g", "unit", 1, activation="tanh"),
            population("y", "output", 2),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_h", "h", "h", edges([0], [0], [2.0])),
            projection("x_g", "x", "g", edges([0], [0], [1.0])),
            projection("h_g", "h", "g", edges([0], [0], [0.5])),
            projection("g_g", "g", "g", edges([0], [0], [0.6])),
            projection("g_y", "g", "y", edges([0, 0], [0, 1], [1.0, -1.0])),
        ],
    )


def controlled(t: Task, b: Batch) -> Equations:
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    return t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, free))


def easy(samples: int = 7) -> tuple[Task, Batch, Equations]:
    t = task(random_circuit(0, gain=0.5), controller=leaky_integral(1.0, 10.0))
    b = batch(t, samples)
    return t, b, controlled(t, b)


@every_solver
def test_a_sample_without_equilibrium_is_flagged_and_harms_no_other(solver: Solver) -> None:
    t = task(hopeless_circuit())
    x = torch.tensor([[-1.0, -0.3, 2.0, -2.0, 1e-3]], dtype=torch.float64)
    equations = FreeEquations(t.system, t.system.drive(x))
    found = solve(equations, solver)
    assert found.converged.tolist() == [True, True, False, True, False]
    assert found.iterations[2] == found.iterations[4] == solver.max_iterations
    assert (found.residual[[2, 4]] > 1e-3).all()
    sound = torch.tensor([0, 1, 3])
    alone = solve(equations.select(sound), solver)
    assert torch.allclose(found.state[:, sound], alone.state, atol=1e-8)
    assert torch.equal(found.iterations[sound], alone.iterations)
    for i in (2, 4):  # what is left of it is its own best state, whoever left the batch before
        lost = solve(equations.select(torch.tensor([i])), solver)
        assert torch.allclose(found.state[:, i], lost.state[:, 0], rtol=1e-6)
        assert float(found.residual[i]) == pytest.approx(float(lost.residual[0]), rel=1e-6)
    assert torch.allclose(found.fields.phi[0, sound], x[0, sound], atol=1e-8)


@every_solver
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_fails_alone(solver: Solver, poison: float) -> None:
    t, b, _ = easy(4)
    drive = t.system.drive(b.x)
    clean = solve(FreeEquations(t.system, drive), solver)
    drive[3, 1] = poison
    found = solve(FreeEquations(t.system, drive), solver)
    assert found.converged.tolist() == [True, False, True, True]
    assert not torch.isfinite(found.residual[1])
    sound = torch.tensor([0, 2, 3])
    assert torch.allclose(found.state[:, sound], clean.state[:, sound], atol=1e-8)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e300])
def test_a_poisoned_sample_fails_alone_under_control(poison: float) -> None:
    t, b, equations = easy(4)
    clean = find(equations, t.settings)
    b.x[2, 1] = poison
    t = replace(t, settings=replace(t.settings, max_iterations=80))
    found = find(controlled(t, b), t.settings)
    assert found.converged[[0, 2, 3]].all()
    assert torch.allclose(found.state[:, [0, 2, 3]], clean.state[:, [0, 2, 3]], atol=1e-8)
    if not np.isfinite(poison):
        assert not bool(found.converged[1])


@every_solver
def test_a_batch_gives_what_its_samples_give_alone(solver: Solver) -> None:
    """Samples leave the batch one by one as they converge; nothing of one reaches another."""
    t, b, equations = easy(9)
    b.x[:] *= torch.linspace(
        0, 3, 9, dtype=torch.float64
    )  # from no input to strong: different numbers of steps
    equations = controlled(t, b)
    together = solve(equations, solver)
    assert bool(together.converged.all())
    assert len(set(together.iterations.tolist())) > 1
    for i in range(9):
        alone = solve(equations.select(torch.tensor([i])), solver)
        assert torch.allclose(alone.state[:, 0], together.state[:, i], atol=1e-9)
        assert abs(int(alone.iterations[0]) - int(together.iterations[i])) <= 1
    order = torch.tensor([8, 7, 6, 5, 4, 3, 2, 1, 0])
    turned = solve(equations.select(order), solver)
    assert torch.allclose(turned.state, together.state[:, order], atol=1e-9)


@every_solver
def test_residuals_are_those_of_the_equations(solver: Solver) -> None:
    """Recomputed by numpy: the largest of |wrong| / |scale| over soma, control, controller."""
    t, b, equations = easy(5)
    twin = Twin(t.system.compiled.circuit)  # type: ignore[attr-defined]
    n = twin.n
    for few in (replace(solver, max_iterations=5), solver):
        found = solve(equations, few)
        for i in range(5):
            state = found.state[:, i].numpy()
            gradient = cross_entropy(b.target[:, i].numpy())
            wrong = twin.controlled_equations(state, b.x[:, i].numpy(), gradient, 1.0)
            blocks = (slice(0, n), slice(n, 2 * n), slice(2 * n, None))
            sizes = [np.linalg.norm(state[rows]) for rows in blocks]
            if few is solver or min(sizes) > 1e-3:
                expected = max(
                    np.linalg.norm(wrong[rows]) / size for rows, size in zip(blocks, sizes, strict=True)
                )
                assert float(found.residual[i]) == pytest.approx(expected, rel=1e-3, abs=1e-14)
            assert bool(found.converged[i]) == (float(found.residual[i]) <= solver.tolerance)


def test_a_small_control_is_judged_by_its_own_size() -> None:
    """Control a thousand times smaller than the potentials must still be right to the tolerance."""
    t = task(random_circuit(0, gain=0.5), controller=leaky_integral(2000.0, 10.0), tolerance=1e-6)
    b = batch(t, 3)
    found = find(controlled(t, b), t.settings)
    fields, twin = found.fields, Twin(t.system.compiled.circuit)  # type: ignore[attr-defined]
    assert float(fields.psi.norm() / fields.phi.norm()) < 1e-3
    for i in range(3):
        gradient = cross_entropy(b.target[:, i].numpy())
        exact = twin.controlled_root(b.x[:, i].numpy(), gradient, 2000.0)[twin.n : 2 * twin.n]
        assert np.linalg.norm(fields.psi[:, i].numpy() - exact) < 1e-5 * np.linalg.norm(exact)


@every_solver
def test_one_iteration(solver: Solver) -> None:
    """One evaluation judges the start; what is left is the start, or its image where a sweep has made one."""
    _, _, equations = easy(3)
    found = solve(equations, replace(solver, max_iterations=1))
    assert not bool(found.converged.any())
    assert found.iterations.tolist() == [1, 1, 1]
    start = equations.start()
    image = torch.empty_like(start)
    equations.sweep(start, image)
    left = image if isinstance(solver, FixedPoint | Anderson) else equations.close_algebraic(start)
    assert torch.equal(found.state, left)
    solved = solve(equations, solver)
    again = solve(equations, replace(solver, max_iterations=1), solved.state)
    assert bool(again.converged.all())


@pytest.mark.parametrize("samples", [1, 6])
@every_solver
def test_statistics_have_one_entry_per_sample(solver: Solver, samples: int) -> None:
    t, _, equations = easy(samples)
    found = solve(equations, solver)
    n, k = t.system.size, 3
    assert found.fields.phi.shape == found.fields.psi.shape == (n, samples)
    assert found.fields.u.shape == (k, samples)
    assert found.state.shape == (2 * n + k, samples)
    assert found.converged.dtype == torch.bool
    for statistic in (found.converged, found.residual, found.iterations, found.products, found.kinks):
        assert statistic.shape == (samples,)
    assert (found.products >= 2 * found.iterations).all()
    assert (found.kinks == 0).all()
    assert found.method == solver.name


@every_solver
def test_no_input_and_no_bias_rest_at_zero(solver: Solver) -> None:
    small = random_circuit(0, gain=0.5)
    pops = [replace(p, bias=None) for p in small.populations.values()]
    t = task(circuit(pops, list(small.projections.values())))
    drive = t.system.drive(torch.zeros(4, 2, dtype=torch.float64))
    found = solve(FreeEquations(t.system, drive), solver)
    assert bool(found.converged.all())
    assert (found.fields.phi == 0).all()
    assert found.iterations.tolist() == [1, 1]
    target = torch.full((3, 2), 1 / 3, dtype=torch.float64)  # what the silent circuit answers already
    problem = Controlled(t.system, drive, target, t.loss, t.controller, found.fields.phi)
    rest = solve(t.pathway.equations(problem), solver)
    assert bool(rest.converged.all())
    assert float(rest.state.abs().max()) < 1e-12


def test_the_best_state_of_an_unconverged_sample_is_kept() -> None:
    """More iterations never leave a larger residual behind, though the iteration itself runs away."""
    t = task(hopeless_circuit())
    equations = FreeEquations(t.system, t.system.drive(torch.tensor([[2.0]], dtype=torch.float64)))
    residuals = [float(solve(equations, FixedPoint(1e-8, n)).residual) for n in (1, 2, 5, 40)]
    assert all(later <= earlier for earlier, later in pairwise(residuals))


class Hiccup(FreeEquations):
    """Free equations whose fifth evaluation is not a number for the second sample."""

    count = 0

    def sweep(self, state: torch.Tensor, image: torch.Tensor) -> None:
        super().sweep(state, image)
        self.count += 1
        if self.count == 5 and state.shape[1] > 1:
            image[:, 1] = torch.nan


@pytest.mark.parametrize("name", ["fixed_point", "anderson"])
def test_a_step_that_overflows_is_taken_back(name: str) -> None:
    """The sample goes on from its best state; the others notice nothing."""
    t, b, _ = easy(3)
    drive = t.system.drive(b.x)
    found = solve(Hiccup(t.system, drive), SOLVERS[name])
    smooth = solve(FreeEquations(t.system, drive), SOLVERS[name])
    assert bool(found.converged.all())
    assert torch.allclose(found.state, smooth.state, atol=1e-7)
    assert torch.allclose(found.state[:, [0, 2]], smooth.state[:, [0, 2]], atol=1e-13)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled loops", "torch"])
def test_a_sample_in_trouble_restarts_from_its_best_state_with_no_memory(compiled: bool) -> None:
    """Its next states are those of a fresh iteration from there; the other samples' are untouched."""
    equations, solver = easy(2)[2], Anderson(1e-8, 100, damping=0.7)
    no, first = torch.tensor([False, False]), torch.tensor([True, True])
    with nullcontext() if compiled else native.disabled():
        run, other = (solver.begin(equations, equations.start()) for _ in range(2))
        for _ in range(4):
            for each in (run, other):
                each.judge()
                each.advance(first, no)
        origin, best = run.origin.clone(), run.best.clone()
        for each, trouble in ((run, torch.tensor([False, True])), (other, no)):
            each.judge()
            each.advance(no, trouble)
        assert torch.equal(run.state[:, 0], other.state[:, 0])
        near = torch.lerp(origin, best, 0.35)  # half of the damping it had
        rows = equations.mixed
        assert torch.allclose(run.state[rows, 1], near[rows, 1], atol=1e-15)
        alone = replace(solver, damping=0.35).begin(equations, run.state.clone())
        for _ in range(4):
            for each in (run, alone):
                each.judge()
                each.advance(no, no)
            assert torch.allclose(run.state[:, 1], alone.state[:, 1], atol=1e-9)


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 5, 16, 37])
def test_compiled_loops_and_torch_take_the_same_steps(depth: int, dtype: torch.dtype, samples: int) -> None:
    """Residual norms, states and bests of both, step by step, with a restart on the way, steps on which every sample is
    better, and samples that leave."""
    t = task(random_circuit(0, gain=0.7))
    b = batch(t, samples)
    t.system.compiled.to(dtype)  # type: ignore[attr-defined]
    b = Batch(b.x.to(dtype), b.target.to(dtype))
    runs = [Anderson(1e-8, 100, depth, 0.9).begin(e, e.start()) for e in (controlled(t, b), controlled(t, b))]
    close = dict(rtol=1e-2, atol=1e-3) if dtype == torch.float32 else dict(rtol=1e-8, atol=1e-9)
    for count in range(9):
        better = (torch.arange(runs[0].state.shape[1]) % 3 != 1) | (count in (2, 3, 7))
        trouble = (torch.arange(runs[0].state.shape[1]) % 5 == 4) & (count == 4) & ~better
        for run, context in zip(runs, (nullcontext(), native.disabled()), strict=True):
            with context:
                run.judge()
                run.advance(better, trouble)
                if count == 6 and samples > 3:
                    run.select(torch.arange(1, samples, 2))
        assert torch.allclose(runs[0].state, runs[1].state, **close)
        assert torch.allclose(runs[0].best, runs[1].best, **close)
        assert torch.allclose(runs[0].norms, runs[1].norms, **close)
    assert torch.isfinite(runs[0].state).all()


@pytest.mark.parametrize("name", ["fixed_point", "anderson"])
def test_looking_every_few_iterations_changes_no_sample(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: samples that are done are carried along until the next look, and keep what they had."""
    equations = easy(9)[2]
    with native.disabled():
        now = solve(equations, SOLVERS[name])
        monkeypatch.setitem(LOOKS, "cpu", 4)
        later = solve(equations, SOLVERS[name])
    assert bool(later.converged.all())
    assert torch.equal(now.iterations, later.iterations)
    assert torch.allclose(now.state, later.state, atol=1e-12)


def test_both_judges_agree() -> None:
    """NaN and infinity are trouble, zero control is judged by its floor, what is done stays done."""
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(2, 2, 40, dtype=torch.float64, generator=generator) ** 8
    norms[0, 0, 3], norms[1, 0, 4], norms[1, :, 5] = torch.nan, torch.inf, 0
    floors = torch.full((2, 40), 1e-3, dtype=torch.float64)
    found = []
    for context in (nullcontext(), native.disabled()):
        least = torch.linspace(1e-6, 2, 40, dtype=torch.float64)
        flags = torch.zeros(3, 40, dtype=torch.bool)
        flags[0, :35] = True
        counts, waited = torch.full((40,), 99), torch.arange(40) % 9
        with context:
            left = judge(norms, floors, 1e-2, (10.0, 8, 0.5), 7, least, waited, flags, counts, True)
        assert left == int(flags[0].sum())
        assert flags[2, 3] and flags[2, 4] and not flags[0, 35:].any() and (counts[35:] == 99).all()
        found.append((least, flags, counts, waited))
    for compiled, plain in zip(*found, strict=True):
        assert torch.allclose(compiled.double(), plain.double(), rtol=1e-12, atol=0)


def test_auto_hands_what_is_left_to_the_next_solver() -> None:
    """A strongly recurrent circuit under strong control: what Anderson leaves over, Levenberg brings to rest."""
    t = task(
        random_circuit(3, gain=1.5), controller=leaky_integral(0.1, 10.0), tolerance=1e-10, thorough=True
    )
    b = batch(t, 12)
    equations = controlled(t, b)
    found = find(equations, t.settings)
    first = find(equations, replace(t.settings, method="anderson", max_iterations=150))
    assert bool(found.converged.all())
    assert not bool(first.converged.all())
    assert found.method.endswith("anderson, levenberg")
    kept = first.converged
    assert torch.equal(found.state[:, kept], first.state[:, kept])
    assert (found.iterations[~kept] > 150).all()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_kinked_circuits_satisfy_the_inclusion(activation: str) -> None:
    """20 random circuits of kinked neurons under strong control: whatever is called converged satisfies, by numpy,
    f + psi = 0, alpha u + dL/dy = 0 and psi in [least slope, greatest slope] (W^T psi) + D^T u, the slopes being
    the potential's side's, and both at exactly zero. At least nine in ten do converge."""
    low, total, converged, resting = KINKED[activation], 0, 0, 0
    for seed in range(20):
        t = task(
            random_circuit(seed, activation=activation), controller=leaky_integral(0.1, 10.0), tolerance=1e-9
        )
        b = batch(t)
        found = find(controlled(t, b), t.settings)
        twin = Twin(t.system.compiled.circuit)  # type: ignore[attr-defined]
        total, converged = total + 4, converged + int(found.converged.sum())
        for i in torch.nonzero(found.converged).flatten().tolist():
            phi, psi, u = (getattr(found.fields, name)[:, i].numpy() for name in ("phi", "psi", "u"))
            x, gradient = b.x[:, i].numpy(), cross_entropy(b.target[:, i].numpy())
            wrong = twin.controlled_equations(np.concatenate([phi, psi, u]), x, gradient, 0.1)
            raw = twin.w.T @ psi
            on = (phi == 0) & (np.arange(twin.n) < twin.n - twin.k)
            ends = np.sort([low * raw, raw], axis=0)
            inside = np.clip(psi, *ends) - psi
            wrong[twin.n : 2 * twin.n][on] = inside[on]
            assert np.abs(wrong).max() < 1e-7 * max(1.0, np.abs(phi).max()), seed
            assert int(found.kinks[i]) == int(on.sum())
            resting += int(on.sum())
    assert resting > 0, "control does put neurons on the kink"
    assert converged >= 0.9 * total, f"{converged} of {total}"


@pytest.mark.parametrize("shape", [(5, 9), (1, 9), (3, 100, 9), (0, 9), (0, 4, 9)])
@pytest.mark.parametrize("keep", [[0, 1, 2], [2, 5, 8], list(range(9)), [8]])
def test_samples_are_gathered_in_place(shape: tuple[int, ...], keep: list[int]) -> None:
    whole = torch.arange(float(np.prod(shape)) or 1.0)[: int(np.prod(shape))].view(shape)
    wanted, index = whole[..., keep].clone(), torch.tensor(keep)
    found = gathered(whole.clone()[..., :], index)
    assert torch.equal(found, wanted)
    assert torch.equal(gathered(whole.mT.contiguous().mT, index), wanted)


def test_gathering_takes_little_memory() -> None:
    whole, keep = torch.rand(10, 640, 50), torch.arange(0, 50, 2)
    start = whole.data_ptr()
    taken = allocations(lambda: gathered(whole, keep))
    assert gathered(whole, torch.arange(50)).data_ptr() == start
    assert max(taken) <= whole.nbytes // 2 // PARTS + whole.nbytes // whole.shape[0] // 8
