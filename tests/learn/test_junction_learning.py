"""Every learning rule on circuits with gap junctions, gains and thresholds: right, or refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuitlab.control.deep_feedback_control import DeepFeedbackControl as DfcPathway
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.feedback import KolenPollackFeedback, RandomFeedback
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.output import leaky_integral, proportional
from circuitlab.control.realtime import RealTime
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import Task
from circuitlab.learn.constrain import SingularValueBound
from circuitlab.learn.deep_feedback_control import DeepFeedbackControl, LinearisedSteadyState, SteadyState
from circuitlab.learn.feedback_alignment import DirectFeedbackAlignment, FeedbackAlignment
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.nudged import EquilibriumPropagation, PredictiveCoding
from tests.oracles.circuits import random_circuit, shifted, with_junctions
from tests.oracles.equations import chain, forward
from tests.oracles.tasks import batch, finite_differences, task
from tests.theory.test_references import parameter_jacobian

JOINED = with_junctions(shifted(random_circuit(2, gain=0.4)), [("e", "e"), ("e", "i")])
FROZEN = with_junctions(random_circuit(2, gain=0.4), [("e", "e"), ("e", "i"), ("y0", "y0")], plastic=False)
LINEAR = with_junctions(
    random_circuit(0, activation="linear", gain=0.3), [("e", "e"), ("e", "i")], plastic=False
)


def dfc(small: Circuit, **settings) -> Task:
    return task(
        small,
        losses=("squared_error",),
        pathway=lambda system: DfcPathway.jacobian(system).nudged(0.1),
        **settings,
    )


def test_feedback_alignment_with_the_transpose_is_recurrent_backprop() -> None:
    """S = W^T, put into random feedback by hand; gap junctions need no S, they are their own way back."""

    def own(system):
        feedback = RandomFeedback(system, 0)
        for name, kernel in feedback.kernels.items():
            kernel.values.detach().copy_(system.compiled.weights[name].detach())
        return DynamicInversion(feedback)

    t = task(JOINED, pathway=own)
    b = batch(t)
    ours, exact = FeedbackAlignment().outcome(t, b).updates, RecurrentBackprop().outcome(t, b).updates
    assert ours.keys() == exact.keys() >= {"e_e_gap", "e_i_gap"}
    for name in exact:
        assert torch.allclose(ours[name], exact[name], atol=1e-10), name


@pytest.mark.parametrize("beta", [0.01, 0.001])
@pytest.mark.parametrize("kind", [PredictiveCoding, EquilibriumPropagation])
def test_weak_nudges_tend_to_recurrent_backprop(kind, beta: float) -> None:
    """The credit tends to the loss gradient: with an error of order beta, or of beta squared."""
    t = task(JOINED, pathway=lambda system: EnergyBased(Feedback()), tolerance=1e-9, thorough=True)
    t = replace(t, controller=proportional(beta)) if kind is PredictiveCoding else t
    b = batch(t)
    found, exact = kind(beta).outcome(t, b), RecurrentBackprop().outcome(t, b).updates
    assert bool(found.used.all())
    error = 2 * beta if kind is PredictiveCoding else 2 * beta**2
    for name, update in exact.items():
        assert torch.allclose(found.updates[name], update, atol=error + 1e-6), name


def test_dfc_rules_agree_on_a_linear_circuit() -> None:
    """On a linear circuit the linearised steady state is the steady state (DFC Lemma 1), conductances too."""
    t = dfc(LINEAR)
    b = batch(t)
    one, other = (rule.outcome(t, b) for rule in (SteadyState(), LinearisedSteadyState()))
    for name, update in one.updates.items():
        assert torch.allclose(other.updates[name], update, atol=1e-9), name


def test_real_time_comes_to_rest_at_the_equilibrium() -> None:
    t = dfc(FROZEN, controller=leaky_integral(0.2, 50.0), tolerance=1e-9, dt_ms=0.5, max_time_ms=5000.0)
    b = batch(t)
    during, rest = DeepFeedbackControl().outcome(t, b), SteadyState().outcome(t, b)
    assert bool(during.used.all())
    assert torch.allclose(during.credit.fields.phi, rest.credit.fields.phi, atol=1e-6)


@pytest.mark.parametrize(
    "rule", [SteadyState(), LinearisedSteadyState(), DeepFeedbackControl()], ids=lambda r: r.name
)
def test_rules_of_rates_refuse_conductances_that_learn(rule) -> None:
    with pytest.raises(CircuitError, match=r"learn.rule: deep_feedback_control.*conductances \('e_e_gap'\)"):
        rule.check(task(JOINED).system)
    rule.check(task(FROZEN).system)


def test_others_refuse_gap_junctions_by_name() -> None:
    t = task(FROZEN)
    b = batch(t)
    with pytest.raises(CircuitError, match="backprop needs an acyclic circuit"):
        Backprop().outcome(t, b)
    with pytest.raises(CircuitError, match=r"gap junctions.*e_e_gap, e_i_gap"):
        LateralInhibition(t.system, Feedback(), Interneurons(t.system))
    with pytest.raises(CircuitError, match=r"hopfield.*gap junctions.*e_e_gap"):
        EquilibriumPropagation(energy="hopfield").check(t.system)


def test_what_learns_in_real_time_refuses_delays_by_name() -> None:
    late = {n: replace(p, delay_ms=1.5) if n == "e_i" else p for n, p in FROZEN.projections.items()}
    t = dfc(replace(FROZEN, projections=late))
    b = batch(t)
    with pytest.raises(CircuitError, match="delay of 'e_i'"):
        DeepFeedbackControl().outcome(t, b)
    drive = t.system.drive(b.x)
    with pytest.raises(CircuitError, match="delay of 'e_i'"):
        RealTime(t.pathway, t.under_control(drive, b.target, t.free(drive)), None, 1.0)


def test_delays_change_no_equilibrium_and_no_update() -> None:
    late = {
        n: p if p.kind == "electrical" else replace(p, delay_ms=2.0) for n, p in JOINED.projections.items()
    }
    plain, delayed = task(JOINED), task(replace(JOINED, projections=late))
    b = batch(plain)
    one, other = (LeastControl().outcome(t, b) for t in (plain, delayed))
    assert torch.equal(one.credit.state, other.credit.state)
    assert all(torch.equal(other.updates[name], update) for name, update in one.updates.items())


def test_direct_feedback_alignment_gives_conductances_their_share() -> None:
    """psi is given; a conductance gets (psi_i - psi_j) (phi_j - phi_i), which is the derivative of psi^T f."""
    t = task(JOINED, pathway=DfcPathway.jacobian)
    b = batch(t)
    found = DirectFeedbackAlignment().outcome(t, b)
    phi, psi = found.free.fields.phi, found.credit.fields.psi

    def work() -> torch.Tensor:
        return (psi * t.system.predict(phi, t.system.drive(b.x))).sum()

    for name, entries in finite_differences(t, work).items():
        for index, difference in entries:
            assert 4 * float(found.updates[name][index]) == pytest.approx(difference, abs=1e-7), name


def test_kolen_pollack_leaves_conductances_to_the_principle() -> None:
    """S follows synapses alone: the update of a conductance is that of the same states under any feedback."""
    t = task(JOINED, pathway=lambda system: DynamicInversion(KolenPollackFeedback(system, 0)))
    assert set(t.pathway.parameters()) == {f"S/{n}" for n in ("e_e", "e_i", "i_e", "i_e_soma", "e_y0")}
    b = batch(t)
    found = LeastControl().outcome(t, b)
    expected = t.system.update(found.credit.fields.phi, found.credit.fields.psi / 4, b.x)["e_i_gap"]
    assert torch.allclose(found.updates["e_i_gap"], expected, atol=1e-12)


def test_parameters_move_outputs_as_the_theory_says() -> None:
    """J_theta J_theta^T with conductances among theta, against differences of the settled outputs."""
    from circuitlab.theory.jacobian import output_jacobian
    from circuitlab.theory.references import parameter_gram

    t = task(with_junctions(random_circuit(2, gain=0.4), [("e", "i")], p=0.4))
    b = batch(t, samples=1)
    drive = t.system.drive(b.x)
    phi = t.free(drive).fields.phi
    gram = parameter_gram(t.system, output_jacobian(t.system, phi, drive), phi, b.x)[0].numpy()
    wanted = parameter_jacobian(t, b.x)
    assert gram == pytest.approx(wanted @ wanted.T, abs=1e-5)


def test_bounds_are_on_synapses_and_pass_over_groups_of_gap_junctions_alone() -> None:
    compiled = task(with_junctions(forward(), [("a", "a")])).system.compiled  # type: ignore[attr-defined]
    assert compiled.circuit.strongly_connected() == [("a",)]
    SingularValueBound(compiled, 0.5).apply(thorough=True)
    compiled = task(with_junctions(chain(), [("e", "e")])).system.compiled  # type: ignore[attr-defined]
    before = compiled.weights["e_e_gap"].clone()
    SingularValueBound(compiled, 0.1).apply(thorough=True)
    assert torch.equal(compiled.weights["e_e_gap"], before)


def test_lateral_inhibition_with_gains_and_thresholds_is_dynamic_inversion_for_linear_rates() -> None:
    """With linear rates, whatever their gain and threshold, exact interneurons leave psi itself."""
    small = shifted(random_circuit(0, activation="linear", gain=0.3))
    lateral = task(small, pathway=lambda system: LateralInhibition(system, Feedback(), Interneurons(system)))
    exact = task(small)
    b = batch(exact)
    states = []
    for t in (lateral, exact):
        drive = t.system.drive(b.x)
        states.append(t.controlled(drive, b.target, t.free(drive), b.x))
    assert bool(states[0].converged.all())
    assert torch.allclose(states[0].fields.psi, states[1].fields.psi, atol=1e-9)
