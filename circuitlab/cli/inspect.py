"""`circuitlab inspect`: what a run file holds, as tables or as a picture."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import AsJson, print_json, say
from circuitlab.cli.inspect_print import print_part, print_summaries
from circuitlab.errors import RunFileError

if TYPE_CHECKING:
    from circuitlab.record.reader import Run
    from circuitlab.report.readings import Reading


def inspect(
    file: Annotated[Path, typer.Argument(metavar="RUN.h5", help="A run file; it may still be growing.")],
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A group or dataset in it, such as training/loss or activity."),
    ] = None,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw learning curves and neurons into a file: .png, .svg or .pdf."
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OTHER.h5", help="Show another run of the circuit beside it."),
    ] = None,
) -> None:
    """Show what is in a run file: how it was made, what it learned, which neurons it recorded.

    With PATH, show that part of it: a group's contents, or a dataset's axes, units and values.
    """
    from circuitlab.record.reader import open_run

    with ExitStack() as stack:
        runs = [stack.enter_context(open_run(name)) for name in (file, compare) if name is not None]
        if path is not None and path.strip("/"):
            parts = [_part(run, path.strip("/")) for run in runs]
            if as_json:
                print_json(parts[0] if len(parts) == 1 else parts)
            else:
                for part in parts:
                    print_part(part)
        else:
            summaries = [_summary(run) for run in runs]
            if as_json:
                print_json(summaries[0] if len(summaries) == 1 else summaries)
            else:
                print_summaries(summaries)
        if plot is not None:
            if path is not None and path.strip("/"):
                from circuitlab.report.dataset import plot_dataset

                plot_dataset(runs[0], path, plot)
            else:
                from circuitlab.report.plots import plot_run
                from circuitlab.report.transients import in_time, plot_transients

                first, *others = _readings(runs)
                if in_time(first):
                    if others:
                        raise RunFileError(
                            "--compare: two simulations are not drawn together; draw one at a time"
                        )
                    plot_transients(first, plot)
                else:
                    plot_run(first, plot, *others)
            if not as_json:
                say(f"picture: {plot}")


def _readings(runs: list[Run]) -> list[Reading]:
    """The runs as pictures need them; two runs of the same rule are told apart by their files' names."""
    from dataclasses import replace

    from circuitlab.report.readings import reading

    readings = [reading(run) for run in runs]
    if len({one.label for one in readings}) < len(readings):
        readings = [replace(one, label=run.path.stem) for one, run in zip(readings, runs, strict=True)]
    return readings


def _summary(run: Run) -> dict[str, Any]:
    from circuitlab.report.readings import reading, specification

    one = reading(run)
    circuit = specification(run.circuit_yaml)
    populations, projections = circuit.get("populations") or {}, circuit.get("projections") or {}
    metrics = {}
    for name in one.metrics:
        if curve := one.curve(name):
            at, values = curve
            metrics[name] = {
                "rows": len(values),
                "first": float(values[0]),
                "last": float(values[-1]),
                "lowest": float(values.min()),
                "highest": float(values.max()),
                "last_at": float(at[-1]),
            }
    return {
        "file": str(run.path),
        "bytes": run.path.stat().st_size,
        "status": run.status,
        "experiment": one.title,
        "label": one.label,
        "circuit": circuit.get("circuit"),
        "attributes": run.attributes,
        "populations": _population_sizes(run, populations),
        "projections": _projection_sizes(run, projections),
        "metrics": metrics,
        "probes": {
            name: {
                "population": probe.population,
                "variable": probe.variable,
                "phase": probe.phase,
                "frames": len(run.datasets[f"activity/{name}/data"]),
                "samples": probe.shape[1],
                "neurons": probe.shape[2],
            }
            for name, probe in one.probes.items()
        },
        "equilibria": _equilibria(run),
        "groups": _groups(run),
    }


def _population_sizes(run: Run, named: dict[str, Any]) -> dict[str, int]:
    paths = {name: f"nodes/{name}/node_id" for name in named}
    return {name: run.datasets[path].shape[0] for name, path in paths.items() if path in run.datasets}


def _projection_sizes(run: Run, named: dict[str, Any]) -> dict[str, int]:
    paths = {name: f"edges/{name}/source_node_id" for name in named}
    return {name: run.datasets[path].shape[0] for name, path in paths.items() if path in run.datasets}


def _equilibria(run: Run) -> dict[str, dict[str, Any]]:
    """Convergence of the free and the controlled equilibria that the file holds."""
    found = {}
    for phase in ("free", "controlled"):
        parts = {name: f"equilibria/{phase}/{name}" for name in ("converged", "iterations", "residual")}
        if all(part in run.datasets and run.datasets[part].size for part in parts.values()):
            converged, iterations, residual = (run.read(part) for part in parts.values())
            found[phase] = {
                "samples": int(converged.size),
                "converged": int(converged.sum()),
                "iterations_mean": float(iterations.mean()),
                "residual_largest": float(residual.max()),
            }
    return found


def _groups(run: Run) -> dict[str, dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for part in run.tables():
        group = groups.setdefault(part.path.split("/")[0], {"datasets": 0, "bytes": 0})
        group["datasets"] += 1
        group["bytes"] += int(run.datasets[part.path].nbytes)
    return groups


def _part(run: Run, path: str) -> dict[str, Any]:
    """A group or dataset of the file as plain data."""
    if path in run.datasets:
        return _dataset(run, path)
    inside = [part for part in run.tables() if part.path.startswith(path + "/")]
    if not inside and (path.startswith("checkpoint") or not run.is_group(path)):
        run.read(path)
        raise RunFileError(f"{run.path}: {path} is kept for --resume only")
    attributes = {key: _plain(value) for key, value in run.file[path].attrs.items()}
    contents = [
        {
            "path": p.path,
            "shape": list(p.shape),
            "type": p.dtype,
            "units": p.units,
            "description": p.description,
        }
        for p in inside
    ]
    return {"file": str(run.path), "path": path, "attributes": attributes, "datasets": contents}


def _dataset(run: Run, path: str) -> dict[str, Any]:
    import numpy as np

    item, values = run.datasets[path], run.read(path)
    part: dict[str, Any] = {
        "file": str(run.path),
        "path": path,
        "shape": list(item.shape),
        "type": str(item.dtype),
        "attributes": {key: _plain(value) for key, value in item.attrs.items()},
    }
    if isinstance(values, str):
        return part | {"text": values}
    if values.dtype.kind in "iufb" and values.size:
        known = values[np.isfinite(values)]
        if known.size:
            part |= {"mean": float(known.mean()), "lowest": float(known.min()), "highest": float(known.max())}
        part["not_finite"] = int(values.size - known.size)
    shown = np.ravel(values)[:10].tolist() if values.ndim != 1 or len(values) > 10 else values.tolist()
    return part | {"first_values": shown}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
