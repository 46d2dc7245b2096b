"""`circuitlab show`: a circuit's populations, projections, size and cost, its drawing, and its adjacency picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from circuitlab.cli.common import (
    AllowOutside,
    AsJson,
    CircuitFile,
    Scale,
    memory,
    number,
    print_json,
    say,
    table,
)
from circuitlab.errors import CircuitError


def show(
    circuit: CircuitFile,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw the populations into a file: .svg, .png or .pdf."),
    ] = None,
    adjacency: Annotated[
        Path | None,
        typer.Option(
            "--adjacency", metavar="FILE", help="Draw the synapses among neurons: .svg, .png or .pdf."
        ),
    ] = None,
    as_json: AsJson = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the connections and weights, where the file has none.")
    ] = 0,
    batch: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Samples per update of the training whose memory and time are predicted."
        ),
    ] = 64,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Samples of an epoch of it.")] = 10_000,
    rule: Annotated[str, typer.Option(help="Its learning rule.")] = "least_control",
    dtype: Annotated[str, typer.Option(help="Its precision, float32 or float64.")] = "float32",
    scale: Scale = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Show a circuit: populations, projections, degrees, balance, memory, time, solver, its drawing and adjacency."""
    from circuitlab.experiment.assemble import DTYPES
    from circuitlab.graph.build import build
    from circuitlab.learn.rules import RULES
    from circuitlab.report.summary import summarize
    from circuitlab.spec.circuit import load_circuit

    for option, value, allowed in (("--rule", rule, RULES), ("--dtype", dtype, DTYPES)):
        if value not in allowed:
            raise CircuitError(f"{option}: no '{value}'; allowed: {', '.join(allowed)}")
    for option, file in (("--draw", draw), ("--adjacency", adjacency)):
        if file is not None:
            _can_be_drawn(option, file)
    spec = load_circuit(circuit, allow_outside=allow_outside, scale=scale)
    begun = time.perf_counter()
    built = build(spec, seed=seed)
    built_in = time.perf_counter() - begun
    summary = summarize(
        built, batch=batch, rule=rule, dtype=DTYPES[dtype], samples=samples, built_in=built_in
    )
    if draw is not None:
        from circuitlab.report.draw import draw as draw_circuit

        draw_circuit(built, draw)
    if adjacency is not None:
        from circuitlab.report.adjacency import draw_adjacency

        draw_adjacency(built, adjacency)
    if as_json:
        print_json(summary | {"drawing": draw, "adjacency": adjacency})
        return
    _tables(summary)
    if draw is not None:
        say(f"drawing: {draw}")
    if adjacency is not None:
        say(f"adjacency: {adjacency}")


def _can_be_drawn(option: str, file: Path) -> None:
    """Refuse a file that no picture can be written to before anything is computed."""
    from circuitlab.report.pictures import SUFFIXES, suffix_of

    suffix_of(file)
    if not file.parent.is_dir():
        raise CircuitError(
            f"{option}: {file}: there is no folder {file.parent}; allowed: {', '.join(SUFFIXES)} files"
        )


def _tables(summary: dict[str, Any]) -> None:
    size = f"{summary['neurons']:,} neurons, {summary['synapses']:,} synapses"
    if summary["gap_junctions"]:
        size += f", {summary['gap_junctions']:,} gap junctions"
    say(
        f"{summary['circuit']}: {size}, {memory(summary['bytes'])} of {summary['memory']['dtype']} kernels, "
        f"seed {summary['seed']}"
    )
    if summary["description"]:
        say(summary["description"])
    say("")
    _populations(summary["populations"])
    _projections(summary["projections"])
    _balance(summary)
    groups = summary["recurrent_groups"]
    say(
        "recurrent: "
        + ("; ".join(", ".join(group) for group in groups) if groups else "no, rates flow forward only")
    )
    say(f"spectral radius of the rate-coded weights: {_radius(summary)}")
    say(f"reciprocity: {_reciprocity(summary['reciprocity'])}")
    say(f"solver: {summary['solver']}")
    need = summary["memory"]
    say(
        f"memory beyond Python, torch and the data: {memory(need['peak'])} to train by "
        f"{need['rule'].replace('_', ' ')} with {need['batch']} samples per update in {need['dtype']} "
        f"({memory(need['building'])} to build, "
        f"{memory(need['step'])} for a step, {memory(need['evaluating'])} for an evaluation)"
        + (f"; up to {memory(need['slow'])} more where it is slow to settle" if need["slow"] else "")
        + ("; kernels of large projections estimated from a part of them" if need["estimated"] else "")
    )
    say(f"time: {_time(summary['time'])}")


