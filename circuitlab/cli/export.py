"""`circuitlab export`: a circuit, or a run and what it recorded, in other programs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuitlab.cli.common import AllowOutside, Scale, say
from circuitlab.errors import CircuitlabError


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN.h5|CIRCUIT.yaml", help="A run file, or a circuit file.")
    ],
    kind: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="sonata, csv and nwb hold a network and recordings; graphml, json and npz a network.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
    what: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="Of a run file: network, activity (what was recorded), or all of it."
        ),
    ] = "all",
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of a run file: only the recordings of this name, or of a pattern such as 'l23_*'; may be repeated.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Of a run file: the weights as it began, initial, or as it ended, final. Final unless given.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of a circuit file: seed of the connections and weights, where it has none."),
    ] = None,
    scale: Scale = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the folder if circuitlab itself wrote it.")
    ] = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Export a circuit, or a run with what it recorded: SONATA, NWB, CSV, GraphML, node-link JSON, npz."""
    from circuitlab.graph.build import build
    from circuitlab.graph.foreign.place import refuse_existing
    from circuitlab.record.circuits import is_run_file
    from circuitlab.record.exports import RUNS
    from circuitlab.record.exports import export as write
    from circuitlab.spec.circuit import load_circuit

    refuse_existing(folder, force)
    given = source
    if source.suffix in (".yaml", ".yml"):
        if weights is not None:
            raise CircuitlabError(
                f"--weights: {source} is a circuit file, whose weights are the initial ones; leave it out"
            )
        given = build(load_circuit(source, allow_outside=allow_outside, scale=scale), seed=seed or 0)
    elif is_run_file(source) or source.suffix in RUNS:
        for option, value in (("--seed", seed), ("--scale", scale)):
            if value is not None:
                raise CircuitlabError(
                    f"{option}: {source} is a run file, whose circuit is drawn already; leave it out"
                )
    else:
        raise CircuitlabError(f"{source}: is neither a run file (.h5) nor a circuit file (.yaml)")
    done = write(given, kind, folder, what=what, weights=weights, probes=probe or (), force=force)
    parts = []
    if done.populations:
        which = f"{done.weights} weights" if done.weights else "the circuit file's weights"
        parts.append(f"{done.populations} populations, {done.edges:,} edges, {which}")
    if done.recordings:
        count = len(done.recordings)
        parts.append(f"{count} recording{'s' * (count > 1)} of {done.values:,} values")
    say(f"{done.circuit}: {', '.join(parts) or 'learning curves'}, as {kind}: {folder}")
    for line in done.left_out:
        say(f"left out: {line}")
