"""`circuitlab inspect`: what a run file holds, as tables or as a picture."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import AsJson, print_json, say
from circuitlab.cli.inspect_print import print_neuron, print_part, print_projection, print_summaries
from circuitlab.errors import RunFileError

if TYPE_CHECKING:
    from circuitlab.record.reader import Run
    from circuitlab.report.figures.base import Choice


KINDS_HELP = (
    "What to draw: overview (default), activity, neuron, settling, weights, receptive_fields, curves, "
    "convergence, spectrum."
)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="RUN.h5", help="A run file; it may still be growing.")],
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A group or dataset in it, such as training/loss or activity."),
    ] = None,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw a figure into a file: .png, .svg or .pdf."),
    ] = None,
    figure: Annotated[str | None, typer.Option("--figure", metavar="KIND", help=KINDS_HELP)] = None,
    population: Annotated[
        str | None, typer.Option("--population", metavar="NAME", help="The population to show neurons of.")
    ] = None,
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            "--neuron", metavar="N|NAME", help="A neuron, by number or name; some figures take several."
        ),
    ] = None,
    sample: Annotated[
        list[int] | None,
        typer.Option("--sample", metavar="N", help="A recorded sample; several are allowed."),
    ] = None,
    projection: Annotated[
        str | None, typer.Option("--projection", metavar="NAME", help="The projection to show synapses of.")
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", metavar="OTHER.h5", help="Show another run beside it; several are allowed."
        ),
    ] = None,
) -> None:
    """Show what is in a run file: how it was made, what it learned, which neurons it recorded, which samples settled.

    With PATH, show that part of it: a group's contents, or a dataset's axes, units and values. With --neuron the values
    of one neuron, with --projection the weights of one projection.
    """
    from circuitlab.record.reader import open_run
    from circuitlab.report.figures.base import Choice

    inner = (path or "").strip("/")
    choice = Choice(
        population, tuple(neuron or ()), tuple(sample or ()), projection, _probe(inner) if figure else None
    )
    if figure is not None and plot is None:
        raise RunFileError("--figure: says what --plot draws; add --plot FILE")
    with ExitStack() as stack:
        runs: list[Run] = [stack.enter_context(open_run(name)) for name in (file, *(compare or ()))]
        if plot is not None:
            _draw(runs, inner, plot, figure, choice)
        elif population is not None and not (neuron or projection):
            raise RunFileError(
                "--population: the tables show a neuron of it; add --neuron, or --plot and --figure"
            )
        elif sample and not neuron:
            raise RunFileError(
                "--sample: the tables show a neuron in it; add --neuron, or --plot and --figure"
            )
        if inner:
            shown, show = [_part(run, inner) for run in runs], print_part
        elif neuron and (plot is None or figure == "neuron"):
            from circuitlab.report.contents import neuron as values_of

            shown, show = [{"file": str(run.path), **values_of(run, choice)} for run in runs], print_neuron
        elif projection is not None and (plot is None or figure == "weights"):
            from circuitlab.report.contents import projection as weights_of

            shown, show = (
                [{"file": str(run.path), **weights_of(run, choice)} for run in runs],
                print_projection,
            )
        else:
            shown, show = [_summary(run) for run in runs], None
        if as_json:
            print_json(shown[0] if len(shown) == 1 else shown)
            return
        if show is None:
            print_summaries(shown)
        else:
            for one in shown:
                show(one)
        if plot is not None:
            say(f"picture: {plot}")


def _probe(inner: str) -> str | None:
    """The probe that a path names, or the path itself."""
    parts = inner.split("/")
    if parts[0] == "activity" and (len(parts) == 2 or (len(parts) == 3 and parts[2] == "data")):
        return parts[1]
    return inner or None


def _draw(runs: list[Run], inner: str, plot: Path, figure: str | None, choice: Choice) -> None:
    """The figure asked for; of a dataset alone a plain picture, of a whole run the overview."""
    from circuitlab.report import figures
    from circuitlab.report.readings import reading

    if inner and figure is None:
        from circuitlab.report.dataset import plot_dataset

        if extra := figures.given(choice):
            raise RunFileError(f"{extra[0]}: chooses nothing in the picture of one dataset; leave it out")
        plot_dataset(runs[0], inner, plot)
        return
    kind = figure
    if kind is None:
        neuron, weights = choice.population or choice.neurons or choice.samples, choice.projection
        kind = "neuron" if neuron else "weights" if weights else "overview"
    figures.plot(kind, runs, [reading(run) for run in runs], choice, plot)


def _summary(run: Run) -> dict[str, Any]:
    from circuitlab.report import contents
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
        "probes": contents.probes(run),
        "unsettled": contents.unsettled(run),
        "weights": contents.weights(run),
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


SHOWN, PART_BYTES = 10, 32e6
"""First values of a dataset that are shown, and bytes of it that are held at once."""


def _dataset(run: Run, path: str) -> dict[str, Any]:
    import h5py
    import numpy as np

    item = run.datasets[path]
    part: dict[str, Any] = {
        "file": str(run.path),
        "path": path,
        "shape": list(item.shape),
        "type": str(item.dtype),
        "attributes": {key: _plain(value) for key, value in item.attrs.items()},
    }
    if h5py.check_string_dtype(item.dtype) is not None:
        values = run.read(path)
        if isinstance(values, str):
            return part | {"text": values}
        return part | {"first_values": np.ravel(values)[:SHOWN].tolist()}
    if item.dtype.kind in "iufb" and item.size:
        part |= _statistics(run, path)
    return part | {"first_values": _first_values(run, path)}


def _first_values(run: Run, path: str) -> list[Any]:
    """The first values of a dataset, of a small one all of them."""
    import numpy as np

    item = run.datasets[path]
    if not item.size:
        return []
    if item.ndim == 0:
        return [run.read(path).tolist()]
    # as many of the first rows as hold them
    index: tuple[slice, ...] = tuple(slice(0, SHOWN) for _ in item.shape)
    inside = int(np.prod(item.shape[1:]))
    if inside > SHOWN:
        index = (slice(0, 1), *index[1:])
    return np.ravel(_rows(run, path, index))[:SHOWN].tolist()


def _rows(run: Run, path: str, index: Any) -> Any:
    from circuitlab.record.integrity import part_of

    try:
        return part_of(run.datasets[path], index if isinstance(index, tuple) else (index,))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise RunFileError(f"{run.path}: {path}: is damaged and cannot be read") from error


def _statistics(run: Run, path: str) -> dict[str, Any]:
    """Mean, lowest and highest of a dataset's finite values, and how many are none; a part at a time."""
    import numpy as np

    item = run.datasets[path]
    rows = max(1, int(PART_BYTES // max(1, item.nbytes // len(item)))) if item.ndim else 1
    count, total, low, high = 0, 0.0, float("inf"), float("-inf")
    parts = [slice(start, start + rows) for start in range(0, len(item), rows)] if item.ndim else [()]
    for part in parts:
        values = np.ravel(_rows(run, path, part))
        known = values[np.isfinite(values)]
        if known.size:
            count, total = count + known.size, total + float(known.sum(dtype=np.float64))
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    found: dict[str, Any] = {"mean": total / count, "lowest": low, "highest": high} if count else {}
    return found | {"not_finite": int((item.size or 0) - count)}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