def _populations(populations: list[dict[str, Any]]) -> None:
    """The table of populations; what no population has gets no column."""
    columns: dict[str, Any] = {
        "name": lambda p: p["name"],
        "type": lambda p: p["type"],
        "neurons": lambda p: p["neurons"],
        "shape": lambda p: _shape(p["shape"]),
        "layer": lambda p: p["layer"],
        "activation": lambda p: p["activation"],
        "gain": lambda p: p["gain"],
        "threshold": lambda p: p["threshold"],
        "time constant (ms)": lambda p: p["tau_ms"],
        "noise": lambda p: _noise(p["noise"]),
        "sign": lambda p: p["sign"],
        "controlled": lambda p: p["controlled"],
    }
    plain = {"gain": (None, 1.0), "threshold": (None, 0.0)}
    for name in ("shape", "layer", "gain", "threshold", "noise"):
        if all(p[name] in plain.get(name, (None,)) for p in populations):
            del columns[name]
    table("populations", list(columns), [[cell(p) for cell in columns.values()] for p in populations])


def _projections(projections: list[dict[str, Any]]) -> None:
    names = ["name", "from", "to", "kind", "site", "carries", "plastic", "delay (ms)", "synapses", "density"]
    keys = [
        "name",
        "source",
        "target",
        "kind",
        "site",
        "carries",
        "plastic",
        "delay_ms",
        "synapses",
        "density",
    ]
    plain = {"kind": "chemical", "delay_ms": 0.0}
    for key, value in plain.items():
        if all(p[key] == value for p in projections):
            del names[keys.index(key)], keys[keys.index(key)]
    rows = [[*(p[key] for key in keys), p["kernel"], memory(p["bytes"])] for p in projections]
    table("projections", [*names, "kernel", "memory"], rows)
    table(
        "synapses (mean ± standard deviation, least to most)",
        ["projection", "indegree", "outdegree", "weights", "reciprocity"],
        [
            [p["name"], _degrees(p["indegrees"]), _degrees(p["outdegrees"]), _weights(p), p["reciprocity"]]
            for p in projections
        ],
    )


def _balance(summary: dict[str, Any]) -> None:
    table(
        "balance (summed weights onto a neuron, mean; shares of its synapses)",
        ["population", "excitation", "inhibition", "E/I", "excitatory", "inhibitory"],
        [
            [
                b["population"],
                b["excitation"],
                b["inhibition"],
                b["ratio"],
                f"{100 * b['excitatory']:.3g}%",
                f"{100 * b['inhibitory']:.3g}%",
            ]
            for b in summary["balance"]
        ],
    )


def _degrees(d: dict[str, Any]) -> str:
    if d["min"] == d["max"]:
        return number(d["min"])
    return f"{number(d['mean'])} ± {d['std']:.3g} ({number(d['min'])} to {number(d['max'])})"


def _radius(summary: dict[str, Any]) -> str:
    radius = summary["spectral_radius"]
    if radius is None:
        return "not found"
    return f"{radius:.4g}" + (", estimated" if summary["spectral_radius_is"] == "estimated" else "")


def _reciprocity(mutual: dict[str, Any]) -> str:
    if mutual["overall"] is None:
        return "no synapses among units"
    words = f"{100 * mutual['overall']:.3g}% of the edges among units have one the other way"
    return words + (", estimated from edges drawn at random" if mutual["how"] == "estimated" else "")


def _time(t: dict[str, Any]) -> str:
    """The estimated times in a sentence, with what they assume."""
    built = "" if t["building"] is None else f"{_seconds(t['building'])} to draw (measured), "
    words = f"{built}about {_seconds(t['compiling'])} to compile"
    words += (
        f", {_seconds(t['free'])} for a free equilibrium of {t['batch']} samples ({t['free_sweeps']} sweeps)"
    )
    rule = t["rule"].replace("_", " ")
    if t["update"] is None:
        words += f"; {rule} makes no sweeps of its own, so its update is not estimated"
    else:
        words += f", {_seconds(t['update'])} for an update by {rule} (then {t['credit_sweeps']} sweeps)"
        words += f", {_seconds(t['epoch'])} for an epoch of {t['samples']:,} samples"
    threads = f"{t['threads']} thread" + ("s" if t["threads"] != 1 else "")
    return (
        words
        + f"; estimated from products timed just now on {threads}, by default settings and no trouble settling"
    )


def _seconds(seconds: float) -> str:
    """A time in the unit a person would choose."""
    units = (("ms", 1e-3, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, float("inf")))
    unit, size, _ = next(entry for entry in units if seconds < entry[2])
    value = seconds / size
    return f"{value:.2g} {unit}" if value < 9.5 else f"{value:,.0f} {unit}"


def _shape(shape: list[int] | None) -> str | None:
    return None if shape is None else " x ".join(str(length) for length in shape)


def _noise(noise: dict[str, float] | None) -> str | None:
    return None if noise is None else f"{noise['std']:g}, {noise['tau_ms']:g} ms"


def _weights(projection: dict[str, Any]) -> str | None:
    mean, spread = projection["weight_mean"], projection["weight_std"]
    return None if mean is None else f"{mean:.3g} ± {spread:.3g}"
