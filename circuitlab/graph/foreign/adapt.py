"""What a user asks of an imported circuit: its name, types of populations, a scale of all weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.exchange import TYPES
from circuitlab.graph.foreign.options import Imported, Options, check_asked


def adapted(found: Imported, options: Options) -> Imported:
    """The import with its options obeyed, where the reader has not obeyed them already.

    Raises:
        FormatError: no such population or type, or an input that edges reach.
    """
    circuit = found.circuit
    if options.name is not None:
        circuit = replace(circuit, name=options.name)
    before = [name for name in options.split if name not in circuit.populations]
    types = {name: kind for name, kind in options.types.items() if name not in before}
    check_asked("--type", types, circuit.populations, found.source)
    circuit = retyped(circuit, types)
    if options.weight_scale != 1:
        projections = {name: _scaled(p, options.weight_scale) for name, p in circuit.projections.items()}
        circuit = replace(circuit, projections=projections)
    return replace(found, circuit=circuit)


def retyped(circuit: Circuit, types: dict[str, str]) -> Circuit:
    """The circuit with other types of some populations, and what hangs on a type set to that type's defaults.

    Raises:
        FormatError: no such type, or an input that edges reach.
    """
    populations = dict(circuit.populations)
    for name, kind in types.items():
        if kind not in TYPES:
            raise FormatError(
                f"--type: no type '{kind}'; allowed: {', '.join(TYPES)}.{suggestion(kind, TYPES)}"
            )
        if kind == "input" and any(p.target == name and len(p.edges) for p in circuit.projections.values()):
            raise FormatError(f"--type: '{name}' cannot be an input: edges end there, and inputs are clamped")
        if populations[name].type != kind:
            populations[name] = _retyped(populations[name], kind)
    projections = {name: _sited(p, circuit, populations) for name, p in circuit.projections.items()}
    return replace(circuit, populations=populations, projections=projections)


def _retyped(p: Population, kind: str) -> Population:
    was_free = p.type == "input"
    if kind == "input":
        return replace(
            p,
            type=kind,
            activation="linear",
            controlled=False,
            bias=None,
            bias_plastic=False,
            gain=1.0,
            threshold=0.0,
            noise=None,
        )
    activation = "linear" if kind == "output" else "tanh" if p.type in ("input", "output") else p.activation
    bias = np.zeros(p.size) if was_free else p.bias
    plastic = True if was_free else p.bias_plastic
    return replace(
        p,
        type=kind,
        activation=activation,
        controlled=was_free or p.controlled,
        bias=bias,
        bias_plastic=plastic,
    )


def _sited(p: Projection, circuit: Circuit, populations: dict[str, Population]) -> Projection:
    before, now = circuit.populations[p.target].type, populations[p.target].type
    if before == now or p.kind == "electrical":
        return p
    if now == "pyramidal":
        return replace(p, site="basal" if p.site == "soma" else p.site)
    return replace(p, site="soma") if before == "pyramidal" else p


def _scaled(p: Projection, scale: float) -> Projection:
    edges = p.edges
    rows = None if edges.rows is None else replace(edges.rows, weight=edges.rows.weight * scale)
    parameters = None if edges.parameters is None else edges.parameters * scale
    weight = (
        edges.weight * scale
        if parameters is None or edges.parameter_index is None
        else parameters[edges.parameter_index]
    )
    return replace(p, edges=replace(edges, weight=weight, parameters=parameters, rows=rows))
