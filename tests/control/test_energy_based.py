"""Energy-based control reaches dynamic inversion's equilibrium (the papers' circuit invariance), by every way down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, Feedback, RandomFeedback
from circuitlab.control.energy_based import EnergyBased, EnergyEquations
from circuitlab.control.output import OutputController, integral, leaky_integral, proportional
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.least_control import LeastControl
from circuitlab.solve.choose import attempts
from tests.oracles.circuits import circuit, random_circuit
from tests.oracles.dense_twin import Twin, cross_entropy
from tests.oracles.equations import chain, dense, forward, with_bursts
from tests.oracles.tasks import batch, task

SMOOTH: dict[str, Callable[[], Circuit]] = {
    "feedforward": lambda: forward(),
    "feedforward past an output": lambda: forward(later=True),
    "recurrent": lambda: random_circuit(0),
    "recurrent chain, two outputs": lambda: chain(),
    "outputs in the loop": lambda: chain(back=True),
    "dense": lambda: dense(48, 0.7),
    "sparse E/I, Dale's law": lambda: random_circuit(1, dale=True, gain=0.5, p=0.4, hidden=16),
    "sparse": lambda: random_circuit(2, p=0.3, hidden=9, gain=0.5),
}
every_circuit = pytest.mark.parametrize("make", SMOOTH.values(), ids=SMOOTH)
CONTROLLERS = {
    "weak": leaky_integral(6.4, 100.0),
    "strong": leaky_integral(0.05, 100.0),
    "proportional": proportional(2.0),
    "integral": integral(100.0),
}


def energy_based(system: object) -> EnergyBased:
    return EnergyBased(Feedback())


def soft(b: Batch, t: Task, share: float = 0.1) -> Batch:
    """Targets that a cross-entropy reaches."""
    target = b.target.clone()
    for rows in t.system.compiled.outputs.values():  # type: ignore[attr-defined]
        target[rows] = (1 - share) * target[rows] + share / (rows.stop - rows.start)
    return Batch(b.x, target)


def outcomes(
    make: Callable[[], Circuit], loss: str, controller: OutputController, **settings
) -> tuple[Outcome, Outcome]:
    """Of dynamic inversion and energy-based control, both from the free state, to residuals of 1e-9."""
    found = []
    for pathway in (None, energy_based):
        options = {"tolerance": 1e-9, "thorough": True, **(settings if pathway else {})}
        t = task(make(), losses=(loss,), controller=controller, pathway=pathway, **options)
        b = batch(t)
        found.append(LeastControl().outcome(t, soft(b, t) if loss == "cross_entropy" else b))
        assert bool(found[-1].credit.converged.all())
    return found[0], found[1]


def same(inversion: Outcome, energy: Outcome, tolerance: float = 1e-6) -> None:
    one, other = inversion.credit.fields, energy.credit.fields
    for name in ("phi", "psi", "u"):
        assert torch.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance), name
    assert float(one.psi.abs().amax()) > 1e-2
    for name, update in inversion.updates.items():
        assert torch.allclose(update, energy.updates[name], rtol=0, atol=tolerance), name


@every_circuit
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)
def test_both_circuits_reach_one_controlled_state(
    make: Callable[[], Circuit], loss: str, controller: OutputController
) -> None:
    """phi, psi, u and the updates of dynamic inversion and of energy-based control agree to 1e-6."""
    same(*outcomes(make, loss, controller))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lbfgs", {}),
        ("anderson", {"max_iterations": 3000}),
        ("fixed_point", {"damping": 0.3, "max_iterations": 20_000}),
        ("levenberg", {}),
        ("euler", {"dt_ms": 2.0, "tolerance": 1e-8}),
    ],
)
@pytest.mark.parametrize("make", [forward, lambda: random_circuit(0, gain=0.4)], ids=["layers", "recurrent"])
def test_every_way_down_ends_there(make: Callable[[], Circuit], method: str, options: dict) -> None:
    """By quasi-Newton steps, accelerated and plain gradient steps, Newton steps, and in real time (eq. 15)."""
    inversion, energy = outcomes(make, "cross_entropy", leaky_integral(1.0, 20.0), method=method, **options)
    assert energy.credit.method == method
    same(inversion, energy)


def test_neurons_rest_on_the_same_kinks() -> None:
    """Relu neurons that control holds at zero: the inclusion, at the same neurons and with the same control."""
    inversion, energy = outcomes(
        lambda: random_circuit(0, activation="relu", gain=0.5), "squared_error", leaky_integral(6.4, 1.0)
    )
    same(inversion, energy)
    assert torch.equal(inversion.credit.kinks, energy.credit.kinks)
    assert int(energy.credit.kinks.sum()) > 0


@pytest.mark.parametrize("method", ["lbfgs", "anderson"])
def test_kinks_under_strong_control_solve_the_inclusion(method: str) -> None:
    """Where many neurons sit on their kinks there are many equilibria; each found one solves the equations."""
    small = random_circuit(0, activation="relu")
    t = task(small, controller=leaky_integral(0.1, 1.0), pathway=energy_based, method=method, tolerance=1e-9)
    found = LeastControl().outcome(t, batch(t, 8)).credit
    assert bool(found.converged.all())
    assert int(found.kinks.sum()) > 3
    twin, fields = Twin(small), found.fields
    for i in range(8):
        phi, psi, u = (v[:, i].numpy() for v in (fields.phi, fields.psi, fields.u))
        raw = twin.w.T @ psi + twin.d.T @ u
        slope = np.where(phi[: -twin.k] > 0, 1.0, 0.0)
        hidden = slice(0, twin.n - twin.k)
        on = phi[hidden] == 0
        off = psi[hidden] - slope * raw[hidden]
        assert np.abs(off[~on]).max() < 1e-7
        inside = (psi[hidden] <= 1e-9) & (psi[hidden] >= raw[hidden] - 1e-7)
        assert inside[on].all()


@pytest.mark.parametrize("kind", ["random", "apical"])
def test_other_feedback_solves_the_equations_of_dynamic_inversion_with_it(kind: str) -> None:
    """With S of its own the flow has no energy, and its rest is still the root that scipy finds."""
    small = with_bursts(random_circuit(0, gain=0.4))

    def feedback(system):
        return RandomFeedback(system, 5, 0.5) if kind == "random" else ApicalFeedback(system)

    found = {}
    for pathway in (DynamicInversion, EnergyBased):
        t = task(small, pathway=lambda s, p=pathway: p(feedback(s)))
        b = batch(t, 3)
        found[pathway] = LeastControl().outcome(t, b)
        assert bool(found[pathway].credit.converged.all())
    same(found[DynamicInversion], found[EnergyBased], 1e-9)
    assert "lbfgs" not in found[EnergyBased].credit.method
    names = set(EnergyBased(feedback(t.system)).feedback_weights())
    assert names == ({"S/e_e", "S/e_i", "S/i_e", "S/i_e_soma", "S/e_y0"} if kind == "random" else set())
    twin = Twin(small)
    if kind == "apical":
        for i in range(3):
            state = twin.controlled_root(
                b.x[:, i].numpy(), cross_entropy(b.target[:, i].numpy()), 1.0, twin.s
            )
            assert found[EnergyBased].credit.fields.phi[:, i].numpy() == pytest.approx(
                state[: twin.n], abs=1e-8
            )


def equations(
    make: Callable[[], Circuit], controller: OutputController
) -> tuple[Task, Batch, EnergyEquations]:
    t = task(make(), controller=controller, pathway=energy_based)
    b = soft(batch(t), t)
    drive = t.system.drive(b.x)
    problem = Controlled(t.system, drive, b.target, t.loss, t.controller, t.free(drive).fields.phi)
    return t, b, t.pathway.equations(problem)  # type: ignore[return-value]


@every_circuit
def test_the_soma_follows_minus_the_gradient_of_the_augmented_energy(make: Callable[[], Circuit]) -> None:
    """Eq. 10 and 143: -psi + sigma' (W^T psi) + D^T u = -d(1/2 |f|^2 + L/alpha)/dphi with u = -dL/dy/alpha, by central
    differences of the energy written out with numpy."""
    alpha = 0.3
    t, b, found = equations(make, leaky_integral(alpha, 10.0))
    twin, rng = Twin(t.system.compiled.circuit), np.random.default_rng(0)  # type: ignore[attr-defined]
    phi = rng.standard_normal((twin.n, len(b.x[0])))
    y = torch.as_tensor(phi[-twin.k :])
    u = -t.loss.gradient(y, b.target) / alpha
    flow = found.imbalance(torch.cat([torch.as_tensor(phi), u]))
    assert float(flow[twin.n :].abs().max()) < 1e-12

    def energy(at: np.ndarray, i: int) -> float:
        f = twin.f(at, b.x[:, i].numpy())
        loss = t.loss.value(torch.as_tensor(at[-twin.k :, None]), b.target[:, i : i + 1])
        return 0.5 * f @ f + float(loss) / alpha

    for i in range(2):
        for unit in range(twin.n):
            step = 1e-5 * np.eye(twin.n)[unit]
            slope = (energy(phi[:, i] + step, i) - energy(phi[:, i] - step, i)) / 2e-5
            assert float(flow[unit, i]) == pytest.approx(-slope, abs=1e-7)


@every_circuit
@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)
def test_auto_descends_where_there_is_an_energy(
    make: Callable[[], Circuit], controller: OutputController
) -> None:
    t, b, found = equations(make, controller)
    projects = any(link.source.start >= t.system.output.start for link in t.system.compiled.recurrent)  # type: ignore[attr-defined]
    names = [solver.name for solver in attempts(found, t.settings, torch.float64)]
    if controller.alpha == 0:
        assert names == (["anderson", "anderson"] if projects else ["lbfgs", "anderson"])
    else:
        assert names == ["lbfgs", "levenberg", "anderson"]
    assert attempts(FreeEquations(t.system, b.x), t.settings, torch.float64)[0].name != "lbfgs"


def test_single_precision_leaves_as_many_digits_as_rounding_does() -> None:
    """psi = phi - prediction is known to the rounding of phi: all samples converge, at 1e-5 of the double solution."""
    t = task(dense(48, 0.7), controller=leaky_integral(1.0, 1.0), pathway=energy_based)
    b = batch(t, 16)
    exact = LeastControl().outcome(t, b).credit.fields
    single = task(dense(48, 0.7), controller=leaky_integral(1.0, 1.0), pathway=energy_based, tolerance=None)
    single.system.compiled.float()  # type: ignore[attr-defined]
    found = LeastControl().outcome(single, Batch(b.x.float(), b.target.float())).credit
    assert found.fields.phi.dtype == torch.float32
    assert bool(found.converged.all())
    assert torch.allclose(found.fields.phi.double(), exact.phi, atol=1e-4)
    assert torch.allclose(found.fields.psi.double(), exact.psi, atol=1e-5)


def test_a_population_without_control_is_refused() -> None:
    small = random_circuit(0)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    t = task(circuit(pops, list(small.projections.values())), pathway=energy_based)
    with pytest.raises(
        CircuitError, match=r"energy_based gives every unit the control .* `controlled: false`"
    ):
        LeastControl().outcome(t, batch(t))
