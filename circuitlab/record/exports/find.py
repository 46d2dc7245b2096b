"""Finding what a run file recorded, with every damage told in one line."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record.examine import DAMAGE
from circuitlab.record.exports.recordings import ROW_AXES, Recording, unlinked
from circuitlab.record.reader import Run

PLACES = ("activity", "equilibria", "updates", "feedback", "factors", "samples", "diagnosis")
"""Groups of a run file that hold recordings, in the order in which they are exported."""
BESIDE = (
    "step",
    "time",
    "iteration",
    "sample_ids",
    "labels",
    "unit_ids",
    "unit_names",
    "edge_ids",
    "parameter_ids",
)
"""Datasets that say what the axes of a recording are."""
_AXES = re.compile(r"\[([^\]]*)\]\s*")


def recordings(run: Run) -> tuple[list[Recording], list[str]]:
    """Everything that a run file recorded, and what it holds that is no array with named axes, one line each.

    Raises:
        RunFileError: something beside a recording does not fit it.
    """
    try:
        return _found(run)
    except DAMAGE as error:
        raise RunFileError(f"{run.path}: what it recorded is damaged: {error!r}") from error


def _found(run: Run) -> tuple[list[Recording], list[str]]:
    found: list[Recording] = []
    others: dict[str, list[str]] = {}
    populations = _sizes(run, "nodes", "node_id")
    projections = _sizes(run, "edges", "source_node_id")
    for place in PLACES:
        for path in [path for path in run.datasets if path.startswith(f"{place}/")]:
            parts = path.split("/")
            if place == "activity" and (len(parts) != 3 or parts[2] in BESIDE):
                continue
            if path == "diagnosis/sample_ids":
                continue
            item = run.datasets[path]
            axes = _axes(run, path, item)
            if axes is None or item.dtype.kind not in "biuf":
                others.setdefault(place, []).append(path.removeprefix(f"{place}/"))
                continue
            found.append(_recording(run, path, axes, populations, projections))
    notes = [
        f"{place}: single numbers and texts ({', '.join(names)}); `circuitlab inspect` shows them"
        for place, names in others.items()
    ]
    return found, notes


def chosen(found: Sequence[Recording], wanted: Sequence[str], path: Any) -> list[Recording]:
    """The recordings that are asked for by name or by a pattern such as `l23_*`; all where nothing is.

    Raises:
        RunFileError: a name that no recording has; the text lists those that there are.
    """
    if not wanted:
        return list(found)
    names = [each.name for each in found]
    picked: list[Recording] = []
    for word in wanted:
        fit = [each for each in found if each.name == word] or [
            each for each in found if fnmatch.fnmatchcase(each.name, word)
        ]
        if not fit:
            raise RunFileError(
                f"{path}: --probe: nothing recorded is called '{word}'; there are {', '.join(names) or 'none'}."
                + suggestion(word, names)
            )
        picked += [each for each in fit if each not in picked]
    return [each for each in found if each in picked]


def _sizes(run: Run, kind: str, dataset: str) -> dict[str, int]:
    """Size of every population or projection by its name."""
    found = {}
    for path, item in run.datasets.items():
        parts = path.split("/")
        if len(parts) == 3 and parts[0] == kind and parts[2] == dataset and item.ndim == 1:
            found[unlinked(parts[1])] = item.shape[0]
    return found


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _axes(run: Run, path: str, item: h5py.Dataset) -> tuple[str, ...] | None:
    """Names of the axes, which begin the description; None where it names none."""
    match = _AXES.match(_text(item.attrs.get("description")))
    if match is None:
        return None
    axes = tuple(word.strip() for word in match[1].split(","))
    if len(axes) != item.ndim or len(set(axes)) != len(axes):
        raise RunFileError(
            f"{run.path}: {path}: is damaged: its axes are [{match[1]}], its shape is {item.shape}"
        )
    return axes


def _recording(
    run: Run,
    path: str,
    axes: tuple[str, ...],
    populations: Mapping[str, int],
    projections: Mapping[str, int],
) -> Recording:
    item = run.datasets[path]
    said = {key: _text(value) for key, value in item.attrs.items() if np.ndim(value) == 0}
    parts = [unlinked(part) for part in path.split("/")]
    group = path.rpartition("/")[0] if parts[0] == "activity" else ""
    about = {key: _text(value) for key, value in run.file[group].attrs.items()} if group else {}
    population, projection, variable = said.get("population"), said.get("projection"), said.get("variable")
    if group and parts[-1] != "data":
        variable = variable or parts[-1]
    if not group:
        variable = variable or _variable(parts)
        population = population or next((p for p in reversed(parts) if p in populations), None)
        if population is None and parts[-1].removesuffix("_bias") in populations:
            population = parts[-1].removesuffix("_bias")
        if "edge" in axes or "parameter" in axes:
            population, projection = None, projection or next((p for p in parts if p in projections), None)
    frames, points, trimmed = _beside(run, group, axes, item.shape)
    shape = (trimmed, *item.shape[1:]) if trimmed is not None else item.shape
    ids = _ids(run, group, path, axes, shape, population, projection, populations, projections)
    samples = _samples(run, group, parts[0], axes, shape)
    described = _text(item.attrs.get("description"))
    phase = said.get("phase", parts[1] if parts[0] == "equilibria" and len(parts) > 2 else "")
    return Recording(
        name="/".join(part for part in parts[1:] if part != "data") if group else "/".join(parts),
        run=run,
        path=path,
        axes=axes,
        shape=shape,
        about=_AXES.sub("", described, count=1),
        units=said.get("units", ""),
        variable=variable or "",
        symbol=said.get("symbol", ""),
        phase=phase,
        of=about.get("of", ""),
        every=about.get("every", ""),
        population=population,
        projection=projection,
        ids=ids,
        unit_names=_unit_names(run, group, population, ids, shape, axes),
        frames=frames,
        points=points,
        sample_ids=samples,
        labels=_vector(run, f"{group}/labels", shape[axes.index("sample")])
        if group and "sample" in axes and f"{group}/labels" in run.datasets
        else None,
    )


def _variable(parts: Sequence[str]) -> str:
    """What an array outside of /activity is, by its path."""
    if parts[0] == "equilibria" and len(parts) > 3 and parts[2] == "controller":
        return "controller"
    if parts[0] == "samples":
        return parts[1]
    return parts[-1] if parts[0] in ("equilibria", "diagnosis") else parts[0]


def _beside(
    run: Run, group: str, axes: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int | None]:
    """Steps and times of frames and points, and how many frames are whole."""
    if not group:
        steps = "weights/step" in run.datasets and axes[:1] == ("snapshot",)
        return ({"step": _vector(run, "weights/step", shape[0])} if steps else {}), {}, None
    frames, points = {}, {}
    for name in ("step", "time", "iteration"):
        path = f"{group}/{name}"
        along = _axes(run, path, run.datasets[path]) if path in run.datasets else None
        if along == ("point",) and "point" in axes:
            points[name] = _vector(run, path, shape[axes.index("point")])
        elif along == ("frame",) and "frame" in axes:
            frames[name] = _vector(run, path, None)
    if not axes or axes[0] != "frame":
        return frames, points, None
    counts = [shape[0], *(len(values) for values in frames.values())]
    ids = run.datasets.get(f"{group}/sample_ids")
    if ids is not None and ids.ndim == 2:
        counts.append(len(ids))
    rows = min(counts)
    return {name: values[:rows] for name, values in frames.items()}, points, rows


def _vector(run: Run, path: str, length: int | None) -> np.ndarray:
    values = np.asarray(run.read(path))
    if values.ndim != 1 or values.dtype.kind not in "biuf" or (length is not None and len(values) != length):
        wanted = "" if length is None else f", {length} are needed"
        raise RunFileError(f"{run.path}: {path}: is damaged: shape {values.shape} of {values.dtype}{wanted}")
    return values


def _ids(
    run: Run,
    group: str,
    path: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    population: str | None,
    projection: str | None,
    populations: Mapping[str, int],
    projections: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Index of every entry along each column axis."""
    owners = {
        "unit": (population, populations, "population"),
        "edge": (projection, projections, "projection"),
    }
    found = {}
    for axis, size in zip(axes, shape, strict=True):
        if axis in ROW_AXES:
            continue
        beside = f"{group}/{axis.replace(' ', '_')}_ids"
        given = bool(group) and beside in run.datasets
        ids = _vector(run, beside, size) if given else np.arange(size)
        owner, sizes, kind = owners.get(axis, (None, {}, ""))
        if owner is not None and owner not in sizes:
            raise RunFileError(f"{run.path}: {path}: is damaged: there is no {kind} '{owner}'")
        least, most = (int(ids.min()), int(ids.max())) if size else (0, -1)
        if ids.dtype.kind not in "iu" or least < 0 or (owner is not None and most >= sizes[owner]):
            limit = "" if owner is None else f", and {kind} '{owner}' has {sizes[owner]}"
            raise RunFileError(
                f"{run.path}: {beside if given else path}: is damaged: ids up to {most}{limit}"
            )
        found[axis] = ids.astype(np.int64)
    return found


