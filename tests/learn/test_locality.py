"""Locality: the update of a synapse moves with what its two neurons hold, and with nothing else in the circuit.

Every rule is either in `LOCAL`, as the function that makes updates from the fields of neurons, or in `NOT_LOCAL`, with
the reason. A new rule joins by an entry in one of them; `test_every_rule_is_here` fails until it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, KolenPollackFeedback
from circuitlab.control.feedback import AmongUnits, Feedback
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Fields
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.deep_feedback_control import compared
from circuitlab.learn.feedback.kolen_pollack import KolenPollack
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise, NoisyFeedback
from circuitlab.learn.feedback.tracking import delta_rule
from circuitlab.learn.rules import RULES
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import SolveSettings
from circuitlab.spec.combinations import FEEDBACK_RULES
from tests.oracles.circuits import circuit, edges, projection, random_circuit, shifted, with_junctions
from tests.oracles.equations import dense, forward

SAMPLES = 3


@dataclass(frozen=True)
class State:
    """What neurons hold: phi, psi and the error of their interneurons, [unit, sample]; u, [output unit, sample]; x,
    [input unit, sample]."""

    phi: Tensor
    psi: Tensor
    error: Tensor
    u: Tensor
    x: Tensor


@dataclass(frozen=True)
class Case:
    """A circuit on which a rule is tested."""

    graph: Circuit
    compiled: CompiledCircuit
    system: CircuitSystem


Updates = Callable[[Case], Callable[[State], dict[str, Tensor]]]


def _outcome(case: Case, state: State, updates: dict[str, Tensor], gated: bool = False) -> Outcome:
    """What a rule would have found, had the equilibrium these fields."""
    none, ones = torch.zeros(SAMPLES), torch.ones(SAMPLES, dtype=torch.bool)
    fields = Fields(state.phi, state.psi, state.u)
    solution = Solution(fields, state.phi, ones, none, none.long(), none, none.long(), "given")
    return Outcome(updates, none, solution, solution, ones, gated=gated)


def _task(case: Case, pathway: AmongUnits) -> Task:
    loss = OutputLoss([(LOSSES["squared_error"], rows) for rows in case.compiled.outputs.values()])
    return Task(case.system, loss, pathway, leaky_integral(1.0, 10.0), SolveSettings())


def least_control(gated: bool) -> Updates:
    return lambda case: lambda state: case.system.update(state.phi, state.psi, state.x, gated)


def kolen_pollack(apical: bool, gated: bool = False) -> Updates:
    """S beside W; its updates under the names of the projections that it transposes, or of the bursts themselves."""

    def make(case: Case) -> Callable[[State], dict[str, Tensor]]:
        feedback = ApicalFeedback(case.system) if apical else KolenPollackFeedback(case.system, 0)
        pathway = DynamicInversion(feedback)
        rule, task = KolenPollack(pathway, 0.0), _task(case, pathway)

        def run(state: State) -> dict[str, Tensor]:
            own = case.system.update(state.phi, state.psi, state.x, gated)
            found = rule.updates(task, Batch(state.x, state.u), _outcome(case, state, own, gated), 0)
            return {name.removeprefix("S/"): value for name, value in found.items()}

        return run

    return make


def tracking(case: Case) -> Callable[[State], dict[str, Tensor]]:
    pathway = LateralInhibition(case.system, Feedback(), Interneurons(case.system))

    def run(state: State) -> dict[str, Tensor]:
        rate = case.system.rates(state.phi)
        found = delta_rule(pathway, rate, state.x, state.error + state.psi, state.error)
        return {name.removeprefix("I/"): value for name, value in found.items()}

    return run


def deep_feedback_control(case: Case) -> Callable[[State], dict[str, Tensor]]:
    """Of one moment, or of the state that the rule takes."""

    def run(state: State) -> dict[str, Tensor]:
        post, rate = compared(case.system, Fields(state.phi, state.psi, state.u))
        return case.system.synaptic(post, rate, state.x)

    return run


LOCAL: dict[str, Updates] = {
    "least_control": least_control(gated=False),
    "least_control_gated": least_control(gated=True),
    "kolen_pollack": kolen_pollack(apical=False),
    "kolen_pollack gated": kolen_pollack(apical=False, gated=True),
    "kolen_pollack of bursts": kolen_pollack(apical=True),
    "kolen_pollack of bursts, gated": kolen_pollack(apical=True, gated=True),
    "tracking": tracking,
    "deep_feedback_control": deep_feedback_control,
    "deep_feedback_control_ss": deep_feedback_control,
    "deep_feedback_control_ssa": deep_feedback_control,
    "predictive_coding": least_control(gated=False),
}
"""Local rules: from a circuit, a function that makes updates from a state, by the names of projections and biases."""

NOT_LOCAL = {
    "recurrent_backprop": "a second phase, along the transposed weights",
    "backprop": "a second phase, along the transposed weights",
    "feedback_alignment": "a second phase, in which signals travel and the circuit is held still",
    "direct_feedback_alignment": "the error of the outputs at every neuron, the circuit held still",
    "equilibrium_propagation": "two equilibria are compared, which lie apart in time",
}
"""Baselines that are not local in space and time, and why."""


def with_bursts(base: Circuit) -> Circuit:
    """Plastic bursts from the outputs and the pyramidal cells onto pyramidal cells, some synapses beyond the mirror."""
    rng, found = np.random.default_rng(3), dict(base.projections)
    for name in ("e_e", "e_y0"):
        p = base.projections[name]
        e = edges(p.edges.target, p.edges.source, rng.standard_normal(len(p.edges)))
        found[f"{name}_back"] = projection(f"{name}_back", p.target, p.source, e, "apical", "burst")
    return circuit(list(base.populations.values()), list(found.values()))


def with_gaps(base: Circuit) -> Circuit:
    """Plastic gap junctions between pyramidal cells and interneurons, and among pyramidal cells."""
    among = projection("gap", "e", "e", edges([0, 2, 5, 3], [1, 4, 6, 0], [0.3, 0.2, 0.7, 0.4]))
    joined = with_junctions(base, [("e", "i")])
    return circuit(
        list(joined.populations.values()), [*joined.projections.values(), replace(among, kind="electrical")]
    )


CIRCUITS = {
    "layered": lambda: forward(),
    "recurrent": lambda: dense(units=6),
    "sparse, Dale's law": lambda: random_circuit(1, p=0.4, dale=True, outputs=(3, 2)),
    "pyramidal": lambda: with_bursts(random_circuit(2, p=0.4)),
    "gap junctions": lambda: with_gaps(shifted(random_circuit(2, p=0.4))),
}


def _case(name: str) -> Case:
    graph = CIRCUITS[name]()
    compiled = CompiledCircuit(graph, torch.float64)
    return Case(graph, compiled, CircuitSystem(compiled))


def _state(case: Case) -> State:
    rng = np.random.default_rng(0)
    n, k, m = case.compiled.size, case.compiled.output_size, case.compiled.input_size
    return State(*(torch.tensor(rng.standard_normal((rows, SAMPLES))) for rows in (n, n, n, k, m)))


def _touched(case: Case, name: str, rows: slice, pixel: int | None = None) -> np.ndarray:
    """Which synapses of a projection (or biases of a population) belong to a unit of the state, or to an input."""
    unit = rows.start
    if name.endswith("_bias"):
        own = case.compiled.units[name.removesuffix("_bias")]
        return (np.arange(own.start, own.stop) == unit) & (pixel is None)
    link = case.compiled.links[name]
    e, from_input = link.projection.edges, link.projection.source in case.compiled.inputs
    if pixel is not None:
        return (link.source.start + e.source == pixel) & from_input
    after = link.target.start + e.target == unit
    before = (link.source.start + e.source == unit) & (not from_input)
    return after | before


def _moved(state: State, unit: int, fields: tuple[str, ...], output: int) -> State:
    """The state with all that one neuron holds changed; its u too where it is an output."""
    changed = {name: getattr(state, name).clone() for name in fields}
    for number, values in enumerate(changed.values()):
        values[unit] += 0.5 + 0.1 * number
    u = state.u.clone()
    if unit >= output:
        u[unit - output] -= 0.4
    return replace(state, u=u, **changed)


PAIRS = [
    (rule, name)
    for rule in LOCAL
    for name in CIRCUITS
    if (name == "pyramidal" or "bursts" not in rule) and (rule, name) != ("tracking", "gap junctions")
]


@pytest.mark.parametrize(("rule", "circuit_name"), PAIRS)
def test_an_update_moves_only_with_its_own_two_neurons(rule: str, circuit_name: str) -> None:
    case = _case(circuit_name)
    run, state = LOCAL[rule](case), _state(case)
    before = run(state)
    assert before
    for unit in range(case.compiled.size):
        after = run(_moved(state, unit, ("phi", "psi", "error"), case.system.output.start))
        for name, value in after.items():
            moved = (value != before[name]).numpy()
            assert (moved == _touched(case, name, slice(unit, unit + 1))).all(), (name, unit)
    for pixel in range(case.compiled.input_size):
        x = state.x.clone()
        x[pixel] += 1
        after = run(replace(state, x=x))
        for name, value in after.items():
            moved = (value != before[name]).numpy()
            assert (moved == _touched(case, name, slice(0, 0), pixel)).all(), (name, pixel)


@pytest.mark.parametrize("rule", LOCAL)
def test_an_update_is_a_synapse_of_the_graph(rule: str) -> None:
    case = _case("pyramidal")
    for name, value in LOCAL[rule](case)(_state(case)).items():
        population = name.removesuffix("_bias")
        size = (
            case.graph.populations[population].size
            if name.endswith("_bias")
            else len(case.graph.projections[name].edges)
        )
        assert value.shape == (size,)


@pytest.mark.parametrize("rule", [AntiHebbian(Noise()), Alternating(Noise(), leaky_integral(1.0, 10.0))])
def test_feedback_synapses_see_their_neuron_and_the_controller(
    rule: NoisyFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row i of the change of Q moves with the noise and the feedback weights of neuron i alone."""
    case = _case("recurrent")
    n, k = case.compiled.size, case.compiled.output_size
    rng = np.random.default_rng(1)
    root = torch.tensor(rng.standard_normal((k, k)))
    moments = {"cross": torch.tensor(rng.standard_normal((n, k)))}
    lost = torch.zeros(1, dtype=torch.bool)
    monkeypatch.setattr(type(rule), "_moments", lambda *_: (root @ root.t(), moments["cross"].clone(), lost))

    def change(q: Tensor) -> Tensor:
        return rule.change(LinearFeedback(case.system, q), None, None, 0, True)  # type: ignore[arg-type]

    q = torch.tensor(rng.standard_normal((n, k)))
    before, own = change(q), moments["cross"]
    for unit in range(n):
        for moved_q, moved_cross in ((1.0, 0.0), (0.0, 1.0)):
            other = q.clone()
            other[unit] += moved_q
            moments["cross"] = own.clone()
            moments["cross"][unit] += moved_cross
            rows = (change(other) != before).any(1)
            assert rows.nonzero().flatten().tolist() == [unit]


def test_every_rule_is_here() -> None:
    local = {name.split(" ")[0] for name in LOCAL}
    assert set(RULES) <= local | set(NOT_LOCAL)
    assert local & set(FEEDBACK_RULES)
    assert not set(NOT_LOCAL) & local


def test_the_test_sees_what_is_not_local() -> None:
    """A rule that subtracts the mean control of all neurons is caught."""
    case = _case("recurrent")
    state = _state(case)

    def centred(of: State) -> dict[str, Tensor]:
        return case.system.update(of.phi, of.psi - of.psi.mean(0), of.x)

    before, after = centred(state), centred(_moved(state, 0, ("psi",), case.system.output.start))
    moved = (after["r_r"] != before["r_r"]).numpy()
    assert not (moved == _touched(case, "r_r", slice(0, 1))).all()
