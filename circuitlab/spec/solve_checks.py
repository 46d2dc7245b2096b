"""Which circuits a preconditioner serves, and what must hold where `solve.preconditioner` asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import networkx

from circuitlab.spec.entries import Finding

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec

KINKED = ("relu", "leaky_relu")
"""Activations whose slope jumps."""
BASELINES = ("recurrent_backprop", "backprop")
"""Rules whose two phases a preconditioner serves."""
ITERATED = ("auto", "anderson")
"""Methods that a preconditioner serves."""


class PopulationLike(Protocol):
    """A population of a circuit file, or of a circuit."""

    @property
    def type(self) -> str:
        """input, unit, pyramidal, interneuron or output."""
        ...

    @property
    def activation(self) -> str:
        """Name of the nonlinearity."""
        ...

    @property
    def controlled(self) -> bool:
        """Whether the neurons have a control."""
        ...


class ProjectionLike(Protocol):
    """A projection of a circuit file, or of a circuit."""

    @property
    def kind(self) -> str:
        """chemical or electrical."""
        ...


def group_problem(
    groups: Sequence[Sequence[str]],
    populations: Mapping[str, PopulationLike],
    projections: Mapping[str, ProjectionLike] = MappingProxyType({}),
) -> tuple[str, str] | None:
    """Why a circuit's mean response cannot serve as a preconditioner, and the remedy; None where it can.

    Args:
        groups: the recurrent groups, names of populations in file order.
        populations, projections: all of them by name, in file order.
    """
    junctions = [name for name, p in projections.items() if p.kind == "electrical"]
    if junctions:
        return f"the circuit has gap junctions ('{junctions[0]}')", "allowed here: auto, none"
    if not groups:
        return "the circuit has no recurrent group", "leave it out"
    if len(groups) > 1:
        return f"there are {len(groups)} recurrent groups, and it serves one", "allowed here: auto, none"
    (group,) = groups
    hidden = [name for name, p in populations.items() if p.type not in ("input", "output")]
    for name in group:
        if populations[name].type == "output":
            return f"the recurrent group has an output, '{name}'", "allowed here: auto, none"
        if populations[name].activation in KINKED:
            return (
                f"the recurrent population '{name}' is a {populations[name].activation}, which has a kink",
                "choose a smooth activation, such as softplus or tanh",
            )
        if not populations[name].controlled:
            return f"the recurrent population '{name}' is not controlled", "allowed here: auto, none"
    first, last = hidden.index(group[0]), hidden.index(group[-1])
    for name in hidden[first : last + 1]:
        if name not in group:
            return (
                f"'{name}' stands between the populations of the recurrent group ({', '.join(group)})",
                "write these side by side in the file",
            )
    return None


def recurrent_groups(circuit: CircuitSpec) -> list[list[str]]:
    """Populations of a circuit file that reach each other, or themselves, by rate-coded projections and gap
    junctions, in file order."""
    flow = networkx.DiGraph()
    flow.add_nodes_from(circuit.populations)
    flow.add_edges_from((p.source, p.target) for p in circuit.projections.values() if p.carries == "rate")
    flow.add_edges_from((p.target, p.source) for p in circuit.projections.values() if p.kind == "electrical")
    rank = {name: number for number, name in enumerate(circuit.populations)}
    return [
        sorted(group, key=rank.__getitem__)
        for group in networkx.strongly_connected_components(flow)
        if len(group) > 1 or any(flow.has_edge(name, name) for name in group)
    ]


def check_preconditioner(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on `solve.preconditioner: mean_response`, which is refused where it would do nothing."""
    solve, control, path = spec.solve, spec.control, ("solve", "preconditioner")
    if solve.preconditioner != "mean_response":
        return
    if solve.method not in ITERATED:
        yield (
            path,
            f"mean_response is for the methods {' and '.join(ITERATED)}, not for {solve.method}; allowed here: "
            "auto, none",
            ("solve",),
        )
    if spec.learn.rule in BASELINES and solve.start in ("class_mean", "last"):
        yield (
            path,
            f"mean_response serves {spec.learn.rule} without warm starts, and start is {solve.start}; allowed "
            "here: auto, none",
            ("solve", "learn"),
        )
    if spec.learn.rule not in BASELINES and (
        control.pathway != "dynamic_inversion" or control.feedback != "tied"
    ):
        yield (
            path,
            "mean_response needs dynamic_inversion with feedback 'tied' (or a baseline rule), not"
            f" {control.pathway} with feedback '{control.feedback}'; allowed here: auto, none",
            ("control", "learn"),
        )
    if circuit is not None:
        problem = group_problem(recurrent_groups(circuit), circuit.populations, circuit.projections)
        if problem is not None:
            yield path, f"mean_response cannot be had: {problem[0]}; {problem[1]}", ("circuit",)
