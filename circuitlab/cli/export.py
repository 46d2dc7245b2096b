"""`circuitlab export`: a circuit, or what a run made of it, in other programs' formats."""

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
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="sonata, graphml, json, csv or npz.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
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
    """Export a circuit: SONATA, GraphML, node-link JSON, or a circuit folder with CSV or npz files."""
    from circuitlab.graph.build import build
    from circuitlab.graph.foreign.formats import WRITERS, write_format
    from circuitlab.graph.foreign.place import refuse_existing
    from circuitlab.record.circuits import circuit_of_run, is_run_file, snapshots
    from circuitlab.spec.circuit import load_circuit

    if kind == "nwb":
        raise CircuitlabError(
            f"nwb: holds recorded activity, and is not written yet; allowed: {', '.join(WRITERS)}"
        )
    refuse_existing(folder, force)
    if source.suffix in (".yaml", ".yml"):
        if weights is not None:
            raise CircuitlabError(
                f"--weights: {source} is a circuit file, whose weights are the initial ones; leave it out"
            )
        circuit = build(load_circuit(source, allow_outside=allow_outside, scale=scale), seed=seed or 0)
        which = "the circuit file's weights"
    elif is_run_file(source) or source.suffix in (".h5", ".hdf5"):
        for option, value in (("--seed", seed), ("--scale", scale)):
            if value is not None:
                raise CircuitlabError(
                    f"{option}: {source} is a run file, whose circuit is drawn already; leave it out"
                )
        chosen = weights or ("final" if snapshots(source) else "initial")
        circuit = circuit_of_run(source, chosen)
        which = f"{chosen} weights"
    else:
        raise CircuitlabError(f"{source}: is neither a run file (.h5) nor a circuit file (.yaml)")
    write_format(circuit, kind, folder, force=force)
    edges = sum(len(p.edges) for p in circuit.projections.values())
    say(
        f"{circuit.name}: {len(circuit.populations)} populations, {edges:,} edges, {which}, as {kind}: {folder}"
    )
