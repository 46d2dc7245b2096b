"""A simulation's arrays: inputs over time, targets and initial potentials, from files or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.data.arrays import checked, read_arrays
from circuitlab.errors import DataError
from circuitlab.experiment.assemble import Assembled, target_array, tensor
from circuitlab.experiment.equilibrium import fits_cross_entropy, shared_out

Arrays = str | Path | np.ndarray | Mapping[str, np.ndarray]
"""A file (npy or npz), an array, or arrays by population."""


def _raw(arrays: Arrays, what: str) -> tuple[dict[str, np.ndarray], str]:
    """Arrays by name as they are, and what messages call them."""
    if isinstance(arrays, str | Path):
        return read_arrays(arrays, samples=False), str(arrays)
    if isinstance(arrays, Mapping):
        return {name: np.asarray(array) for name, array in arrays.items()}, what
    return {"": np.asarray(arrays)}, what


def _samples(arrays: Arrays, what: str) -> tuple[dict[str, np.ndarray], str]:
    """Arrays by name as floats [sample, unit] or labels [sample], and what messages call them."""
    found, where = _raw(arrays, what)
    return {
        name: checked(array, f"{where}: {name}" if name else where) for name, array in found.items()
    }, where


def input_signal(inputs: Arrays, sizes: Mapping[str, int], step_ms: float | None) -> np.ndarray:
    """Inputs over time, [time, sample, input unit], all populations side by side; one time where they are constant.

    Args:
        sizes: of the input populations.
        step_ms: how long each time lasts; None where the arrays have no axis of time.

    Raises:
        DataError: they do not fit.
    """
    raw, where = _raw(inputs, "inputs")
    flat, times = {}, set()
    for name, array in raw.items():
        called = f"{where}: {name}" if name else where
        if step_ms is None:
            if array.ndim == 3 and array.shape[2] in (sizes.get(name), sum(sizes.values())):
                raise DataError(
                    f"{called}: has the shape {array.shape}; an input over time, [time, sample, unit], needs the time "
                    "that each of its steps lasts (input_dt)"
                )
            flat[name] = checked(array, called)
            continue
        if array.ndim < 3 or not array.size:
            raise DataError(
                f"{called}: has the shape {array.shape}; with input_dt an input is [time, sample, unit]"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            time, sample = np.argwhere(~np.isfinite(array))[0][:2]
            raise DataError(f"{called}: time {time}, sample {sample} is not finite; every value must be")
        times.add(array.shape[:2])
        flat[name] = checked(array.reshape(-1, *array.shape[2:]), called)
    if len(times) > 1:
        raise DataError(f"{where}: its arrays have {' and '.join(map(str, sorted(times)))} times and samples")
    found = shared_out(flat, dict(sizes), "input", where)
    for name, array in found.items():
        if array.ndim == 1:
            raise DataError(f"{where}: {name}: holds whole numbers; an input needs floats [sample, unit]")
    if len({len(array) for array in found.values()}) > 1:
        raise DataError(f"{where}: the arrays of its inputs have different numbers of samples")
    joined = np.concatenate([found[name] for name in sizes], axis=1)
    return joined.reshape(*times.pop(), -1) if times else joined[None]


def unlabelled(targets: Arrays) -> bool:
    """Whether targets are neither labels nor distributions."""
    return not fits_cross_entropy(_samples(targets, "targets")[0])


def read_targets(targets: Arrays, assembled: Assembled, samples: int) -> Tensor:
    """Targets, [output unit, sample].

    Raises:
        DataError: they do not fit the outputs or the inputs.
    """
    compiled, losses = assembled.compiled, assembled.spec.losses
    found, where = _samples(targets, "targets")
    sizes = {name: rows.stop - rows.start for name, rows in compiled.outputs.items()}
    found = shared_out(found, sizes, "output", where)
    for name, array in found.items():
        if len(array) != samples:
            raise DataError(f"{where}: {name}: has {len(array)} samples, the input has {samples}")
        found[name] = target_array(name, array, sizes[name], losses[name], where)
    return tensor(np.concatenate([found[name] for name in compiled.outputs], axis=1).T, compiled)


def initial_potentials(initial: Arrays, compiled: CompiledCircuit, samples: int) -> Tensor:
    """Potentials at the first moment, [unit, sample], from arrays [sample, unit] of all non-input populations.

    Raises:
        DataError: they do not fit.
    """
    found, where = _samples(initial, "initial")
    sizes = {name: rows.stop - rows.start for name, rows in compiled.units.items()}
    found = shared_out(found, sizes, "non-input", where)
    for name, array in found.items():
        if array.ndim == 1 or len(array) != samples:
            raise DataError(
                f"{where}: {name}: potentials are [sample, unit] for {samples} samples, not {array.shape}"
            )
    phi = compiled.tau.new_zeros(compiled.size, samples)
    for name, rows in compiled.units.items():
        phi[rows] = tensor(found[name].T, compiled)
    return phi
