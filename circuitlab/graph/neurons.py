"""Properties of a population's neurons from files: names, positions, biases, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError, FormatError
from circuitlab.graph.edges import FloatArray
from circuitlab.graph.tables import Table, read_arrays, read_table
from circuitlab.spec.layers import LayerSpec


def read_names(path: Path, size: int) -> tuple[str, ...]:
    """Names of a population's neurons from column `name` of a CSV file, in the file's order.

    Raises:
        FormatError: another number of names, an empty name, or one twice.
    """
    table = read_table(path)
    names = tuple(table.column("name"))
    _check_length(path, len(names), size, "names")
    first: dict[str, int] = {}
    for name, line in zip(names, table.lines, strict=True):
        if not name:
            raise FormatError(f"{path}:{line}: the name is empty")
        if name in first:
            raise FormatError(f"{path}:{line}: the name '{name}' appears twice, first in line {first[name]}")
        first[name] = line
    return names


def read_positions(path: Path, size: int, names: Sequence[str] | None = None) -> FloatArray:
    """Positions [unit, dimension] from columns x, y and z (as many as there are) of a CSV file, or from .npy.

    Rows are matched by name where both the file has a column `name` and the population has names, else by
    order.

    Raises:
        FormatError: no such columns, another number of rows, numbers that are not finite.
    """
    if path.suffix == ".npy":
        array = read_arrays(path)["array"]
        if array.ndim != 2 or array.dtype.kind not in "iuf" or not 1 <= array.shape[1] <= 3:
            raise FormatError(
                f"{path}: positions are numbers of shape [unit, dimension], not {list(array.shape)}"
            )
        _check_length(path, array.shape[0], size, "positions")
        return _all_finite(path, array.astype(np.float64))
    table = read_table(path)
    table.column("x")
    rows = _rows(table, size, names, "positions")
    return np.stack([table.numbers(axis)[rows] for axis in ("x", "y", "z") if axis in table.columns], axis=1)


def read_attributes(path: Path, size: int, names: Sequence[str] | None = None) -> dict[str, NDArray]:
    """Attributes of the neurons, shape [unit] each, from the columns of a CSV file except `name`."""
    table = read_table(path)
    rows = _rows(table, size, names, "rows")
    return {name: table.values(name)[rows] for name in table.columns if name != "name"}


def read_bias(path: Path, size: int, names: Sequence[str] | None = None) -> FloatArray:
    """Biases, shape [unit], from column `bias` of a CSV file, from .npy, or from `bias` in an .npz file."""
    if path.suffix in (".npy", ".npz"):
        arrays = read_arrays(path)
        array = arrays.get("array", arrays.get("bias"))
        if array is None or array.shape != (size,) or array.dtype.kind not in "iuf":
            shape = "none" if array is None else f"{array.dtype} {list(array.shape)}"
            raise FormatError(
                f"{path}: the bias is an array of {size} numbers, one for each unit; there is {shape}"
            )
        return _all_finite(path, array.astype(np.float64))
    table = read_table(path)
    return table.numbers("bias")[_rows(table, size, names, "biases")]


def grid_positions(shape: Sequence[int], spacing: float | Sequence[float], size: int) -> FloatArray:
    """Positions [unit, dimension] on a grid from the origin, the last dimension running fastest.

    Raises:
        CircuitError: the grid has another number of places than there are neurons.
    """
    if int(np.prod(shape)) != size:
        raise CircuitError(
            f"the grid {list(shape)} has {int(np.prod(shape))} places, but there are {size} units"
        )
    return np.stack(np.unravel_index(np.arange(size), tuple(shape)), axis=1) * np.asarray(
        spacing, dtype=np.float64
    )


def shifted(places: FloatArray, origin: Sequence[float] | None) -> FloatArray:
    """Positions [unit, dimension] with the origin added.

    Raises:
        CircuitError: the origin has another number of dimensions.
    """
    if origin is None:
        return places
    if len(origin) != places.shape[1]:
        raise CircuitError(
            f"positions: the origin has {len(origin)} numbers for positions in {places.shape[1]} dimensions"
        )
    return places + np.asarray(origin, dtype=np.float64)


def with_depth(places: FloatArray, generator: np.random.Generator, layer: LayerSpec) -> FloatArray:
    """Positions with one more dimension, the depth, uniform in the layer."""
    low, high = layer.bounds
    axis = _depth_axis(layer, places.shape[1] + 1)
    return np.insert(places, axis, generator.uniform(low, high, size=places.shape[0]), axis=1)


def hold_to_layer(places: FloatArray, layer: LayerSpec, name: str, names: Sequence[str] | None) -> None:
    """Refuse positions outside of their layer.

    Raises:
        CircuitError: names the first neuron that lies outside.
    """
    low, high = layer.bounds
    depth = places[:, _depth_axis(layer, places.shape[1])]
    outside = (depth < low) | (depth > high)
    if outside.any():
        first = int(np.argmax(outside))
        who = first if names is None else f"'{names[first]}'"
        raise CircuitError(
            f"positions: neuron {who} lies at the depth {depth[first]:g}, outside of layer '{name}', "
            f"{low:g} to {high:g}"
        )


def _depth_axis(layer: LayerSpec, dimensions: int) -> int:
    try:
        return layer.depth_axis(dimensions)
    except ValueError as error:
        raise CircuitError(f"layer: {error}") from error


def _rows(table: Table, size: int, names: Sequence[str] | None, what: str) -> NDArray[np.intp]:
    """Which row of the table belongs to each neuron."""
    if names is None or "name" not in table.columns:
        _check_length(table.path, len(table), size, what)
        return np.arange(size)
    row = {name: index for index, name in enumerate(table.columns["name"])}
    for name in names:
        if name not in row:
            raise FormatError(f"{table.path}: no row for the neuron '{name}'")
    return np.array([row[name] for name in names], dtype=np.intp)


def _check_length(path: Path, found: int, size: int, what: str) -> None:
    if found != size:
        raise FormatError(f"{path}: {found} {what}, but the population has {size} units")


def _all_finite(path: Path, array: FloatArray) -> FloatArray:
    if not np.isfinite(array).all():
        first = int(np.argmax(~np.isfinite(array).reshape(array.shape[0], -1).all(axis=1)))
        raise FormatError(f"{path}: row {first} holds {array[first]}; the numbers must be finite")
    return array
