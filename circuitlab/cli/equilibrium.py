"""`circuitlab equilibrium`: free and controlled equilibria of given samples, in a file anyone can check."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import AllowOutside, AsJson, CircuitFile, Quiet, Scale, print_json, say, table
from circuitlab.cli.run import Overrides

if TYPE_CHECKING:
    from circuitlab.experiment.equilibrium import Found

TIGHT = {"float32": 1e-5, "float64": 1e-11}
"""Tolerances unless `--set solve.tolerance=...` says otherwise: this command is for checking results."""


def equilibrium(
    file: CircuitFile,
    inputs: Annotated[
        Path,
        typer.Option(
            "--input", metavar="X.npy", help="Inputs, sample by unit, or an npz with one array per input."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="EQ.h5", help="Where to write.")],
    targets: Annotated[
        Path | None,
        typer.Option(
            "--target",
            metavar="Y.npy",
            help="Targets: a label a sample, or sample by output unit. Without, the free equilibrium alone is found.",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control", metavar="PATHWAY", help="A feedback pathway; dynamic_inversion unless given."
        ),
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    scale: Scale = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Find a circuit's free and controlled equilibrium, and the update that least control would make.

    Give --set dtype=float64 for results to twelve digits. The loss is cross_entropy for labels and distributions, else
    squared_error, unless --set loss=... says which. From the file's edges, nodes and equilibria all equations can be
    recomputed with numpy alone (docs/run-file.md).
    """
    from circuitlab.cli.waiting import working
    from circuitlab.data.arrays import read_arrays
    from circuitlab.errors import CircuitError
    from circuitlab.experiment.equilibrium import find_equilibria, fits_cross_entropy, write
    from circuitlab.record.place import refuse_existing
    from circuitlab.spec.circuit import load_circuit
    from circuitlab.spec.experiment import experiment_from

    refuse_existing(output, str(output), overwrite)
    circuit = load_circuit(file, allow_outside=allow_outside, scale=scale)
    changes = list(overrides or ())
    if control is not None:
        changes.insert(0, f"control.pathway={control}")
    keys = [change.split("=")[0].strip() for change in changes]
    spec = experiment_from(circuit, changes, allow_outside=allow_outside)
    named = any(key == "loss" or key.startswith("loss.") for key in keys)
    if targets is not None and not named and not fits_cross_entropy(read_arrays(targets)):
        changes.append("loss=squared_error")
    if not any(key in ("solve", "solve.tolerance") for key in keys):
        changes.append(f"solve.tolerance={TIGHT[spec.dtype]}")
    if not any(key in ("solve", "solve.max_iterations", "solve.method") for key in keys):
        changes.append("solve.max_iterations=2000")
    spec = experiment_from(circuit, changes, allow_outside=allow_outside)
    try:
        with working("finding equilibria", shown=not (as_json or quiet)):
            found = find_equilibria(spec, inputs, targets)
    except CircuitError as error:
        raise CircuitError(spec.located(str(error))) from error
    write(found, output, command=shlex.join(["circuitlab", *sys.argv[1:]]), overwrite=overwrite)
    summary = _summary(found, output)
    if as_json:
        print_json(summary)
        return
    say(f"solver: {found.solver_reason}")
    table("Equilibria", list(summary["equilibria"][0]), [list(row.values()) for row in summary["equilibria"]])
    missing = sum(row["samples"] - row["converged"] for row in summary["equilibria"])
    if missing:
        say(
            f"{missing} sample solution(s) did not converge; they are marked in `converged` and left out of the updates"
        )
    say(f"written to {output}")


def _summary(found: Found, output: Path) -> dict[str, Any]:
    task, rows = found.assembled.task, []
    for phase, solution in (("free", found.free), ("controlled", found.controlled)):
        if solution is None:
            continue
        row: dict[str, Any] = {
            "equilibrium": phase,
            "samples": len(solution.converged),
            "converged": int(solution.converged.sum()),
            "largest residual": float(solution.residual.max()),
            "iterations": float(solution.iterations.double().mean()),
            "neurons on a kink": int(solution.kinks.sum()),
            "solver": solution.method,
        }
        if found.controlled is not None:
            loss = task.loss.value(task.outputs(solution.fields.phi), found.batch.target)
            row["loss"] = float(loss.mean())
            row["control cost"] = float(0.5 * solution.fields.psi.square().sum(0).mean())
        rows.append(row)
    return {
        "file": str(output),
        "loss": {n: s.name for n, s in found.assembled.spec.losses.items()},
        "solver_reason": found.solver_reason,
        "equilibria": rows,
    }
