"""What must hold among energy-based control, rules that nudge the outputs, and solvers that descend an energy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from circuitlab.spec.base import listed
from circuitlab.spec.combinations import NUDGED_RULES, RULES, nudging
from circuitlab.spec.entries import Finding
from circuitlab.spec.solve_checks import BASELINES

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec

WITH_ENERGY = ("dynamic_inversion", "energy_based")
"""Pathways whose equilibria have an energy, with tied feedback."""
HOPFIELD = "hopfield"
DESCENTS = ("lbfgs", "levenberg")
"""Methods that descend an energy."""
NO_ENERGY = (*BASELINES, "feedback_alignment", "direct_feedback_alignment")
"""Rules whose second phase has no energy."""


def check_nudged(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `learn.beta`, `learn.energy` and the controller, and on circuits of energy-based control."""
    learn, control = spec.learn, spec.control
    for key, value, rules in (
        ("beta", learn.beta, tuple(NUDGED_RULES)),
        ("energy", learn.energy, ("equilibrium_propagation",)),
    ):
        if value is not None and learn.rule not in rules:
            yield ("learn", key), f"{learn.rule} has no {key}; allowed with {' and '.join(rules)}", ("learn",)
    if learn.rule in NUDGED_RULES:
        yield from _beta(spec)
    if learn.energy == HOPFIELD and learn.rule == "equilibrium_propagation":
        yield from _hopfield(spec, circuit)
    if control.pathway == "energy_based" and circuit is not None:
        for name, population in circuit.populations.items():
            if population.type != "input" and not population.controlled:
                yield (
                    ("control", "pathway"),
                    "energy_based gives every unit the control psi = phi - prediction, so the population"
                    f" '{name}' cannot be 'controlled: false'; allowed: {_others(learn.rule)}",
                    ("circuit",),
                )
                break


def _others(rule: str) -> str:
    """What a circuit that energy_based cannot control may have in its place."""
    if set(RULES[rule]) == {"energy_based"}:
        return f"a circuit whose units are all controlled, or another rule than {rule}"
    return listed(pathway for pathway in RULES[rule] if pathway != "energy_based")


def check_descent(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `solve.method: lbfgs` and `levenberg`, which descend an energy."""
    control, solve, learn = spec.control, spec.solve, spec.learn
    if learn.energy == HOPFIELD and learn.rule == "equilibrium_propagation" and solve.method == "levenberg":
        yield _refused("the nudged states of 'energy: hopfield' are found by sweeps", "levenberg")
        return
    if solve.method not in DESCENTS:
        return
    if learn.rule in NO_ENERGY:
        yield _refused(f"the second phase of {learn.rule} has no energy", solve.method)
    elif learn.energy == HOPFIELD and learn.rule == "equilibrium_propagation":
        yield _refused("the nudged states of 'energy: hopfield' are found by sweeps")
    elif control.pathway not in WITH_ENERGY or control.feedback != "tied":
        why = f"equilibria of {control.pathway} with feedback '{control.feedback}' have no energy"
        yield _refused(why, solve.method)
    elif control.controller.type == "integral" and (
        control.pathway == "dynamic_inversion" or solve.method == "levenberg"
    ):
        why = f"equilibria of {control.pathway} under an integral controller have none that it can descend"
        if solve.method == "lbfgs":
            why = "equilibria of dynamic_inversion under an integral controller have no energy"
        yield _refused(why, solve.method)
    elif circuit is not None:
        for name, population in circuit.populations.items():
            if population.type != "input" and not population.controlled:
                why = f"equilibria with a population that is not controlled ('{name}') have no energy"
                yield _refused(why, solve.method)
                return
        if control.controller.type != "integral":
            return
        for name, projection in circuit.projections.items():
            joined = projection.kind == "electrical" and projection.target in circuit.outputs
            if projection.carries == "rate" and (projection.source in circuit.outputs or joined):
                yield _refused(f"outputs that project on ('{name}') are held at their target by sweeps alone")
                return


def _refused(why: str, method: str = "lbfgs") -> Finding:
    return (
        ("solve", "method"),
        f"{method} descends an energy, and {why}; allowed here: auto, anderson, fixed_point, euler",
        ("control", "learn", "circuit"),
    )


def _beta(spec: ExperimentSpec) -> Iterator[Finding]:
    learn, path = spec.learn, ("learn", "beta")
    beta = learn.beta
    if learn.rule == "equilibrium_propagation" and (isinstance(beta, str) or not 0 < (beta or 0) < 1):
        yield (
            path,
            f"equilibrium_propagation nudges both ways by a number between 0 and 1, not by {beta}; leave it out"
            " for 0.01",
            ("learn",),
        )
        return
    if learn.rule == "predictive_coding" and not isinstance(beta, str) and not (beta or 0) > 0:
        yield (
            path,
            f"predictive_coding has a beta above 0 or outputs held at the target, not {beta}; leave it out for"
            " 'clamped'",
            ("learn",),
        )
        return
    wanted, given = nudging(learn.rule, beta), spec.control.controller
    assert wanted is not None
    if given.type != wanted["type"] or given.beta != wanted.get("beta"):
        yield (
            ("control", "controller"),
            f"{learn.rule} nudges the outputs by learn.beta, and has no other controller; leave 'controller' out",
            ("learn",),
        )


def _hopfield(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    path = ("learn", "energy")
    if spec.learn.penalty.jacobian is not None:
        yield (
            ("learn", "penalty", "jacobian"),
            "its updates differ between the two synapses of a weight, and 'energy: hopfield' keeps them equal;"
            " leave it out",
            ("learn",),
        )
    if circuit is None:
        return
    for name, p in circuit.projections.items():
        if p.kind == "electrical":
            yield (
                path,
                f"hopfield's energy is of rates, and the gap junctions '{name}' carry differences of potentials; write"
                " 'energy: discrepancy'",
                ("circuit",),
            )
            return
    ways = {(p.source, p.target) for p in circuit.projections.values() if p.carries == "rate"}
    for name, p in circuit.projections.items():
        if p.carries == "rate" and p.source not in circuit.inputs and (p.target, p.source) not in ways:
            yield (
                path,
                f"hopfield needs symmetric weights, and the projection '{name}' has no partner from '{p.target}'"
                f" to '{p.source}'; add {{source: {p.target}, target: {p.source}, connect: {{rule: transpose, of:"
                f" {name}}}}}, or write 'energy: discrepancy'",
                ("circuit",),
            )
            return
