"""What is allowed in a specification but probably not meant: warnings for `circuitlab validate`."""

from __future__ import annotations

import networkx

from circuitlab.spec.circuit import CircuitSpec
from circuitlab.spec.experiment import ExperimentSpec


def warnings(spec: CircuitSpec | ExperimentSpec) -> list[str]:
    """One line per warning, each `path: what; why`."""
    if isinstance(spec, CircuitSpec):
        return _circuit_warnings(spec)
    return [*_circuit_warnings(spec.circuit), *_experiment_warnings(spec)]


def _circuit_warnings(spec: CircuitSpec) -> list[str]:
    found = []
    flow = networkx.DiGraph()
    flow.add_nodes_from(spec.populations)
    flow.add_edges_from((p.source, p.target) for p in spec.projections.values() if p.carries == "rate")
    flow.add_edges_from((p.target, p.source) for p in spec.projections.values() if p.kind == "electrical")
    towards = set(spec.outputs).union(*(networkx.ancestors(flow, name) for name in spec.outputs))
    reached = set(spec.inputs).union(*(networkx.descendants(flow, name) for name in spec.inputs))
    for name, population in spec.populations.items():
        if population.type != "input" and not any(flow.predecessors(name)):
            found.append(f"populations.{name}: no rate-coded projection reaches it; only its bias drives it")
        elif name not in reached:
            found.append(
                f"populations.{name}: no path leads to it from an input; its activity does not"
                " depend on the data"
            )
        if name not in towards:
            found.append(f"populations.{name}: no path leads from it to an output; it cannot change the loss")
    for name, projection in spec.projections.items():
        if projection.carries == "burst" and not spec.populations[projection.source].controlled:
            found.append(
                f"projections.{name}: '{projection.source}' is not controlled, so its bursts carry nothing"
            )
        if projection.carries == "burst" and not spec.populations[projection.target].controlled:
            found.append(
                f"projections.{name}: '{projection.target}' is not controlled, so bursts have no effect on it"
            )
    return found


def _in_real_time_only(circuit: CircuitSpec) -> list[str]:
    """What an experiment, which learns at equilibrium, does not see."""
    late = [name for name, projection in circuit.projections.items() if projection.delay_ms]
    noisy = [name for name, population in circuit.populations.items() if population.noise is not None]
    found = []
    for section, names, key in (("projections", late, "delay"), ("populations", noisy, "noise")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            found.append(
                f"{section}.{names[0]}{others}: '{key}' acts in real-time simulation only; equilibria, and learning at"
                " equilibrium, do not depend on it"
            )
    return found


def _experiment_warnings(spec: ExperimentSpec) -> list[str]:
    found = []
    feedback = (
        "apical"
        if spec.control.pathway == "dynamic_inversion" and spec.control.feedback == "apical"
        else None
    )
    circuit = spec.circuit
    bursts = {name: p for name, p in circuit.projections.items() if p.carries == "burst"}
    if feedback is None:
        for name in bursts:
            found.append(
                f"projections.{name}: carries bursts, which only 'feedback: apical' uses; it is idle here"
            )
    else:
        for name, projection in bursts.items():
            if projection.plastic and spec.learn.feedback is None:
                found.append(
                    f"projections.{name}: plastic, but nobody teaches burst projections here; write"
                    " 'learn.feedback: kolen_pollack'"
                )
        targets = {projection.target for projection in bursts.values()}
        for name, population in circuit.populations.items():
            if population.type not in ("input", "output") and population.controlled and name not in targets:
                found.append(
                    f"populations.{name}: no burst projection reaches it, so under 'feedback:"
                    " apical' it gets no control"
                )
    if spec.control.feedback == "kolen_pollack":
        for name, projection in circuit.projections.items():
            among = projection.source not in circuit.inputs and projection.carries == "rate"
            if among and not projection.plastic:
                found.append(
                    f"projections.{name}: it is frozen, so its feedback has nothing to follow; it is the transpose"
                    " from the start"
                )
    found += _in_real_time_only(circuit)
    for name in circuit.outputs:
        if not circuit.populations[name].controlled:
            found.append(
                f"populations.{name}: an output that is not controlled; its loss cannot be brought"
                " down by control"
            )
    return found