def _samples(
    run: Run, group: str, place: str, axes: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Number of each sample: beside the recording, or in its whole group, as diagnoses have it."""
    if "sample" not in axes:
        return None
    path = f"{group or place}/sample_ids"
    if path not in run.datasets:
        return None
    values = np.asarray(run.read(path))
    size = shape[axes.index("sample")]
    if values.ndim == 2 and axes[0] == "frame":
        values = values[: shape[0]]
    fits = values.shape in ((size,), (shape[0], size))
    if not fits or values.dtype.kind not in "iu":
        raise RunFileError(f"{run.path}: {path}: is damaged: shape {values.shape}, {size} samples are needed")
    return values.astype(np.int64)


def _unit_names(
    run: Run,
    group: str,
    population: str | None,
    ids: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> tuple[str, ...] | None:
    if "unit" not in axes:
        return None
    size = shape[axes.index("unit")]
    if group and f"{group}/unit_names" in run.datasets:
        names = np.asarray(run.read(f"{group}/unit_names"))
        if names.shape != (size,):
            raise RunFileError(f"{run.path}: {group}/unit_names: is damaged: shape {names.shape}")
        return tuple(str(name) for name in names)
    if population is None:
        return None
    names = names_of(run, population)
    return None if names is None else tuple(names[i] for i in ids["unit"])


def names_of(run: Run, population: str) -> list[str] | None:
    """Names of all neurons of a population, or None."""
    for path in run.datasets:
        parts = path.split("/")
        if (
            len(parts) == 4
            and (parts[0], *parts[2:]) == ("nodes", "0", "name")
            and unlinked(parts[1]) == population
        ):
            return [str(name) for name in np.asarray(run.read(path)).ravel()]
    return None
