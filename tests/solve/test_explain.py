"""What is said of the solver is what the solver does: the graph's account agrees with the compiled equations."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, Feedback, RandomFeedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.dynamics.preconditioned import recurrent_group
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.solve.choose import CONTRACTING, SolveSettings, attempts, find, pays
from circuitlab.solve.explain import Asked, build_products, explain, slowest_rate
from circuitlab.solve.lbfgs import Lbfgs
from circuitlab.solve.levenberg import Levenberg
from circuitlab.spec.solve_checks import group_problem
from tests.oracles.circuits import random_circuit
from tests.oracles.equations import (
    MANY,
    adjoint_equations,
    chain,
    controlled_equations,
    dense,
    forward,
    with_bursts,
)
from tests.oracles.tasks import batch, task

ORDER = ["x", "e", "b", "i", "a", "y0", "y1"]
"""Populations of a chain with b between the recurrent e and i."""
CIRCUITS = {name: make() for name, make in MANY.items()} | {
    "large": dense(1100, 0.3),
    "dense": dense(64, 0.5),
    "gap": replace(
        chain(),
        populations=dict(sorted(chain().populations.items(), key=lambda item: ORDER.index(item[0]))),
    ),
}
PATHWAYS = {
    ("dynamic_inversion", "tied"): None,
    ("dynamic_inversion", "random"): lambda s: DynamicInversion(RandomFeedback(s, 0)),
    ("linear_feedback", "random"): lambda s: LinearFeedback.random(s, 0, 0.3),
    ("energy_based", "tied"): lambda s: EnergyBased(Feedback()),
    ("energy_based", "random"): lambda s: EnergyBased(RandomFeedback(s, 0)),
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_graph_and_the_compiled_circuit_agree_on_what_can_be_preconditioned(name: str) -> None:
    circuit = CIRCUITS[name]
    system = task(circuit).system
    problem = group_problem(circuit.strongly_connected(), circuit.populations)
    assert (problem is None) == (recurrent_group(system) is not None)


@pytest.mark.parametrize("pathway", PATHWAYS)
@pytest.mark.parametrize("name", CIRCUITS)
def test_under_control_each_claim_is_what_the_equations_are(name: str, pathway: tuple[str, str]) -> None:
    circuit = CIRCUITS[name]
    if pathway[0] == "energy_based" and name == "not controlled":
        with pytest.raises(CircuitError, match="energy_based gives every unit the control"):
            controlled_equations(t := task(circuit, pathway=PATHWAYS[pathway]), batch(t, 2))
        return
    for leak, controller in ((1.0, leaky_integral(1.0, 10.0)), (0.0, integral(10.0))):
        t = task(circuit, pathway=PATHWAYS[pathway], controller=controller)
        b = batch(t, 16)
        equations = controlled_equations(t, b)
        said = explain(circuit, SolveSettings(), Asked(16, torch.float64, True, *pathway, leak))
        assert said.startswith("acyclic") == FreeEquations(t.system, b.x).direct
        chain_of = attempts(equations, SolveSettings(), torch.float64)
        assert ("then Levenberg's descent" in said) == any(isinstance(s, Levenberg) for s in chain_of)
        assert ("descent of the energy by L-BFGS (8" in said) == isinstance(chain_of[0], Lbfgs)
        assert ("too large" in said) == (t.system.size > 1024 and pathway[1] == "tied" and leak > 0)
        ever = any(pays(equations, SolveSettings(), rate / 1000, torch.float64, 2) for rate in range(1, 1000))
        assert (re.search(r"; preconditioned by", said) is not None) == ever, said


@pytest.mark.parametrize("name", CIRCUITS)
def test_for_a_baseline_one_sweep_is_called_exact_where_it_is(name: str) -> None:
    circuit = CIRCUITS[name]
    t = task(circuit)
    b = batch(t, 2)
    said = explain(circuit, SolveSettings(), Asked(2, torch.float64, controls=False))
    adjoint = adjoint_equations(t, b, torch.zeros(t.system.size, 2, dtype=torch.float64))
    assert ("one backward are exact" in said) == adjoint.direct


@pytest.mark.parametrize("samples", [1, 16, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rate_said_is_where_the_choice_turns(samples: int, dtype: torch.dtype) -> None:
    circuit = dense(64, 0.5)
    t = task(circuit)
    equations = controlled_equations(t, batch(t, samples))
    settings, asked = SolveSettings(), Asked(samples, dtype)
    assert build_products(circuit, samples) == pytest.approx(equations.build_cost())
    rate = slowest_rate(circuit, settings, asked)
    said = explain(circuit, settings, asked)
    if rate < CONTRACTING:
        assert f"leave {rate:.2f} to {CONTRACTING:g}" in said
        assert pays(equations, settings, rate * 1.001, dtype, 2)
        assert not pays(equations, settings, rate * 0.999, dtype, 2)
        assert not pays(equations, settings, CONTRACTING, dtype, 2)
    else:
        assert f"would not pay at batch {samples}" in said
        assert not pays(equations, settings, CONTRACTING - 1e-6, dtype, 2)


def test_words() -> None:
    said = {
        "acyclic": explain(forward(), SolveSettings(), Asked(64, torch.float32, controls=False)),
        "recurrent": explain(dense(64), SolveSettings(depth=7), Asked(64, torch.float32)),
        "several": explain(two_groups(), SolveSettings(), Asked(64, torch.float32)),
    }
    assert said["acyclic"] == "acyclic: one sweep forward and one backward are exact"
    assert said["recurrent"].startswith(
        "one recurrent group of 64 units: sweeps with Anderson acceleration (7 steps remembered); preconditioned by"
    )
    assert said["recurrent"].endswith(
        "then Levenberg's descent of the energy (68 <= 1024 units) for what is left, then slower, deeper Anderson"
    )
    assert "2 recurrent groups of 7 and 4 units" in said["several"]
    assert "not preconditioned, for there are 2 recurrent groups" in said["several"]


def two_groups() -> Circuit:
    base = random_circuit(0)
    left = {name: p for name, p in base.projections.items() if name not in ("i_e", "i_e_soma")}
    again = replace(base.projections["e_e"], name="i_i", source="i", target="i")
    edges = again.edges
    inside = (edges.source < 4) & (edges.target < 4)
    few = replace(
        edges,
        source=edges.source[inside],
        target=edges.target[inside],
        weight=edges.weight[inside],
        multiplicity=edges.multiplicity[inside],
    )
    return replace(base, projections={**left, "i_i": replace(again, edges=few)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            SolveSettings(method="euler", dt_ms=0.5),
            "real time, 0.5 ms a step for 20000 ms at most, as solve.method",
        ),
        (
            SolveSettings(method="fixed_point", damping=0.3),
            "plain sweeps with steps of 0.3, as solve.method says",
        ),
        (SolveSettings(method="levenberg"), "Levenberg's descent of the energy, as solve.method says"),
        (SolveSettings(method="anderson"), "(4 steps remembered), as solve.method says"),
        (
            SolveSettings(method="anderson", preconditioner="mean_response"),
            "says; preconditioned by the group's mean",
        ),
        (SolveSettings(preconditioner="none"), "; not preconditioned, as solve.preconditioner says;"),
        (SolveSettings(preconditioner="mean_response"), "mean response, as solve.preconditioner says ("),
    ],
)
def test_what_is_asked_for_is_named(settings: SolveSettings, words: str) -> None:
    assert words in explain(dense(64), settings, Asked(64, torch.float32))


def test_apical_feedback_and_warm_baselines_are_not_preconditioned() -> None:
    circuit = with_bursts(chain())
    t = task(circuit, pathway=lambda s: DynamicInversion(ApicalFeedback(s)))
    assert controlled_equations(t, batch(t, 2)).build_cost() is None
    said = explain(circuit, SolveSettings(), Asked(9, torch.float64, feedback="apical"))
    assert "not preconditioned, for feedback is apical" in said
    said = explain(dense(64), SolveSettings(), Asked(9, torch.float64, controls=False, warm=True))
    assert "not preconditioned, for the baseline starts from earlier states" in said


def test_the_method_that_was_used_begins_as_said() -> None:
    t = task(dense(64, 0.8), tolerance=1e-8)
    b = batch(t, 500)
    free = t.free(t.system.drive(b.x))
    rate = slowest_rate(dense(64, 0.8), t.settings, Asked(500, torch.float64))
    equations = controlled_equations(t, b, free.fields.phi)
    assert rate < free.rate < CONTRACTING
    assert find(equations, t.settings, rate=free.rate).method == "preconditioned anderson"
    assert find(equations, t.settings, rate=0.999 * rate).method == "anderson"
