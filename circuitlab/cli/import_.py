"""`circuitlab import`: another program's network as a circuit folder to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from circuitlab.cli.common import AsJson, Quiet, print_json, say
from circuitlab.errors import CircuitlabError


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="SONATA (circuit_config.json; or files of nodes, edges and types), GraphML, node-link JSON, CSV "
            "tables of edges and nodes, npz, or a folder with one of these.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output-folder", metavar="FOLDER", help="The folder to make, for circuit.yaml."),
    ],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="POP=TYPE", help="Type of a population, such as v1=pyramidal; may be repeated."
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="POP=COLUMN",
            help="Part a population by a column, such as v1=model_name; may be repeated.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="POP", help="Make a population an output; may be repeated."),
    ] = None,
    readout: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Add an output population of N neurons that reads the others."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the circuit; the file's or folder's unless given.")
    ] = None,
    weight_scale: Annotated[
        float, typer.Option(metavar="X", help="Multiply every weight by X; export divides by it again.")
    ] = 1.0,
    without_types: Annotated[
        bool, typer.Option("--without-types", help="Read SONATA files without their type tables.")
    ] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let a config name files outside its own folder.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the folder if circuitlab itself wrote it.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Import a network of another program: a folder with circuit.yaml, which every other command takes."""
    from circuitlab.cli.waiting import working
    from circuitlab.graph.foreign.folder import write_folder
    from circuitlab.graph.foreign.formats import read_foreign
    from circuitlab.graph.foreign.options import Options
    from circuitlab.graph.foreign.place import refuse_existing, whole_folder
    from circuitlab.record.circuits import is_run_file

    if not weight_scale > 0 or weight_scale == float("inf"):
        raise CircuitlabError(f"--weight-scale: is {weight_scale:g}; it is a number above 0")
    asked = _pairs("--type", types or ())
    for population in outputs or ():
        if asked.get(population, "output") != "output":
            raise CircuitlabError(f"--output {population}: --type says {asked[population]}")
        asked[population] = "output"
    refuse_existing(output, force)
    for file in files:
        if is_run_file(file):
            raise CircuitlabError(
                f"{file}: is a run file of circuitlab, not a foreign one; take `circuitlab export`"
            )
    options = Options(name, asked, _pairs("--split", split or ()), weight_scale, allow_outside, without_types)
    with working("reading the network", shown=not (as_json or quiet)):
        found = read_foreign(files, options)
        with whole_folder(output, force) as folder:
            write_folder(found.circuit, folder, "npz", readout)
    _report(found, output, readout, as_json)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """`a=b` for each text; a name twice is refused."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise CircuitlabError(f"{option}: '{text}' is not of the form NAME=VALUE")
        if key in found:
            raise CircuitlabError(f"{option}: '{key}' is given twice")
        found[key] = value
    return found


def _report(found: Any, output: Path, readout: int | None, as_json: bool) -> None:
    circuit = found.circuit
    kinds = {p.type for p in circuit.populations.values()} | ({"output"} if readout else set())
    notes = list(found.notes)
    if "output" not in kinds:
        notes.append(
            "there is no output population: the circuit loads, shows and exports; to find controlled equilibria and to "
            "learn it needs one, by --readout N or --output POP"
        )
    if "input" not in kinds:
        notes.append(
            "there is no input population: data cannot drive the circuit; name one by --type POP=input"
        )
    synapses = sum(int(p.edges.multiplicity.sum()) for p in circuit.projections.values())
    if as_json:
        print_json(
            {
                "circuit": circuit.name,
                "file": str(output / "circuit.yaml"),
                "source": found.source,
                "populations": {
                    p.name: {"type": p.type, "neurons": p.size} for p in circuit.populations.values()
                },
                "projections": {
                    p.name: {"source": p.source, "target": p.target, "edges": _rows(p.edges)}
                    for p in circuit.projections.values()
                },
                "notes": notes,
            }
        )
        return
    neurons = sum(p.size for p in circuit.populations.values())
    edges = sum(_rows(p.edges) for p in circuit.projections.values())
    say(
        f"{circuit.name} ({found.source}): {len(circuit.populations)} populations, {neurons:,} neurons; "
        f"{len(circuit.projections)} projections, {edges:,} edges, {synapses:,} synapses"
    )
    for note in notes:
        say(f"note: {note}")
    say(f"circuit: {output / 'circuit.yaml'}")


def _rows(edges: Any) -> int:
    return len(edges) if edges.rows is None else len(edges.rows)
