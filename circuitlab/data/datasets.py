"""Data sets as training, validation and test samples, and which population gets which array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from circuitlab.data.arrays import read_arrays
from circuitlab.data.idx import CLASSES, PUBLISHED, SIDE, read_published
from circuitlab.errors import DataError, suggestion

DIGITS_TEST = 360
DIGITS_CITATION = (
    "Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI machine learning repository, 1998; "
    "the copy that comes with scikit-learn"
)
FILE_CITATION = "the user's own file"


class DataChoice(Protocol):
    """What the experiment's `data` says; `train` and `test` belong to the set `file` only."""

    @property
    def name(self) -> str: ...
    @property
    def train(self) -> str | None: ...
    @property
    def test(self) -> str | float | None: ...
    @property
    def validation(self) -> float: ...
    @property
    def limit(self) -> int | None: ...


class HasTypeAndSize(Protocol):
    """A population, as far as data sets are concerned."""

    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Split:
    """Samples for one purpose.

    Args:
        arrays: by name: floats [sample, unit], or labels int64 [sample].
        ids: number of each sample in its file, shape [sample].
    """

    arrays: Mapping[str, np.ndarray]
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Split:
        """These samples only, in this order."""
        return Split({name: array[rows] for name, array in self.arrays.items()}, self.ids[rows])


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set.

    Args:
        name: digits, mnist, fashion_mnist or file.
        train, validation, test: its samples; validation and test may be empty.
        classes: number of classes of its labels, 0 where there are none.
        shapes: [channel, height, width] of arrays that are images.
        citation: what to cite.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    shapes: Mapping[str, tuple[int, int, int]]
    citation: str

    def split(self, name: str) -> Split:
        """train, validation or test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True)
class Assignment:
    """Which array drives which input population, and which is the target of which output population."""

    inputs: Mapping[str, str]
    targets: Mapping[str, str]


def _split(arrays: dict[str, np.ndarray]) -> Split:
    return Split(arrays, np.arange(len(next(iter(arrays.values()))), dtype=np.int64))


def _digits(dtype: np.dtype) -> tuple[Split, Split]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    whole = _split({"image": (pixels / 16.0).astype(dtype), "label": labels.astype(np.int64)})
    train, test = train_test_split(whole.ids, test_size=DIGITS_TEST, stratify=labels, random_state=0)
    return whole.take(np.sort(train)), whole.take(np.sort(test))


def _published(name: str, dtype: np.dtype) -> tuple[Split, Split]:
    train, test = (
        _split({"image": np.divide(images, 255, dtype=dtype), "label": labels})
        for images, labels in read_published(name).values()
    )
    return train, test


def _file(data: DataChoice, folder: Path, dtype: np.dtype) -> tuple[Split, Split]:
    def read(name: str) -> dict[str, np.ndarray]:
        arrays = read_arrays(folder / name)
        if "" in arrays:
            raise DataError(
                f"{folder / name}: holds one array without a name; give an npz file with named arrays"
            )
        for key, array in arrays.items():
            if array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    arrays[key] = array.astype(dtype)
                if not np.isfinite(arrays[key]).all():
                    sample = int(np.argmax(~np.isfinite(arrays[key]).all(axis=1)))
                    raise DataError(f"{folder / name}: {key}: sample {sample} is too large for {dtype}")
        return arrays

    if data.train is None:
        raise DataError("data.train: the set 'file' needs an npz file to train on; write train: FILE.npz")
    train = _split(read(data.train))
    if isinstance(data.test, str):
        test = _split(read(data.test))
        for name, array in train.arrays.items():
            other = test.arrays.get(name)
            if other is None:
                raise DataError(f"{folder / data.test}: no array '{name}', which {data.train} has")
            if other.shape[1:] != array.shape[1:] or other.dtype != array.dtype:
                raise DataError(
                    f"{folder / data.test}: {name}: samples have shape {list(other.shape[1:])} and type "
                    f"{other.dtype}, those of {data.train} {list(array.shape[1:])} and {array.dtype}"
                )
        return train, test
    count = _share(data.test or 0.0, len(train), "data.test")
    order = np.random.default_rng(0).permutation(len(train))
    return train.take(np.sort(order[count:])), train.take(np.sort(order[:count]))


def _share(share: float, total: int, key: str) -> int:
    count = round(share * total)
    if not 0 <= share < 1 or (share > 0 and not 0 < count < total):
        raise DataError(
            f"{key}: a share of {share} of {total} samples leaves nothing; give a share between 0 and 1"
        )
    return count


def load(
    data: DataChoice, folder: Path, *, generator: np.random.Generator, dtype: str = "float32"
) -> DataSet:
    """Reads a data set and splits it.

    The test samples are the same for every seed (digits: 360, stratified). `limit` takes the first samples of
    a fixed shuffle of the others (all, where there are fewer), and the generator then draws the validation
    share from those.

    Args:
        folder: what the paths of the set `file` are relative to.
        generator: draws the validation samples; the experiment's stream for it.
        dtype: float32 or float64, of everything but labels.
    Returns:
        Images in [0, 1], as [sample, pixel].
    Raises:
        DataError: the set is missing or damaged, or smaller than asked for.
    """
    kind = np.dtype(dtype)
    shapes: dict[str, tuple[int, int, int]] = {}
    if data.name == "digits":
        (train, test), classes, shapes, citation = _digits(kind), 10, {"image": (1, 8, 8)}, DIGITS_CITATION
    elif data.name in PUBLISHED:
        train, test = _published(data.name, kind)
        classes, shapes, citation = CLASSES, {"image": (1, SIDE, SIDE)}, PUBLISHED[data.name].citation
    elif data.name == "file":
        train, test = _file(data, folder, kind)
        labels = [a for s in (train, test) for a in s.arrays.values() if a.dtype == np.int64 and len(a)]
        classes, citation = max((int(array.max()) + 1 for array in labels), default=0), FILE_CITATION
    else:
        names = ["digits", *PUBLISHED, "file"]
        raise DataError(
            f"data.name: no data set '{data.name}'; there are {', '.join(names)}."
            + suggestion(data.name, names)
        )
    if data.limit is not None:
        train = train.take(np.random.default_rng(0).permutation(len(train))[: data.limit])
    count = _share(data.validation, len(train), "data.validation")
    order = generator.permutation(len(train))
    validation, train = train.take(np.sort(order[:count])), train.take(np.sort(order[count:]))
    return DataSet(data.name, train, validation, test, classes, shapes, citation)


def _thing(dataset: DataSet, array: str) -> str:
    return f"a {dataset.name} image has" if dataset.name != "file" else f"the array '{array}' has"


def _input(dataset: DataSet, population: str, size: int, given: str | None) -> str:
    arrays = dataset.train.arrays
    array = given or (population if population in arrays else "image")
    if array not in arrays:
        where = f"data.inputs.{population}" if given else "data"
        what = f"no array '{array}'" if given else f"no array for the input population {population}"
        raise DataError(f"{where}: {what}; there are {', '.join(arrays)}.{suggestion(array, arrays)}")
    if arrays[array].ndim != 2:
        raise DataError(
            f"data.inputs.{population}: '{array}' holds labels; an input needs floats [sample, unit]"
        )
    width = arrays[array].shape[1]
    if width != size:
        unit = "pixels" if array in dataset.shapes else "values"
        raise DataError(
            f"data: {population} has {size} units, but {_thing(dataset, array)} {width} {unit}; "
            f"set its size to {width}, or name another array under data.inputs.{population}"
        )
    return array


def _target(dataset: DataSet, population: str, size: int, given: str | None) -> str:
    arrays = dataset.train.arrays
    array = given or (population if population in arrays else "label")
    if array not in arrays:
        where = f"data.targets.{population}" if given else "data"
        what = f"no array '{array}'" if given else f"no target for the output population {population}"
        raise DataError(f"{where}: {what}; there are {', '.join(arrays)}.{suggestion(array, arrays)}")
    if arrays[array].ndim == 1:
        if size < dataset.classes or (size > dataset.classes and dataset.name != "file"):
            raise DataError(
                f"data: {population} has {size} units, but {dataset.name} has {dataset.classes} classes; "
                f"set its size to {dataset.classes}, or name another array under data.targets.{population}"
            )
    elif arrays[array].shape[1] != size:
        width = arrays[array].shape[1]
        raise DataError(
            f"data: {population} has {size} units, but the array '{array}' has {width} values; "
            f"set its size to {width}, or name another array under data.targets.{population}"
        )
    return array


def assign(
    dataset: DataSet,
    populations: Mapping[str, HasTypeAndSize],
    inputs: Mapping[str, str] | None = None,
    targets: Mapping[str, str] | None = None,
) -> Assignment:
    """Which array each input and output population gets: the one given, its namesake, or image and label.

    Args:
        populations: of the circuit, by name.
        inputs, targets: the experiment's `data.inputs` and `data.targets`, population to array.
    Raises:
        DataError: sizes differ, an array or population is missing; everything wrong at once, one line each.
    """
    problems: list[str] = []
    chosen: dict[str, dict[str, str]] = {"input": {}, "output": {}}
    for kind, given in (("input", inputs or {}), ("output", targets or {})):
        own = [name for name, population in populations.items() if population.type == kind]
        key = "data.inputs" if kind == "input" else "data.targets"
        for name in given:
            if name not in own:
                problems.append(
                    f"{key}.{name}: no {kind} population '{name}'; there are {', '.join(own)}."
                    + suggestion(name, own)
                )
        for name in own:
            find = _input if kind == "input" else _target
            try:
                chosen[kind][name] = find(dataset, name, populations[name].size, given.get(name))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return Assignment(chosen["input"], chosen["output"])


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Rows of each minibatch of an epoch, in a new order every epoch; the last may be smaller.

    The order hangs on seed and epoch alone: a resumed run sees what the uninterrupted one would have seen.
    """
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,))).permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]
