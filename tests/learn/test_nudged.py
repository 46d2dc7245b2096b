"""Predictive coding and equilibrium propagation against the loss gradient, finite differences, and least control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.dynamic_inversion import Feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.output import OutputController, integral, proportional
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task
from circuitlab.learn.constrain import SingularValueBound
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.nudged import EquilibriumPropagation, PredictiveCoding
from circuitlab.learn.rules import rule_of
from circuitlab.learn.starts import CREDIT, FREE, Starts
from circuitlab.learn.symmetric import symmetric_pairs
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.equations import chain, dense, forward
from tests.oracles.tasks import batch, finite_differences, free_loss, task


def symmetric(seed: int = 0, p: float = 0.7, activation: str = "tanh", gain: float = 0.5) -> Circuit:
    """x -> a, a -> a (its own transpose), a <-> b, b <-> y, all weights among units symmetric."""
    rng = np.random.default_rng(seed)
    sizes = {"x": 4, "a": 6, "b": 5, "y": 3}
    upper = np.triu(rng.random((6, 6)) < p) * rng.standard_normal((6, 6)) * gain / 3
    full = upper + np.triu(upper, 1).T
    target, source = np.nonzero(full)
    projections = [
        projection("x_a", "x", "a", sparse(rng, 6, 4, 0.9, 1.0)),
        projection("a_a", "a", "a", edges(source, target, full[target, source])),
    ]
    for s, t in (("a", "b"), ("b", "y")):
        forth = sparse(rng, sizes[t], sizes[s], p, gain)
        projections.append(projection(f"{s}_{t}", s, t, forth))
        projections.append(projection(f"{t}_{s}", t, s, edges(forth.target, forth.source, forth.weight)))
    populations = [
        population("x", "input", 4, activation="linear"),
        population("a", "unit", 6, activation=activation, bias=0.1 * rng.standard_normal(6)),
        population("b", "unit", 5, activation=activation),
        population("y", "output", 3, bias=0.1 * rng.standard_normal(3)),
    ]
    return circuit(populations, projections)


CIRCUITS: dict[str, Callable[[], Circuit]] = {
    "feedforward": lambda: forward(later=True),
    "recurrent": lambda: random_circuit(0),
    "outputs in the loop": lambda: chain(back=True),
    "dense": lambda: dense(40, 0.7),
    "sparse E/I, Dale's law": lambda: random_circuit(3, dale=True, p=0.4, hidden=12, gain=0.5),
    "symmetric": lambda: symmetric(),
}
every_circuit = pytest.mark.parametrize("make", CIRCUITS.values(), ids=CIRCUITS)
LOSSES = ["cross_entropy", "squared_error"]


def nudged(small: Circuit, loss: str, **settings) -> Task:
    settings = {"tolerance": 1e-11, "thorough": True, **settings}
    return task(small, losses=(loss,), pathway=lambda s: EnergyBased(Feedback()), **settings)


def flat(updates: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([update.flatten() for update in updates.values()])


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert list(one) == list(other)
    return float(torch.cosine_similarity(flat(one), flat(other), dim=0))


@every_circuit
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "rule", [PredictiveCoding(1e-3), EquilibriumPropagation(1e-2)], ids=lambda rule: rule.name
)
def test_weak_nudging_gives_the_gradient_of_the_loss(
    make: Callable[[], Circuit], loss: str, rule: LearningRule
) -> None:
    """Direction and size, against recurrent backpropagation."""
    t = nudged(make(), loss)
    b = batch(t)
    found, exact = rule.outcome(t, b), RecurrentBackprop().outcome(t, b)
    assert bool(found.used.all())
    assert cosine(found.updates, exact.updates) > 0.9999
    assert float(flat(found.updates).norm() / flat(exact.updates).norm()) == pytest.approx(1, abs=2e-2)


@pytest.mark.parametrize("name", ["feedforward", "recurrent", "symmetric"])
@pytest.mark.parametrize(
    "rule", [PredictiveCoding(1e-3), EquilibriumPropagation(1e-2)], ids=lambda rule: rule.name
)
def test_weak_nudging_gives_the_slope_of_the_free_loss(name: str, rule: LearningRule) -> None:
    """By central differences of the loss at the free equilibrium."""
    t = nudged(CIRCUITS[name](), "cross_entropy")
    b = batch(t)
    found = rule.outcome(t, b)
    ours, differences = [], []
    for name, entries in finite_differences(t, lambda: free_loss(t, b)).items():
        for index, difference in entries:
            ours.append(-4 * float(found.updates[name][index]))
            differences.append(difference)
    assert float(torch.cosine_similarity(torch.tensor(ours), torch.tensor(differences), dim=0)) > 0.999


@pytest.mark.parametrize(("rule", "order"), [(PredictiveCoding, 1), (EquilibriumPropagation, 2)])
def test_the_error_falls_with_beta_as_the_theory_says(rule: type, order: int) -> None:
    """One-sided nudging is off by order beta, centred nudging by order beta squared."""
    t = nudged(random_circuit(0), "squared_error")
    b = batch(t)
    exact = flat(RecurrentBackprop().outcome(t, b).updates)
    error = [float((flat(rule(beta).outcome(t, b).updates) - exact).norm()) for beta in (4e-3, 2e-3)]
    assert np.log2(error[0] / error[1]) == pytest.approx(order, abs=0.05)


@every_circuit
@pytest.mark.parametrize("loss", LOSSES)
def test_clamped_predictive_coding_is_least_control(make: Callable[[], Circuit], loss: str) -> None:
    """S4.3: dynamic inversion with an integral controller has the same phi, psi and updates."""
    t = nudged(make(), loss, tolerance=1e-9)
    b = batch(t)
    if loss == "cross_entropy":
        for rows in t.system.compiled.outputs.values():  # type: ignore[attr-defined]
            b.target[rows] = 0.8 * b.target[rows] + 0.2 / (rows.stop - rows.start)
    other = task(make(), losses=(loss,), controller=integral(100.0), tolerance=1e-9, thorough=True)
    found, least = PredictiveCoding().outcome(t, b), LeastControl().outcome(other, b)
    assert bool(found.used.all())
    assert bool(least.used.all())
    for name in ("phi", "psi", "u"):
        assert torch.allclose(
            getattr(found.credit.fields, name), getattr(least.credit.fields, name), atol=1e-6
        )
    for name, update in least.updates.items():
        assert torch.allclose(found.updates[name], update, rtol=0, atol=1e-6)
    assert torch.allclose(found.control_cost, least.control_cost, atol=1e-6)
    if loss == "squared_error":
        assert torch.allclose(t.outputs(found.credit.fields.phi), b.target, atol=1e-7)


def test_a_number_is_least_control_divided_by_beta() -> None:
    t = nudged(random_circuit(0), "cross_entropy")
    b = batch(t)
    found = PredictiveCoding(0.4).outcome(t, b)
    least = LeastControl().outcome(replace(t, controller=proportional(0.4)), b)
    for name, update in least.updates.items():
        assert torch.allclose(0.4 * found.updates[name], update, atol=1e-9)
    assert torch.allclose(found.control_cost, least.control_cost)


def together(t: Task, b: Batch) -> dict[str, list[tuple[int, float]]]:
    """Half the central differences of the free loss where both synapses of a weight move together."""
    compiled, step = t.system.compiled, 1e-5  # type: ignore[attr-defined]
    found: dict[str, list[tuple[int, float]]] = {}
    for pair in symmetric_pairs(t.system):  # type: ignore[arg-type]
        one, other = (compiled.weights[link.projection.name] for link in (pair.first, pair.second))
        name = pair.first.projection.name
        found[name] = []
        for index in range(0, len(one), 4):
            partner, values = int(pair.order[index]), []
            places = {(id(one), index): one, (id(other), partner): other}
            for sign in (1, -1):
                with torch.no_grad():
                    for (_, place), weights in places.items():
                        weights[place] += sign * step
                    values.append(float(free_loss(t, b)))
                    for (_, place), weights in places.items():
                        weights[place] -= sign * step
            found[name].append((index, (values[0] - values[1]) / (2 * step) / len(places)))
    return found


@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_hopfield_energy_gives_the_gradient_on_symmetric_circuits(activation: str, loss: str) -> None:
    """The contrast of both phases is the loss gradient with respect to the weights that two synapses share."""
    t = nudged(symmetric(activation=activation), loss)
    b = batch(t)
    rule = EquilibriumPropagation(1e-3, "hopfield")
    rule.check(t.system)
    found, exact = rule.outcome(t, b), RecurrentBackprop().outcome(t, b)
    assert bool(found.used.all())
    assert torch.allclose(found.credit.fields.psi, exact.credit.fields.psi, atol=1e-4)
    updates = dict(exact.updates)
    for pair in symmetric_pairs(t.system):  # type: ignore[arg-type]
        first, second = pair.first.projection.name, pair.second.projection.name
        shared = (exact.updates[first] + exact.updates[second][pair.order]) / 2
        updates[first] = shared
        updates[second] = torch.empty_like(shared)
        updates[second][pair.order] = shared
    assert cosine({name: found.updates[name] for name in updates}, updates) > 0.99999
    ours, differences = [], []
    for name, entries in together(t, b).items():
        for index, difference in entries:
            ours.append(-4 * float(found.updates[name][index]))
            differences.append(difference)
    assert np.abs(differences).max() > 1e-2
    assert ours == pytest.approx(differences, abs=1e-4)


def test_hopfield_updates_keep_the_weights_symmetric_to_the_bit() -> None:
    """Through steps of Adam in single precision and a bound on the singular values."""
    t = nudged(symmetric(), "cross_entropy", tolerance=None)
    compiled = t.system.compiled.float()  # type: ignore[attr-defined]
    b = Batch(*(value.float() for value in (batch(t, 16).x, batch(t, 16).target)))
    rule = EquilibriumPropagation(0.1, "hopfield")
    optimizer = torch.optim.Adam(compiled.plastic().values(), lr=1e-2)
    bound = SingularValueBound(compiled, 0.9)
    before = compiled.weights["a_b"].detach().clone()
    pairs = symmetric_pairs(t.system)  # type: ignore[arg-type]
    for _ in range(20):
        updates = rule.outcome(t, b).updates
        for name, parameter in compiled.plastic().items():
            parameter.grad = -updates[name]
        optimizer.step()
        bound.apply()
    assert float((compiled.weights["a_b"].detach() - before).abs().max()) > 0.05
    for pair in pairs:
        assert torch.equal(pair.first.kernel.values, pair.second.kernel.values[pair.order])
    assert {(p.first.projection.name, p.second.projection.name) for p in pairs} == {
        ("a_a", "a_a"),
        ("a_b", "b_a"),
        ("b_y", "y_b"),
    }


def without(small: Circuit, name: str) -> Circuit:
    return circuit(
        list(small.populations.values()), [p for p in small.projections.values() if p.name != name]
    )


def changed(small: Circuit, **changes) -> Circuit:
    projections = [changes.get(p.name, p) for p in small.projections.values()]
    populations = [changes.get(p.name, p) for p in small.populations.values()]
    return circuit(populations, projections)


def test_what_hopfield_cannot_teach_is_refused() -> None:
    good = symmetric()
    a_b = good.projections["a_b"]
    stronger = replace(a_b, edges=replace(a_b.edges, weight=1.1 * a_b.edges.weight))
    cases = {
        "'b_a' has no partner from 'a' to 'b'": without(good, "a_b"),
        "'a_b' has no partner from 'b' to 'a' with its weights transposed": changed(good, a_b=stronger),
        "'a_a' has no partner from 'a' to 'a'": changed(
            good, a_a=projection("a_a", "a", "a", sparse(np.random.default_rng(0), 6, 6, 0.5, 1.0))
        ),
        "'a_b' has no partner": changed(good, a_b=replace(a_b, plastic=False)),
        "the output 'y' must be linear, not tanh": changed(
            good, y=replace(good.populations["y"], activation="tanh")
        ),
        "'e_e' has no partner": random_circuit(0),
    }
    for message, small in cases.items():
        with pytest.raises(CircuitError, match=f"learn.energy: hopfield .*{message}"):
            EquilibriumPropagation(0.1, "hopfield").check(nudged(small, "squared_error").system)
    EquilibriumPropagation(0.1).check(nudged(random_circuit(0), "squared_error").system)


def test_a_transpose_of_its_own_is_two_projections() -> None:
    """W + W^T: any projection of a population onto itself, and its transpose beside it."""
    rng = np.random.default_rng(0)
    one = sparse(rng, 6, 6, 0.5, 0.3)
    small = changed(symmetric(), a_a=projection("a_a", "a", "a", one))
    back = projection("a_a_back", "a", "a", edges(one.target, one.source, one.weight))
    both = circuit(list(small.populations.values()), [*small.projections.values(), back])
    pairs = symmetric_pairs(nudged(both, "squared_error").system)  # type: ignore[arg-type]
    assert ("a_a", "a_a_back") in {(p.first.projection.name, p.second.projection.name) for p in pairs}


def test_what_the_rules_say_of_themselves() -> None:
    coding, propagation = rule_of("predictive_coding"), rule_of("equilibrium_propagation")
    assert (coding.controls, coding.needs_free, coding.contrasts) == (True, False, False)
    assert (propagation.controls, propagation.needs_free, propagation.contrasts) == (False, True, True)
    assert isinstance(coding, PredictiveCoding)
    assert coding.beta is None
    weak = rule_of("predictive_coding", beta=0.5)
    assert isinstance(weak, PredictiveCoding)
    assert weak.beta == 0.5
    clamped = rule_of("predictive_coding", beta="clamped")
    assert isinstance(clamped, PredictiveCoding)
    assert clamped.beta is None
    hopfield = rule_of("equilibrium_propagation", beta=0.2, energy="hopfield")
    assert isinstance(hopfield, EquilibriumPropagation)
    assert (hopfield.beta, hopfield.energy) == (0.2, "hopfield")
    for beta in (0.0, 1.0, -0.1):
        with pytest.raises(
            CircuitError, match=r"learn\.beta: equilibrium_propagation has a beta between 0 and 1"
        ):
            EquilibriumPropagation(beta)
    with pytest.raises(CircuitError, match=r"learn\.beta: predictive_coding has a beta above 0"):
        PredictiveCoding(0.0)
    with pytest.raises(CircuitError, match="no energy 'spin'; allowed: discrepancy, hopfield"):
        EquilibriumPropagation(0.1, "spin")


@pytest.mark.parametrize(
    "rule",
    [PredictiveCoding(), EquilibriumPropagation(0.05), EquilibriumPropagation(0.05, "hopfield")],
    ids=["predictive coding", "equilibrium propagation", "hopfield"],
)
def test_warm_starts_find_the_same(rule: LearningRule) -> None:
    """A second look at the same samples, from where they were found, gives the same updates, and takes no longer."""
    t = nudged(symmetric(), "squared_error", tolerance=1e-8, thorough=False)
    t = replace(t, controller=_controller(rule))
    b = batch(t, 6)
    rows = {FREE: t.system.size, CREDIT: rule.credit_rows(t)}
    starts = Starts("last", rows, 6, None, 1e6, torch.float64, torch.device("cpu"))
    warm = replace(t, starts=starts.of(np.arange(6)))
    cold = rule.outcome(t, b)
    found: list[Outcome] = [rule.outcome(warm, b) for _ in range(2)]
    for name, update in cold.updates.items():
        assert torch.allclose(found[1].updates[name], update, atol=1e-5)
    assert float(found[1].credit.products.mean()) < 1.1 * float(found[0].credit.products.mean())


def _controller(rule: LearningRule) -> OutputController:
    return integral(100.0) if isinstance(rule, PredictiveCoding) else proportional(0.05)


def test_a_sample_that_fails_one_phase_is_left_out() -> None:
    t = nudged(random_circuit(0), "squared_error", max_iterations=3, thorough=False, method="anderson")
    b = batch(t, 6)
    free = t.free(t.system.drive(b.x))
    found = EquilibriumPropagation(0.1).outcome(t, b)
    assert not bool(found.used.all())
    assert not bool((found.used & ~free.converged).any())
    kept = EquilibriumPropagation(0.1).outcome(replace(t, on_unconverged="keep"), b)
    assert bool(kept.used.all())
