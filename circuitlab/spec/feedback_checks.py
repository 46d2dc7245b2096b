"""What must hold in `learn.feedback`, and for rules and feedback rules that run in real time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from circuitlab.spec.base import listed
from circuitlab.spec.entries import Finding
from circuitlab.spec.feedback import DEFAULTS, NOISE

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec

ALIASES = {"noise_tau_ms": "noise_tau", "dt_ms": "dt"}
"""Keys by the names of their fields, where these differ."""


def check_feedback(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `learn.feedback`, and on time steps."""
    if circuit is not None and spec.learn.rule == "deep_feedback_control":
        yield from _step(spec, circuit, ("solve", "dt"), spec.solve.dt_ms)
    if spec.learn.rule == "deep_feedback_control" and spec.solve.start != "free":
        yield (
            ("solve", "start"),
            f"deep_feedback_control learns while the circuit moves away from its free state; allowed: free, not"
            f" {spec.solve.start}",
            ("learn",),
        )
    taught, path = spec.learn.feedback, ("learn", "feedback")
    if taught is None:
        return
    allowed = ["rule", *DEFAULTS[taught.rule], "optimizer"]
    for field in sorted(taught.model_fields_set):
        key = ALIASES.get(field, field)
        if key not in allowed and getattr(taught, field) is not None:
            yield (
                (*path, key),
                f"{taught.rule} has no '{key}'; allowed: {listed(dict.fromkeys(allowed))}",
                (),
            )
    if not set(NOISE) <= set(DEFAULTS[taught.rule]):
        if taught.decay is not None and not taught.decay < 1:
            yield (
                (*path, "decay"),
                f"kolen_pollack takes a share of the weights with every update, below 1, not {taught.decay:g}",
                (),
            )
        if circuit is not None and spec.control.feedback == "kolen_pollack" and not _plastic(circuit):
            yield (
                path,
                f"{taught.rule} has nothing to teach: no projection among the units of '{circuit.circuit}' is"
                " plastic, so that S is tied; write 'control.feedback: tied', or leave out 'plastic: false'",
                ("control", "circuit"),
            )
        return
    if taught.noise_tau_ms is None:
        yield (*path, "noise_tau"), "a time is wanted, such as '10 ms'", ()
        return
    for key in ("noise", "steps", "decay"):
        if getattr(taught, key) is None:
            yield (*path, key), "a number is wanted", ()
            return
    if circuit is not None:
        taught = taught.decided(min(time_constants(spec, circuit).values()))
    assert taught.noise_tau_ms is not None
    if taught.dt_ms is not None and taught.noise_tau_ms < taught.dt_ms:
        yield (
            (*path, "noise_tau"),
            f"{taught.noise_tau_ms:g} ms is shorter than the time step, {taught.dt_ms:g} ms: the noise would be gone "
            "before the controller answers it",
            (),
        )
    if circuit is not None and taught.dt_ms is not None:
        yield from _step(spec, circuit, (*path, "dt"), taught.dt_ms)
    if taught.rule == "alternating" and spec.control.controller.type == "proportional":
        yield (
            path,
            "alternating runs a controller with a time constant, and a proportional one has none; allowed: pi, "
            "leaky_integral, integral",
            ("control",),
        )


def _plastic(circuit: CircuitSpec) -> bool:
    """Whether a rate-coded projection among units learns."""
    return any(
        p.plastic and p.carries == "rate" and p.source not in circuit.inputs
        for p in circuit.projections.values()
    )


def time_constants(spec: ExperimentSpec, circuit: CircuitSpec) -> dict[str, float]:
    """In ms, of populations and the controller, by what a message calls them."""
    taus = {f"'{name}'": p.tau_ms for name, p in circuit.populations.items() if p.type != "input"}
    if spec.control.controller.tau_ms > 0:
        taus["the controller"] = spec.control.controller.tau_ms
    return taus


def _step(
    spec: ExperimentSpec, circuit: CircuitSpec, path: tuple[str, ...], dt_ms: float
) -> Iterator[Finding]:
    """A time step longer than a time constant."""
    taus = time_constants(spec, circuit)
    who = min(taus, key=lambda key: taus[key])
    if dt_ms > taus[who]:
        yield (
            path,
            f"a time step of {dt_ms:g} ms is longer than the time constant of {who}, {taus[who]:g} ms; at most"
            f" {taus[who]:g} ms",
            ("control",),
        )
