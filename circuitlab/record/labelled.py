"""What a run file holds by population, neuron name, sample, step and time: arrays of xarray with labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitlab.errors import RunFileError, needs
from circuitlab.record.arrays import KEPT, Lazily, Snapshots, axes, missing, name_of, plain, variable
from circuitlab.record.storage import link_name
from circuitlab.record.weights import recorded

if TYPE_CHECKING:
    import xarray as xr
    from xarray.core import indexing

    from circuitlab.record.reader import Run
else:
    xr = needs("xarray", extra="analysis", what="circuitlab.open")
    indexing = needs("xarray.core.indexing", extra="analysis", what="circuitlab.open")

LABELS = {
    "unit": ("neuron", "unit_id"),
    "sample": ("sample_id",),
    "edge": ("edge_id",),
    "parameter": ("parameter_id",),
    "frame": ("step",),
    "point": ("time", "iteration"),
}
"""What may label an axis, the first that is there and unique."""
_OWN_COLUMNS = ("syn_weight", "multiplicity", "parameter_index")
_TAKEN = (
    *LABELS,
    *(name for names in LABELS.values() for name in names),
    *("snapshot", "label", "source", "target", "source_name", "target_name"),
)
LARGEST_INDEX = 1_000_000
"""Entries of an axis that can be selected by label at most; beyond, by position alone."""


def activity(run: Run) -> Lazily:
    """Every probe's record by the probe's name."""
    found = dict.fromkeys(
        name_of(path.split("/")[1])
        for path in run.datasets
        if path.startswith("activity/") and path.count("/") == 2 and path.endswith("/data")
    )
    return Lazily(run, "probe", list(found), lambda name: _probe(run, name))


def _probe(run: Run, name: str) -> xr.DataArray:
    """A probe's record with everything that labels it: neurons, samples, classes, steps, times, edges."""
    group = f"activity/{link_name(name)}"
    if f"{group}/data" not in run.datasets:
        group = f"activity/{name}"
    data = variable(run, f"{group}/data")
    above = {key: plain(value) for key, value in run.file[group].attrs.items() if key in KEPT}
    data.attrs = {**above, **data.attrs}
    coordinates: dict[str, xr.Variable] = {}
    for path in run.datasets:
        key = path[len(group) + 1 :]
        if not path.startswith(f"{group}/") or key == "data":
            continue
        called = {"unit_ids": "unit_id", "unit_names": "neuron", "sample_ids": "sample_id", "labels": "label"}
        called |= {"edge_ids": "edge_id", "parameter_ids": "parameter_id"}
        side = variable(run, path)
        if set(side.dims) <= set(data.dims):
            coordinates[called.get(key, name_of(key))] = side
    rows = min(
        (part.sizes[data.dims[0]] for part in (data, *coordinates.values()) if data.dims[0] in part.dims),
        default=0,
    )
    if data.dims[0] == "frame":  # a file that grows may hold a frame's values, and not yet its step
        data = data[:rows]
        coordinates = {
            key: part[{"frame": slice(rows)}] if "frame" in part.dims else part
            for key, part in coordinates.items()
        }
    numbers = coordinates.get("sample_id")
    if numbers is not None and numbers.ndim == 2 and 0 < numbers.size <= LARGEST_INDEX:
        values = np.asarray(numbers)
        if (values == values[0]).all():  # the same samples in every frame
            coordinates["sample_id"] = xr.Variable(numbers.dims[1:], values[0], numbers.attrs)
    found = xr.DataArray(data, name=name)
    population, projection = (str(data.attrs.get(key, "")) for key in ("population", "projection"))
    if "unit_id" in coordinates and population:
        found = found.assign_coords(_columns_of_units(run, population, coordinates["unit_id"]))
    if "edge_id" in coordinates and projection:
        found = found.assign_coords(_columns_of_edges(run, projection, np.asarray(coordinates["edge_id"])))
    found = found.assign_coords({key: part for key, part in coordinates.items() if key not in found.dims})
    return _indexed(found)


def _indexed(found: Any) -> Any:
    """An array or dataset in which every label selects: neurons by name and by number, frames by step and by time.

    The axis itself takes the first of its labels that is unique: `unit` the names where there are names.
    """
    for dim in found.dims:
        axis = str(dim)
        labels = [key for key, part in found.coords.items() if part.dims == (dim,) and key != dim]
        if found.sizes[dim] > LARGEST_INDEX:
            continue
        for name in LABELS.get(axis, ()):
            values = found[name].values if name in labels else None
            if values is not None and dim not in found.coords and len(np.unique(values)) == len(values):
                found = found.assign_coords({dim: (dim, values, dict(found[name].attrs))})
        for key in labels:
            if key not in found.xindexes:
                found = found.set_xindex(key)
    return found


def _group(run: Run, kind: str, name: str) -> str:
    """Where a population or projection lies in the file."""
    links = {
        name_of(path.split("/")[1]): "/".join(path.split("/")[:2])
        for path in run.datasets
        if path.startswith(f"{kind}/")
    }
    if name not in links:
        raise missing(run, {"nodes": "population", "edges": "projection"}[kind], name, list(links))
    return links[name]


