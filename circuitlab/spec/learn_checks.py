"""What must hold among the options that keep learning settled: each is refused where it would do nothing."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from circuitlab.spec.combinations import CONTROLLED_RULES
from circuitlab.spec.entries import Finding

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec


def check_settled(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `learn.presynaptic`, `weighting` and `penalty`, and on `solve.check_energy`."""
    learn = spec.learn
    for key, value, plain in (
        ("presynaptic", learn.presynaptic, "controlled"),
        ("weighting", learn.weighting, "equal"),
    ):
        if value != plain and learn.rule not in CONTROLLED_RULES:
            yield (
                ("learn", key),
                f"'{value}' is for rules that control the circuit ({', '.join(CONTROLLED_RULES)}), not for"
                f" {learn.rule}; allowed here: {plain}",
                ("learn",),
            )
    if learn.penalty.jacobian is not None and circuit is not None and not cycle(circuit):
        yield (
            ("learn", "penalty", "jacobian"),
            f"it is on recurrent projections, and the circuit '{circuit.circuit}' has none; leave it out",
            ("circuit",),
        )
    if spec.solve.check_energy is not None:
        yield from _check_energy(spec, circuit)


def _check_energy(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    control, path = spec.control, ("solve", "check_energy")
    if spec.learn.rule not in CONTROLLED_RULES:
        yield (
            path,
            f"it is for rules that control the circuit ({', '.join(CONTROLLED_RULES)}), not for"
            f" {spec.learn.rule}; leave it out",
            ("learn",),
        )
    if control.pathway not in ("dynamic_inversion", "energy_based") or control.feedback != "tied":
        yield (
            path,
            f"equilibria of {control.pathway} with feedback '{control.feedback}' have no energy; allowed with"
            " dynamic_inversion or energy_based and feedback 'tied'",
            ("control",),
        )
    elif control.controller.type == "integral":
        yield (
            path,
            "equilibria under an integral controller have no energy; give it a leak alpha",
            ("control",),
        )
    elif circuit is not None:
        for name, population in circuit.populations.items():
            if population.type != "input" and not population.controlled:
                yield (
                    path,
                    f"equilibria with a population that is not controlled ('{name}') have no energy; leave it out",
                    ("circuit",),
                )
                break


def cycle(circuit: CircuitSpec) -> list[str]:
    """A loop of populations joined by rate-coded projections, or by gap junctions, or nothing."""
    senders: dict[str, list[str]] = {name: [] for name in circuit.populations}
    for projection in circuit.projections.values():
        if projection.carries == "rate":
            senders[projection.target].append(projection.source)
        if projection.kind == "electrical":
            senders[projection.source].append(projection.target)
    try:
        graphlib.TopologicalSorter(senders).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []
