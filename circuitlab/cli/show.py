"""`circuitlab show`: a circuit's populations, projections and size, and its drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from circuitlab.cli.common import AllowOutside, AsJson, CircuitFile, Scale, memory, print_json, say, table
from circuitlab.errors import CircuitError


def show(
    circuit: CircuitFile,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw the circuit into a file: .svg, .png or .pdf."),
    ] = None,
    as_json: AsJson = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the connections and weights, where the file has none.")
    ] = 0,
    batch: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Samples per update of the training whose memory is predicted."
        ),
    ] = 64,
    rule: Annotated[str, typer.Option(help="Its learning rule.")] = "least_control",
    dtype: Annotated[str, typer.Option(help="Its precision, float32 or float64.")] = "float32",
    scale: Scale = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Show a circuit: populations, projections, densities, memory, spectral radius, solver, and its drawing."""
    from circuitlab.experiment.assemble import DTYPES
    from circuitlab.graph.build import build
    from circuitlab.learn.rules import RULES
    from circuitlab.report.summary import summarize
    from circuitlab.spec.circuit import load_circuit

    for option, value, allowed in (("--rule", rule, RULES), ("--dtype", dtype, DTYPES)):
        if value not in allowed:
            raise CircuitError(f"{option}: no '{value}'; allowed: {', '.join(allowed)}")
    built = build(load_circuit(circuit, allow_outside=allow_outside, scale=scale), seed=seed)
    summary = summarize(built, batch=batch, rule=rule, dtype=DTYPES[dtype])
    if draw is not None:
        from circuitlab.report.draw import draw as draw_circuit

        draw_circuit(built, draw)
    if as_json:
        print_json(summary | {"drawing": draw})
        return
    _tables(summary)
    if draw is not None:
        say(f"drawing: {draw}")


def _tables(summary: dict[str, Any]) -> None:
    size = f"{summary['neurons']:,} neurons, {summary['synapses']:,} synapses"
    say(
        f"{summary['circuit']}: {size}, {memory(summary['bytes'])} of {summary['memory']['dtype']} kernels, "
        f"seed {summary['seed']}"
    )
    if summary["description"]:
        say(summary["description"])
    say("")
    table(
        "populations",
        ["name", "type", "neurons", "shape", "activation", "time constant (ms)", "sign", "controlled"],
        [
            [
                p["name"],
                p["type"],
                p["neurons"],
                _shape(p["shape"]),
                p["activation"],
                p["tau_ms"],
                p["sign"],
                p["controlled"],
            ]
            for p in summary["populations"]
        ],
    )
    table(
        "projections",
        [
            "name",
            "from",
            "to",
            "site",
            "carries",
            "plastic",
            "synapses",
            "density",
            "indegree",
            "outdegree",
            "weights",
            "kernel",
            "memory",
        ],
        [
            [
                p["name"],
                p["source"],
                p["target"],
                p["site"],
                p["carries"],
                p["plastic"],
                p["synapses"],
                p["density"],
                p["indegree"],
                p["outdegree"],
                _weights(p),
                p["kernel"],
                memory(p["bytes"]),
            ]
            for p in summary["projections"]
        ],
    )
    groups = summary["recurrent_groups"]
    say(
        "recurrent: "
        + ("; ".join(", ".join(group) for group in groups) if groups else "no, rates flow forward only")
    )
    radius = summary["spectral_radius"]
    say("spectral radius of the rate-coded weights: " + ("not found" if radius is None else f"{radius:.4g}"))
    say(f"solver: {summary['solver']}")
    need = summary["memory"]
    say(
        f"memory beyond Python, torch and the data: {memory(need['peak'])} to train by "
        f"{need['rule'].replace('_', ' ')} with {need['batch']} samples per update in {need['dtype']} "
        f"({memory(need['building'])} to build, "
        f"{memory(need['step'])} for a step, {memory(need['evaluating'])} for an evaluation)"
        + (f"; up to {memory(need['slow'])} more where it is slow to settle" if need["slow"] else "")
    )


def _shape(shape: list[int] | None) -> str | None:
    return None if shape is None else " x ".join(str(length) for length in shape)


def _weights(projection: dict[str, Any]) -> str | None:
    mean, spread = projection["weight_mean"], projection["weight_std"]
    return None if mean is None else f"{mean:.3g} ± {spread:.3g}"
