"""`circuitlab diagnose`: the theory's conditions, measured on an experiment's circuit and data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import AllowOutside, AsJson, console, print_json, say, sound, table
from circuitlab.cli.run import Overrides

if TYPE_CHECKING:
    from circuitlab.experiment.diagnose import Diagnosis
    from circuitlab.theory.examine import Tell


def diagnose(
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="The experiment's YAML file.")],
    samples: Annotated[
        int, typer.Option("--samples", min=1, metavar="N", help="Training samples to look at, the first N.")
    ] = 100,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", metavar="RUN.h5", help="Take the weights that a run of this circuit has learned."
        ),
    ] = None,
    snapshot: Annotated[
        int | None,
        typer.Option(
            "--snapshot",
            metavar="K",
            help="Which snapshot of that run, 0 before learning; its last state unless given.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="RUN.h5", help="Write every sample's values into a run file."),
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Measure what the theory asks of a circuit: equilibria, feedback, stability, and where its updates point.

    In float64 unless --set dtype=... says otherwise. docs/theory.md says how to read the table.
    """
    sound(weights, state=snapshot is None)
    from circuitlab.experiment.diagnose import diagnose as measure
    from circuitlab.experiment.diagnose import write
    from circuitlab.record.place import refuse_existing
    from circuitlab.spec.experiment import load_experiment

    if output is not None:
        refuse_existing(output, str(output), overwrite)
    changes = list(overrides or ())
    keys = {change.split("=")[0].strip() for change in changes}
    spec = load_experiment(file, changes, allow_outside=allow_outside)
    if not keys & {"dtype"} and not spec.device.startswith("mps"):
        spec = load_experiment(file, [*changes, "dtype=float64"], allow_outside=allow_outside)
    with _Progress(shown=not (as_json or quiet)) as tell:
        found = measure(spec, samples, weights, snapshot, tell)
    if output is not None:
        write(found, output, command=shlex.join(["circuitlab", *sys.argv[1:]]), overwrite=overwrite)
    if as_json:
        print_json(_summary(found, output))
        return
    say(
        f"{spec.experiment}: {spec.learn.rule.replace('_', ' ')} under {spec.control.pathway.replace('_', ' ')} on "
        f"{found.assembled.circuit.name}, {len(found.sample_ids)} training samples, weights: {found.weights}"
    )
    table("", ["measure", "value", "", "theory asks", "verdict", "note"], _rows(found))
    say(found.conclusion)
    if output is not None:
        say(f"written to {output}")


class _Progress:
    """A bar over the samples, where somebody watches."""

    def __init__(self, *, shown: bool) -> None:
        from rich.progress import Progress

        page = console()
        self.bar = Progress(console=page, transient=True, disable=not (shown and page.is_terminal))

    def __enter__(self) -> Tell:
        self.bar.start()
        task = self.bar.add_task("measuring updates", total=None)
        return lambda done, total: self.bar.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _rows(found: Diagnosis) -> list[list[str]]:
    rows = []
    for row in found.measures:
        if row.inapplicable:
            rows.append([row.title, "does not apply", "", row.asks, "", row.inapplicable])
        else:
            error = "" if row.error != row.error else f"± {row.error:.2g}"
            unit = " /ms" if row.units == "1/ms" else ""
            rows.append([row.title, f"{row.mean:.4g}{unit}", error, row.asks, row.verdict, row.note])
    return rows


def _summary(found: Diagnosis, output: Path | None) -> dict[str, Any]:
    return {
        "file": None if output is None else str(output),
        "experiment": found.assembled.spec.experiment,
        "weights": found.weights,
        "samples": len(found.sample_ids),
        "measures": {
            row.key: {
                "title": row.title,
                "mean": row.mean,
                "standard_error": row.error,
                "samples": row.count,
                "units": row.units,
                "asks": row.asks,
                "verdict": row.verdict,
                "note": row.note,
                "description": row.description,
                "does_not_apply": row.inapplicable,
            }
            for row in found.measures
        },
        "conclusion": found.conclusion,
    }
