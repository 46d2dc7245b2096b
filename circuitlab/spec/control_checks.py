"""What must hold in the section `control`, and between it and the learning rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from circuitlab.spec.base import listed
from circuitlab.spec.combinations import (
    FEEDBACK_RULES,
    PATHWAYS,
    RATE_RULES,
    RULES,
    SCALED,
    combinations,
)
from circuitlab.spec.entries import Finding

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec


def check_control(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `control`, and on rules that make no sense under its pathway."""
    control = spec.control
    allowed = PATHWAYS[control.pathway]
    if control.feedback not in allowed:
        yield (
            ("control", "feedback"),
            f"{control.pathway} has no feedback {_name(control.feedback)}; allowed: {listed(map(_written, allowed))}",
            (),
        )
    else:
        yield from _combination(spec)
    if control.nudge is not None and control.pathway != "deep_feedback_control":
        yield (
            ("control", "nudge"),
            f"{control.pathway} holds the output at the target itself, not at a nudged one; allowed with"
            " deep_feedback_control",
            (),
        )
    if control.pathway != "lateral_inhibition":
        for path, given in (
            (("control", "interneurons"), control.interneurons),
            (("learn", "interneurons"), spec.learn.interneurons),
        ):
            if given is not None:
                yield (
                    path,
                    f"{control.pathway} has no interneurons of its own; allowed with lateral_inhibition",
                    ("control",),
                )
    if control.feedback == "file" and control.file is None:
        yield (
            ("control", "feedback"),
            "feedback from a file needs 'file'; write 'feedback: {file: Q.npz}'",
            (),
        )
    if control.feedback != "file" and control.file is not None:
        yield (
            ("control", "file"),
            f"feedback '{control.feedback}' takes no file; write 'feedback: {{file: Q.npz}}'",
            (),
        )
    if control.feedback not in SCALED and "scale" in control.model_fields_set:
        yield (
            ("control", "scale"),
            f"'scale' multiplies random feedback weights; allowed with 'feedback: {' or '.join(SCALED)}'",
            (),
        )
    yield from _controller(spec)
    if circuit is None:
        return
    yield from _junctions(spec, circuit)
    bursts = any(p.carries == "burst" for p in circuit.projections.values())
    if control.feedback == "apical" and control.feedback in allowed and not bursts:
        yield (
            ("control", "feedback"),
            f"the circuit '{circuit.circuit}' has no projection with 'carries: burst', which"
            " feedback 'apical' is made of; allowed: tied, random, kolen_pollack",
            ("circuit",),
        )
    if not any(circuit.populations[name].controlled for name in circuit.outputs):
        yield (
            ("control",),
            f"no output of the circuit '{circuit.circuit}' is controlled ('controlled: false'), so control"
            " has nowhere to enter",
            ("circuit",),
        )


def _junctions(spec: ExperimentSpec, circuit: CircuitSpec) -> Iterator[Finding]:
    """What does not go with gap junctions, and with delays."""
    junctions = {name: p for name, p in circuit.projections.items() if p.kind == "electrical"}
    if junctions and spec.control.pathway == "lateral_inhibition":
        yield (
            ("control", "pathway"),
            "the interneurons of lateral_inhibition foresee what synapses predict, not the currents of gap junctions"
            f" ('{next(iter(junctions))}'); allowed: {listed(one for one in PATHWAYS if one != 'lateral_inhibition')}",
            ("circuit",),
        )
    plastic = [name for name, p in junctions.items() if p.plastic]
    if plastic and spec.learn.rule in RATE_RULES:
        yield (
            ("learn", "rule"),
            f"{spec.learn.rule} compares rates, and conductances ('{plastic[0]}') learn from potentials and control;"
            " write 'plastic: false' for these, or another rule",
            ("circuit",),
        )
    late = [name for name, p in circuit.projections.items() if p.delay_ms]
    taught = spec.learn.feedback
    if late and spec.learn.rule == "deep_feedback_control":
        yield (("learn", "rule"), _delayed(spec.learn.rule, late[0]), ("circuit",))
    if late and taught is not None and taught.rule in ("anti_hebbian", "alternating"):
        yield (("learn", "feedback"), _delayed(taught.rule, late[0]), ("circuit",))


def _delayed(rule: str, name: str) -> str:
    return (
        f"{rule} learns while time passes, and does not know the delay of '{name}'; leave the delay out, or choose a"
        " rule that learns at equilibrium"
    )


def _combination(spec: ExperimentSpec) -> Iterator[Finding]:
    """Rules, of the circuit and of the feedback, that do not go with the pathway and its feedback."""
    control, learn = spec.control, spec.learn
    found = f"{control.pathway} with feedback {_name(control.feedback)}"
    allowed = RULES[learn.rule]
    if control.feedback not in allowed.get(control.pathway, ()):
        yield (
            ("learn", "rule"),
            f"{learn.rule} makes no sense under {found}; allowed: {combinations(allowed)}",
            ("control",),
        )
    taught = learn.feedback
    if taught is not None and control.feedback not in FEEDBACK_RULES[taught.rule].get(control.pathway, ()):
        yield (
            ("learn", "feedback"),
            f"{taught.rule} does not teach the feedback weights of {found}; allowed:"
            f" {combinations(FEEDBACK_RULES[taught.rule])}",
            ("control",),
        )


def _written(feedback: str) -> str:
    """A feedback as a file writes it."""
    return "{file: Q.npz}" if feedback == "file" else feedback


def _name(feedback: str) -> str:
    return "{file: ...}" if feedback == "file" else f"'{feedback}'"


def _controller(spec: ExperimentSpec) -> Iterator[Finding]:
    controller, path = spec.control.controller, ("control", "controller")
    if controller.type == "leaky_integral" and controller.alpha == 0:
        yield (*path, "alpha"), "a leaky integral needs alpha above 0; write 'type: integral' for no leak", ()
    if controller.type == "integral" and controller.leak:
        yield (
            (*path, "alpha"),
            f"an integral controller has no leak, but alpha is {controller.leak:g}; allowed: 0",
            (),
        )
    if controller.type == "pi" and controller.leak == 0:
        yield (*path, "alpha"), "the integral part of 'pi' needs a leak alpha above 0", ()
    if controller.type != "pi" and controller.k_p is not None:
        yield (*path, "k_p"), f"'{controller.type}' has no gain k_p; allowed with 'type: pi'", ()
    if controller.type == "proportional":
        if controller.leak is not None:
            inverse = (
                f"; write 'beta: {1 / controller.leak:g}' (beta = 1/alpha)" if controller.leak > 0 else ""
            )
            yield (*path, "alpha"), f"a proportional controller has a gain beta, no alpha{inverse}", ()
        if controller.tau_ms != 0:
            yield (*path, "tau"), "a proportional controller has no time constant; leave 'tau' out", ()
    elif controller.beta is not None:
        yield (
            (*path, "beta"),
            f"'{controller.type}' has a leak alpha, no beta; write 'alpha: {1 / controller.beta:g}'"
            " (alpha = 1/beta)",
            (),
        )
    if controller.type != "proportional" and controller.tau_ms == 0:
        yield (*path, "tau"), "a time is wanted, such as '100 ms'", ()