def _columns_of_units(run: Run, population: str, ids: Any) -> dict[str, tuple[str, np.ndarray]]:
    """What is known of each neuron beside its number: `layer`, positions, and further columns, [unit]."""
    try:
        group = _group(run, "nodes", population)
    except RunFileError:
        return {}
    numbers = np.asarray(ids)
    found: dict[str, tuple[str, np.ndarray]] = {"unit_id": ("unit", numbers)}
    for path in run.datasets:
        key = path[len(group) + 3 :]
        if path.startswith(f"{group}/0/") and "/" not in key and key != "bias":
            values = _texts(run.read(path))
            if values.ndim == 1 and numbers.size and int(numbers.max()) < len(values):
                found["neuron" if key == "name" else _column(name_of(key), "neuron")] = (
                    "unit",
                    values[numbers],
                )
    if "layer" in run.file[group].attrs and "layer" not in found:
        layer = str(run.file[group].attrs["layer"])
        found["layer"] = ("unit", np.full(len(numbers), layer))
    return found


def _column(name: str, owner: str) -> str:
    """A further column's name; another one where the arrays themselves have this one."""
    return f"{owner}_{name}" if name in _TAKEN else name


def _texts(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return (
        np.asarray(values.tolist(), dtype=np.str_).reshape(values.shape)
        if values.dtype.kind == "O"
        else values
    )


def _names_of(run: Run, population: str) -> np.ndarray | None:
    path = f"{_group(run, 'nodes', population)}/0/name"
    return _texts(run.read(path)) if path in run.datasets else None


def _columns_of_edges(run: Run, projection: str, ids: np.ndarray | None) -> dict[str, Any]:
    """The neurons that each edge joins, by number and, where they have any, by name, [edge]."""
    group = _group(run, "edges", projection)
    said = run.file[group].attrs
    found: dict[str, Any] = {}
    for side in ("source", "target"):
        ends = variable(run, f"{group}/{side}_node_id", ("edge",))
        if ids is not None:
            ends = ends[{"edge": ids}]
        found[side] = ends
        names = _names_of(run, str(said[side]))
        if names is not None:
            found[f"{side}_name"] = ("edge", names[np.asarray(ends)])
    for path in run.datasets:
        key = path[len(group) + 3 :]
        if path.startswith(f"{group}/0/") and "/" not in key and key not in _OWN_COLUMNS:
            column = variable(run, path, ("edge",))
            found[_column(name_of(key), "edge")] = column if ids is None else column[{"edge": ids}]
    return found


def population(run: Run, name: str) -> xr.Dataset:
    """Everything recorded of a population's neurons.

    A variable that only one probe recorded has its own name, `soma`; where several did (other phases, samples,
    neurons), each is named after its probe, and the attribute `variable` says which it is. A probe whose
    frames, samples or neurons differ from those of most has axes of its own: `frame_<probe>`, `sample_<probe>`.
    """
    _group(run, "nodes", name)
    probes = {
        key: part for key, part in activity(run).items() if str(part.attrs.get("population", "")) == name
    }
    if not probes:
        raise RunFileError(
            f"{run.path}: nothing was recorded of '{name}'; an experiment says under `record` what is"
        )
    variables = [str(part.attrs.get("variable", key)) for key, part in probes.items()]
    named = {
        key: word if variables.count(word) == 1 else key
        for (key, _), word in zip(probes.items(), variables, strict=True)
    }
    return _together(
        {named[key]: part for key, part in probes.items()}, {"population": name, "run": str(run.path)}
    )


def _together(parts: Mapping[str, xr.DataArray], attrs: dict[str, Any]) -> xr.Dataset:
    """Arrays in one dataset; those whose axis differs from that of most have one of their own."""
    own: dict[str, set[Hashable]] = {name: set() for name in parts}
    for dim in dict.fromkeys(dim for part in parts.values() for dim in part.dims):
        alike: list[list[str]] = []
        for name, part in parts.items():
            if dim in part.dims:
                for names in alike:
                    if _same_axis(parts[names[0]], part, dim):
                        names.append(name)
                        break
                else:
                    alike.append([name])
        for names in alike:
            if names is not max(alike, key=len):
                for name in names:
                    own[name].add(dim)
    renamed = {}
    for name, part in parts.items():
        changes = {dim: f"{dim}_{name}" for dim in part.dims if dim in own[name]}
        for key, coordinate in part.coords.items():
            if key not in changes and own[name] & set(coordinate.dims):
                changes[key] = f"{key}_{name}"
        renamed[name] = part.rename(changes).rename(name)
    coordinates: dict[Hashable, Any] = {}
    for name, part in renamed.items():
        for key, value in part.coords.items():
            known = coordinates.get(key)
            same = known is None or known is value.variable or known.equals(value.variable)
            coordinates[key if same else f"{key}_{name}"] = value.variable
    return _indexed(xr.Dataset({name: part.variable for name, part in renamed.items()}, coordinates, attrs))


def _same_axis(first: xr.DataArray, other: xr.DataArray, dim: Hashable) -> bool:
    if first.sizes[dim] != other.sizes[dim]:
        return False
    keys = {key for part in (first, other) for key, value in part.coords.items() if value.dims == (dim,)}
    return all(
        key in first.coords and key in other.coords and first[key].variable.equals(other[key].variable)
        for key in keys
    )


def training(run: Run) -> xr.Dataset:
    """What was measured during training, over epoch, evaluation and step."""
    found, attrs = {}, {}
    if run.is_group("training"):
        attrs = {key: plain(value) for key, value in run.file["training"].attrs.items()}
    coordinates: dict[str, Any] = {}
    for name in run.metrics():
        path = f"training/{name}"
        index = str(run.datasets[path].attrs.get("index", "")).strip("/")
        part = variable(run, path)
        if index in run.datasets:
            axis = index.rsplit("/", 1)[-1]
            steps = variable(run, index, (axis,))
            part = xr.Variable((axis,), part._data, part.attrs)
            coordinates.setdefault(axis, steps)
        found[name] = part
    rows: dict[str, int] = {}
    for part in (*found.values(), *coordinates.values()):
        for dim, size in zip(map(str, part.dims), map(int, part.shape), strict=True):
            rows[dim] = min(rows[dim], size) if dim in rows else size
    cut = {
        key: part[{dim: slice(rows[str(dim)]) for dim in part.dims}]
        for key, part in {**coordinates, **found}.items()
    }
    return xr.Dataset(
        {key: part for key, part in cut.items() if key in found},
        {key: part for key, part in cut.items() if key in coordinates},
        attrs,
    )


def weights_of(run: Run, name: str) -> xr.DataArray:
    """Weights of a projection [step, edge], or biases [step, unit], over training."""
    known = [name_of(link) for link in recorded(run)]
    if name not in known:
        raise missing(run, "weights of", name, known)
    whole = Snapshots(run, name)
    place = f"weights/{link_name(name)}"
    about = run.datasets.get(place)
    population = name.removesuffix("_bias") if name.endswith("_bias") else ""
    units = bool(population) and f"edges/{link_name(name)}/source_node_id" not in run.datasets
    edges = 0 if units else len(run.datasets[f"{_group(run, 'edges', name)}/source_node_id"])
    axis = "unit" if units else "edge" if edges == whole.shape[1] and not _shared(run, name) else "parameter"
    steps = run.read("weights/step")[: whole.shape[0]]
    attrs = {
        key: plain(value) for key, value in (about.attrs.items() if about is not None else ()) if key in KEPT
    }
    attrs |= {"population": population} if units else {"projection": name}
    data = indexing.LazilyIndexedArray(whole)
    found = xr.DataArray(
        xr.Variable(("step", axis), data, {"units": "dimensionless", "variable": "weights", **attrs})[
            : len(steps)
        ],
        {"step": ("step", steps, {"units": "updates"})},
        name=name,
    )
    if axis == "unit":
        found = found.assign_coords(_columns_of_units(run, population, np.arange(whole.shape[1])))
        return _indexed(found)
    if axis == "edge":
        return _indexed(found.assign_coords(_columns_of_edges(run, name, None)))
    return found


def _shared(run: Run, name: str) -> bool:
    return f"{_group(run, 'edges', name)}/0/parameter_index" in run.datasets


def equilibria(run: Run) -> Lazily:
    """`free` and `controlled`, as datasets."""
    phases = dict.fromkeys(path.split("/")[1] for path in run.datasets if path.startswith("equilibria/"))
    return Lazily(run, "equilibrium", list(phases), lambda phase: _equilibrium(run, phase))


def _equilibrium(run: Run, phase: str) -> xr.Dataset:
    """Variables such as `l23_soma` [sample, l23], and residual, iterations and converged [sample]."""
    root = f"equilibria/{phase}"
    attrs = {key: plain(value) for key, value in run.file[root].attrs.items()}
    found: dict[str, xr.Variable] = {}
    coordinates: dict[str, Any] = {}
    for path in run.datasets:
        if not path.startswith(f"{root}/"):
            continue
        parts = [name_of(part) for part in path[len(root) + 1 :].split("/")]
        if len(parts) == 1:
            found[parts[0]] = variable(run, path)
            continue
        name = parts[1] if parts[0] == "controller" else parts[0]
        dims = tuple(
            name if dim == "unit" else f"{name}_{dim}" if dim == "output_unit" else dim
            for dim in axes(run, path)
        )
        found["_".join((name, "controller") if parts[0] == "controller" else parts)] = variable(
            run, path, dims
        )
        if name not in coordinates and name in dims:
            names = _names_of(run, name)
            size = run.datasets[path].shape[dims.index(name)]
            coordinates[name] = (name, np.arange(size) if names is None else names)
    return xr.Dataset(found, coordinates, attrs)
