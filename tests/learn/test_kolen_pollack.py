"""Kolen-Pollack: S takes the steps of W^T and both decay, whatever else acts on W; so do the circuit's own bursts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.dynamic_inversion import (
    ApicalFeedback,
    DynamicInversion,
    Feedback,
    KolenPollackFeedback,
)
from circuitlab.control.feedback import AmongUnits
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import LearningRule, Task
from circuitlab.learn.constrain import SingularValueBound
from circuitlab.learn.evaluate import Split
from circuitlab.learn.feedback.base import FeedbackLearning
from circuitlab.learn.feedback.kolen_pollack import KolenPollack
from circuitlab.learn.feedback.tracking import Tracking
from circuitlab.learn.feedback_alignment import FeedbackAlignment
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.optimizer import make_optimizer
from circuitlab.learn.parallel import ALONE, Group
from circuitlab.learn.penalty import JacobianPenalty
from circuitlab.learn.train import Schedule, Trainer
from circuitlab.solve.choose import SolveSettings
from tests.learn.test_parallel import together
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin
from tests.oracles.images import IMAGES, convolution

SAMPLES, BATCH = 24, 8


def split(inputs: int, outputs: Sequence[int], seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(min(outputs), size=SAMPLES)
    x = 0.5 * rng.standard_normal((SAMPLES, inputs))
    x[np.arange(SAMPLES), labels] += 2
    return Split(torch.tensor(x), torch.tensor(np.concatenate([np.eye(n)[labels] for n in outputs], 1)))


def turned(p, name: str, rng) -> object:
    """A burst projection on the transposed edges of p, of random weights."""
    e = edges(p.edges.target, p.edges.source, 0.3 * rng.standard_normal(len(p.edges)))
    return projection(name, p.target, p.source, e, "apical", "burst")


def bursting(base: Circuit) -> Circuit:
    """Bursts onto the pyramidal population that mirror e_e and e_y0."""
    rng = np.random.default_rng(5)
    found = dict(base.projections)
    for name in ("e_e", "e_y0"):
        found[f"{name}_back"] = turned(base.projections[name], f"{name}_back", rng)
    return circuit(list(base.populations.values()), list(found.values()))


def images() -> Circuit:
    """An image through one convolution (shared weights), then a second one written out as edges (CSR)."""
    first, (maps, pixels) = convolution(*IMAGES["plain"])
    first = replace(first, name="x_c", source="x", target="c")
    second, (most, _) = convolution((2, 3, 3), 2, (2, 2), (1, 1), (0, 0), seed=1)
    third = replace(second, name="c_h", source="c", target="h")
    other = replace(second, name="c_g", source="c", target="g", kernel="csr")
    rng = np.random.default_rng(0)
    pops = [
        population("x", "input", pixels, activation="linear"),
        population("c", "unit", maps),
        population("h", "unit", most),
        population("g", "unit", most),
        population("y", "output", 3),
    ]
    ends = [projection(f"{k}_y", k, "y", sparse(rng, 3, most, 1.1, 1.0)) for k in "hg"]
    assert first.kernel == "convolution"
    return circuit(pops, [first, third, other, *ends])


def trainer(
    small: Circuit,
    *,
    decay: float = 0.0,
    apical: bool = False,
    lateral: bool = False,
    rule: LearningRule | None = None,
    optimizer: str = "adam",
    lr: float = 0.02,
    epochs: int = 4,
    clip: float | None = None,
    bound: float | None = None,
    penalty: float | None = None,
    group: Group = ALONE,
    tolerance: float = 1e-4,
    rounds: int = 1,
) -> Trainer:
    compiled = CompiledCircuit(small, torch.float64)
    system = CircuitSystem(compiled)
    feedback = ApicalFeedback(system) if apical else KolenPollackFeedback(system, seed=1, scale=2.0)
    pathway: AmongUnits = DynamicInversion(feedback)
    learning = [FeedbackLearning(KolenPollack(pathway, decay))]
    if lateral:
        pathway = LateralInhibition(system, feedback, Interneurons(system))
        learning.append(FeedbackLearning(Tracking()))
    loss = OutputLoss([(LOSSES["cross_entropy"], rows) for rows in compiled.outputs.values()])
    task = Task(system, loss, pathway, leaky_integral(1.0, 10.0), SolveSettings(tolerance=tolerance))
    data = split(compiled.input_size, [r.stop - r.start for r in compiled.outputs.values()])
    chosen = make_optimizer(
        [*compiled.plastic().values(), *pathway.parameters().values()], optimizer, {"lr": lr}
    )

    def order(epoch: int) -> list[np.ndarray]:
        ids = np.random.default_rng(epoch).permutation(SAMPLES)
        return [ids[i : i + BATCH] for i in range(0, SAMPLES, BATCH)] * rounds

    return Trainer(
        compiled,
        task,
        rule or LeastControl(),
        {"train": data},
        Schedule(epochs, order, clip),
        chosen,
        bound=SingularValueBound(compiled, bound, companions=pathway.companions()) if bound else None,
        penalty=JacobianPenalty(system, penalty, pathway.companions(), apical) if penalty else None,
        feedback=learning,
        group=group,
    )


def both(of: Trainer) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weights of W and of S by projection."""
    own = of.task.pathway.feedback_weights()
    return {
        name: (of.compiled.weights[name].detach().clone(), own[f"S/{name}"].clone())
        for name in of.compiled.weights
        if f"S/{name}" in own and own[f"S/{name}"].shape == of.compiled.weights[name].shape
    }


