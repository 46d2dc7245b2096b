"""The user's own arrays from npy and npz files: no pickled objects, no missing values, samples that match."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from circuitlab.errors import DataError, suggestion

_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises on damaged npy and npz files."""


def _available_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _raw_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give an npz or npy file")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path}: is no data file: arrays are read from .npz and .npy")
    name = "array"
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
        else:
            header = np.load(path, mmap_mode="r", allow_pickle=False)
            size = int(header.nbytes)
        if size > _available_bytes():
            raise DataError(f"{path}: holds {size / 1e9:.3g} GB, more than the memory of this machine")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        arrays: dict[str, np.ndarray] = {}
        with loaded:
            for name in loaded.files:
                arrays[name] = loaded[name]
    except _UNREADABLE as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise DataError(
                f"{path}: {name}: holds Python objects, which are not read; save plain numbers"
            ) from error
        raise DataError(f"{path}: is damaged, or no {path.suffix[1:]} file") from error
    if not arrays:
        raise DataError(f"{path}: holds no array")
    return arrays


def checked(array: np.ndarray, where: str) -> np.ndarray:
    """Floats as [sample, unit] (further axes flattened), or labels as int64 [sample].

    Args:
        where: what messages begin with.

    Raises:
        DataError: NaN or infinity, neither floats nor labels, or nothing in it.
    """
    if array.ndim == 0:
        raise DataError(f"{where}: is a single value; the first axis must be the sample")
    if len(array) == 0 or array.size == 0:
        raise DataError(f"{where}: is empty, of shape {array.shape}")
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array).reshape(len(array), -1)
        if bad.any():
            sample = int(np.argmax(bad.any(axis=1)))
            unit = int(np.argmax(bad[sample]))
            value = array.reshape(len(array), -1)[sample, unit]
            at = f"sample {sample}" + (f", unit {unit}" if array.ndim > 1 else "")
            raise DataError(f"{where}: {at} is {value}; every value must be finite")
        if array.ndim == 1:
            raise DataError(f"{where}: has one axis; floats are [sample, unit], labels are whole numbers")
        return array.reshape(len(array), -1)
    if array.dtype.kind in "iub" and array.ndim > 1:
        return array.astype(np.float64).reshape(len(array), -1)
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() >= 2**31:
            sample = int(np.argmax((array < 0) | (array >= 2**31)))
            raise DataError(f"{where}: sample {sample} has the label {array[sample]}; labels count from 0")
        return array.astype(np.int64)
    raise DataError(
        f"{where}: holds values of type {array.dtype}; give floats [sample, unit] or whole labels [sample]"
    )


def read_arrays(path: str | Path, *, samples: bool = True) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, or the one array of an npy file under the name ''.

    Args:
        samples: whether the first axis is the sample; else arrays come as they are (weights).
    Returns:
        Floats as [sample, unit] (further axes flattened), labels as int64 [sample]; whole numbers with more than
        one axis count as floats.
    Raises:
        DataError: unreadable, pickled objects, NaN or infinity, neither floats nor labels, unequal numbers
            of samples; names the file, the array and the first bad sample.
    """
    path = Path(path)
    if not samples:
        return _raw_arrays(path)
    arrays = {
        name: checked(array, f"{path}: {name}" if name else f"{path}")
        for name, array in _raw_arrays(path).items()
    }
    first, *others = arrays
    for name in others:
        if len(arrays[name]) != len(arrays[first]):
            raise DataError(
                f"{path}: {name} has {len(arrays[name])} samples, {first} has {len(arrays[first])}; "
                "every array needs one row per sample"
            )
    return arrays


def read_array(path: str | Path, name: str = "") -> np.ndarray:
    """One array of an npy or npz file, checked like `read_arrays`.

    Args:
        name: which array of an npz file; it may be left out where there is only one.
    Raises:
        DataError: as `read_arrays`, or there is no such array.
    """
    arrays = read_arrays(path)
    if len(arrays) == 1 and (not name or "" in arrays):
        return next(iter(arrays.values()))
    if name in arrays:
        return arrays[name]
    if not name:
        raise DataError(f"{path}: holds several arrays ({', '.join(arrays)}); say which")
    raise DataError(f"{path}: no array '{name}'; there are {', '.join(arrays)}.{suggestion(name, arrays)}")