@pytest.mark.parametrize("lateral", [False, True], ids=["dynamic inversion", "lateral inhibition"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_difference_decays_and_nothing_else_moves_it(optimizer: str, lateral: bool) -> None:
    """W - S^T after n updates is (1 - gamma)^n times what it was, with clipping, for every optimizer."""
    made = trainer(
        random_circuit(0, gain=0.4),
        decay=0.01,
        optimizer=optimizer,
        clip=0.2,
        lateral=lateral,
        epochs=1,
        rounds=4,
    )
    before = both(made)
    made.run()
    assert set(before) == {"e_e", "e_i", "i_e", "i_e_soma", "e_y0"}
    for name, (w, s) in both(made).items():
        first, second = before[name]
        assert not torch.allclose(w, 0.99**12 * first, atol=1e-3)
        assert torch.allclose(w - s, 0.99**12 * (first - second), atol=1e-12), name


@pytest.mark.parametrize(
    "rule", [LeastControl(gated=True), LeastControl(weighting="error"), FeedbackAlignment()]
)
def test_it_learns_beside_every_rule_that_goes_by_s(rule: LearningRule) -> None:
    made = trainer(random_circuit(1, gain=0.4), decay=0.02, rule=rule)
    before = both(made)
    made.run()
    for name, (w, s) in both(made).items():
        assert torch.allclose(w - s, 0.98**12 * (before[name][0] - before[name][1]), atol=1e-12), name


def test_a_bound_scales_s_with_w() -> None:
    """The bound acts (the group's largest singular value is at it), and W - S^T keeps its direction."""
    made = trainer(random_circuit(0, gain=1.0), bound=0.4)
    before = both(made)
    made.run()
    assert made.bound is not None
    for name, (w, s) in both(made).items():
        gone, now = before[name][0] - before[name][1], w - s
        factor = float(gone @ now / (gone @ gone))
        assert torch.allclose(now, factor * gone, atol=1e-10), name
        assert factor < 0.9 if name != "e_y0" else factor == pytest.approx(1.0)


def test_a_penalty_shrinks_s_as_it_does_w() -> None:
    """With plain descent the penalty shrinks W - S^T as it shrinks W: nothing of it is left out of S."""
    made = trainer(random_circuit(0, gain=0.4), penalty=2.0, optimizer="sgd", lr=0.05)
    before = both(made)
    made.run()
    for name, (w, s) in both(made).items():
        gone, now = (before[name][0] - before[name][1]), w - s
        ratio = now / gone
        assert bool((ratio <= 1 + 1e-12).all() & (ratio > 0).all())
        assert float(ratio.max()) < 0.95 if name != "e_y0" else torch.allclose(now, gone, atol=1e-12)


CIRCUITS = {
    "sparse": lambda: random_circuit(2, p=0.4, gain=0.4),
    "Dale's law": lambda: random_circuit(1, dale=True, gain=0.3),
    "two outputs": lambda: random_circuit(2, outputs=(3, 2), gain=0.4),
    "convolutions": images,
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_s_comes_within_ten_degrees_of_the_transpose(name: str) -> None:
    made = trainer(CIRCUITS[name](), decay=0.05, epochs=1, rounds=40, lr=0.01)
    feedback = made.task.pathway.feedback  # type: ignore[attr-defined]
    assert isinstance(feedback, KolenPollackFeedback)
    weights = feedback.weights()
    for key, kernel in feedback.kernels.items():
        assert type(kernel) is type(made.compiled.links[key].kernel)
        assert float(torch.linalg.vector_norm(weights[key])) == pytest.approx(2.0), "the published start"
    before = made.task.pathway.measures()["feedback_angle"]
    made.run()
    assert before > (20 if name == "Dale's law" else 60)
    assert made.task.pathway.measures()["feedback_angle"] < 10
    for key, sign in made.compiled.sign.items():
        if sign and key in weights:
            assert bool((sign * feedback.weights()[key] >= 0).all())


def test_the_angle_is_between_the_matrices() -> None:
    made = trainer(bursting(random_circuit(0, gain=0.4)), apical=True)
    twin = Twin(made.compiled.circuit)
    s, mask = twin.s, np.zeros_like(twin.w)
    for a, b in (("e", "e"), ("e", "y0")):
        mask[twin.rows[a], twin.rows[b]] = 1
    wt = twin.w.T * mask
    cosine = (s * wt).sum() / np.linalg.norm(s) / np.linalg.norm(wt)
    measured = made.task.pathway.measures()["feedback_angle"]
    assert measured == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-9)


@pytest.mark.parametrize("rule", [LeastControl(), LeastControl(gated=True), FeedbackAlignment()])
def test_bursts_learn_from_rate_and_burst(rule: LearningRule) -> None:
    """Delta S_ij = mean of sigma(phi_i) psi_j over the samples used, by hand."""
    small = bursting(random_circuit(0, gain=0.4))
    made = trainer(small, apical=True, rule=rule)
    batch = made.splits["train"].batch(np.arange(5))
    outcome = made.rule.outcome(made.task, batch)
    outcome = replace(outcome, used=torch.tensor([True, True, False, True, True]))
    found = made.feedback[0].rule.updates(made.task, batch, outcome, 0)
    twin = Twin(small)
    phi, psi = (
        outcome.credit.fields.phi[:, outcome.used].numpy(),
        outcome.credit.fields.psi[:, outcome.used].numpy(),
    )
    if getattr(rule, "gated", False):
        psi = psi * np.stack([twin.slope(p) for p in phi.T], 1)
    rate = np.stack([twin.sigma(p) for p in phi.T], 1)
    assert set(found) == {"S/e_e_back", "S/e_y0_back"}
    for name in ("e_e_back", "e_y0_back"):
        p = small.projections[name]
        post, pre = rate[twin.rows[p.target]][p.edges.target], psi[twin.rows[p.source]][p.edges.source]
        assert found[f"S/{name}"].numpy() == pytest.approx((post * pre).mean(1), abs=1e-12)


def test_the_circuits_own_bursts_align() -> None:
    """Multiplexed codes: the bursts come within ten degrees of the transpose of what they mirror."""
    made = trainer(
        bursting(random_circuit(0, gain=0.4)),
        apical=True,
        decay=0.05,
        epochs=1,
        rounds=40,
        lr=0.01,
        bound=0.5,
    )
    before = made.task.pathway.measures()["feedback_angle"]
    made.run()
    assert before > 60
    assert made.task.pathway.measures()["feedback_angle"] < 10


def test_copied_interneurons_stay_copies_to_the_bit() -> None:
    made = trainer(random_circuit(0, gain=0.6), lateral=True, clip=0.5, bound=0.4, decay=0.001)
    made.run()
    own = made.task.pathway.parameters()
    for name, value in made.compiled.parameters_by_name().items():
        assert torch.equal(own[f"I/{name}"], value), name


def test_a_frozen_projection_is_its_transpose() -> None:
    base = random_circuit(0, gain=0.4)
    projections = [replace(p, plastic=p.name != "e_e") for p in base.projections.values()]
    small = circuit(list(base.populations.values()), projections)
    made = trainer(small, decay=0.1)
    assert "S/e_e" not in made.task.pathway.parameters()
    feedback = made.task.pathway.feedback  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    phi, psi = (torch.tensor(rng.standard_normal((made.compiled.size, 2))) for _ in range(2))
    point = made.task.system.linearise(phi, torch.zeros_like(phi))
    twin = Twin(small)
    s = np.zeros_like(twin.w)
    for name, p in small.projections.items():
        if p.source != "x":
            values = p.edges.weight if name == "e_e" else feedback.weights()[name].numpy()
            at = twin.rows[p.source].start + p.edges.source, twin.rows[p.target].start + p.edges.target
            np.add.at(s, at, values)
    assert feedback.raw(point, psi).numpy() == pytest.approx(s @ psi.numpy(), abs=1e-12)
    before = made.compiled.weights["e_e"].detach().clone()
    made.run()
    assert torch.equal(made.compiled.weights["e_e"], before), "nor does it decay"


@pytest.mark.parametrize("lateral", [False, True], ids=["dynamic inversion", "lateral inhibition"])
def test_two_processes_make_the_updates_of_one(lateral: bool) -> None:
    def run(group: Group) -> dict[str, torch.Tensor]:
        made = trainer(
            random_circuit(0, gain=0.4), decay=0.01, clip=0.3, bound=0.6, group=group, lateral=lateral
        )
        made.run()
        return {**made.compiled.parameters_by_name(), **made.task.pathway.parameters()}

    one = run(ALONE)
    for found in together(2, run):
        for name, value in one.items():
            assert torch.allclose(found[name], value, atol=1e-7), name


def test_a_resumed_run_goes_on_to_the_bit() -> None:
    settings = dict(decay=0.01, bound=0.5, lateral=True)
    whole = trainer(random_circuit(0, gain=0.4), epochs=4, **settings)
    whole.run()
    half = trainer(random_circuit(0, gain=0.4), epochs=2, **settings)
    half.run()
    again = trainer(random_circuit(0, gain=0.4), epochs=4, **settings)
    again.restore(copy.deepcopy(half.state()))
    again.run()
    for name, value in whole.task.pathway.parameters().items():
        assert torch.equal(again.task.pathway.parameters()[name], value), name
    for name, value in whole.compiled.parameters_by_name().items():
        assert torch.equal(again.compiled.parameters_by_name()[name], value), name


def test_refusals() -> None:
    base = random_circuit(0, gain=0.4)

    def apical(*more, plastic: bool = True) -> AmongUnits:
        found = [*base.projections.values(), *(replace(p, plastic=plastic) for p in more)]
        made = circuit(list(base.populations.values()), found)
        return DynamicInversion(ApicalFeedback(CircuitSystem(CompiledCircuit(made, torch.float64))))

    rng = np.random.default_rng(0)
    back = turned(base.projections["e_y0"], "back", rng)
    with pytest.raises(CircuitError, match="teaches plastic burst projections, and the circuit has none"):
        KolenPollack(apical(back, plastic=False), 0.1)
    other = projection("i_e_burst", "i", "e", sparse(rng, 7, 4, 1.0, 1.0), "apical", "burst")
    without = [p for p in base.projections.values() if p.name != "e_i"]
    made = circuit(list(base.populations.values()), [*without, other])
    pathway = DynamicInversion(ApicalFeedback(CircuitSystem(CompiledCircuit(made, torch.float64))))
    with pytest.raises(CircuitError, match="no plastic rate-coded projection runs from 'e' to 'i'"):
        KolenPollack(pathway, 0.1)
    thin = replace(base.projections["e_e"], edges=sparse(rng, 7, 7, 1.1, 1.0), rank=7)
    made = circuit(
        list(base.populations.values()), [thin if p.name == "e_e" else p for p in base.projections.values()]
    )
    with pytest.raises(CircuitError, match="'e_e' are of two thin factors"):
        KolenPollackFeedback(CircuitSystem(CompiledCircuit(made, torch.float64)), 0)
    with pytest.raises(CircuitError, match="kolen_pollack teaches S of its own"):
        KolenPollack(DynamicInversion(Feedback()), 0.1)
