"""Data sets: published facts about them, splits that do not move, and arrays that find their populations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitlab.data.datasets import DataSet, assign, batches, load
from circuitlab.errors import DataError


@dataclass(frozen=True)
class Choice:
    name: str = "digits"
    train: str | None = None
    test: Any = None
    validation: float = 0.1
    limit: int | None = None


@dataclass(frozen=True)
class Cells:
    type: str
    size: int


def get(folder: Path = Path(), seed: int = 0, dtype: str = "float32", **options: Any) -> DataSet:
    return load(Choice(**options), folder, generator=np.random.default_rng(seed), dtype=dtype)


def test_digits() -> None:
    data = get()
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.classes == 10
    assert data.shapes["image"] == (1, 8, 8)
    everything = np.concatenate([split.ids for split in (data.train, data.validation, data.test)])
    assert np.array_equal(np.sort(everything), np.arange(1797))
    images = data.train.arrays["image"]
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert np.array_equal(images * 16, np.round(images * 16))
    assert set(np.bincount(data.test.arrays["label"])) <= {35, 36, 37}


def test_digits_are_the_published_ones() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for split in (get().train, get().test):
        assert np.array_equal(split.arrays["image"] * 16, pixels[split.ids])
        assert np.array_equal(split.arrays["label"], labels[split.ids])


def test_the_seed_moves_the_validation_samples_only() -> None:
    first, again, other = get(seed=0), get(seed=0), get(seed=1)
    assert np.array_equal(first.validation.ids, again.validation.ids)
    assert not np.array_equal(first.validation.ids, other.validation.ids)
    assert np.array_equal(first.test.ids, other.test.ids)


def test_limit_takes_the_same_samples_for_every_seed() -> None:
    small, other, larger = get(limit=100), get(limit=100, seed=1), get(limit=200)
    assert (len(small.train), len(small.validation), len(small.test)) == (90, 10, 360)

    def pool(data: DataSet) -> set[int]:
        return {*data.train.ids.tolist(), *data.validation.ids.tolist()}

    assert pool(small) == pool(other)
    assert pool(small) < pool(larger)
    assert len(get(limit=10**6, validation=0.0).train) == 1437


def test_mnist_is_whole_and_has_the_published_mean_and_deviation(repository: Path) -> None:
    for line in (repository / "data" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((repository / "data" / name).read_bytes()).hexdigest() == digest
    data = get(name="mnist", validation=0.0)
    assert (len(data.train), len(data.validation), len(data.test)) == (60_000, 0, 10_000)
    assert float(data.train.arrays["image"].mean(dtype=np.float64)) == pytest.approx(0.1307, abs=1e-4)
    assert float(data.train.arrays["image"].std(dtype=np.float64)) == pytest.approx(0.3081, abs=1e-4)
    assert data.train.arrays["label"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.arrays["label"][:5].tolist() == [7, 2, 1, 0, 4]


def save(folder: Path, name: str = "x.npz", count: int = 20, **more: Any) -> None:
    random = np.random.default_rng(0)
    np.savez(folder / name, eye=random.random((count, 4)), label=random.integers(0, 3, count), **more)


def test_own_files(tmp_path: Path) -> None:
    save(tmp_path)
    save(tmp_path, "y.npz", 6)
    data = get(tmp_path, name="file", train="x.npz", test="y.npz", dtype="float64")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    assert data.classes == 3
    with np.load(tmp_path / "x.npz") as file:
        assert np.array_equal(data.train.arrays["eye"], file["eye"][data.train.ids])
    shared = get(tmp_path, name="file", train="x.npz", test=0.2, validation=0.0)
    assert (len(shared.train), len(shared.test)) == (16, 4)
    assert not set(shared.train.ids) & set(shared.test.ids)
    assert len(get(tmp_path, name="file", train="x.npz").test) == 0


def test_own_files_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path)
    np.savez(tmp_path / "wide.npz", eye=np.zeros((3, 5)), label=np.zeros(3, int))
    np.savez(tmp_path / "less.npz", eye=np.zeros((3, 4)))
    np.savez(tmp_path / "large.npz", eye=np.array([[0.0], [1e300]]))
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    for options, message in (
        ({"train": None}, "data.train: the set 'file' needs an npz file to train on; write train: FILE.npz"),
        (
            {"train": "x.npy"},
            f"{tmp_path / 'x.npy'}: holds one array without a name; give an npz file with named arrays",
        ),
        (
            {"test": "wide.npz"},
            f"{tmp_path / 'wide.npz'}: eye: samples have shape [5] and type float32, "
            "those of x.npz [4] and float32",
        ),
        ({"test": "less.npz"}, f"{tmp_path / 'less.npz'}: no array 'label', which x.npz has"),
        ({"train": "large.npz"}, f"{tmp_path / 'large.npz'}: eye: sample 1 is too large for float32"),
        ({"train": "gone.npz"}, f"{tmp_path / 'gone.npz'}: there is no such file"),
        (
            {"validation": 0.01},
            "data.validation: a share of 0.01 of 20 samples leaves nothing; give a share between 0 and 1",
        ),
        (
            {"test": 1.0},
            "data.test: a share of 1.0 of 20 samples leaves nothing; give a share between 0 and 1",
        ),
    ):
        with pytest.raises(DataError) as refused:
            get(tmp_path, **{"name": "file", "train": "x.npz", **options})
        assert str(refused.value) == message


def test_unknown_set() -> None:
    with pytest.raises(DataError) as refused:
        get(name="digit")
    expected = (
        "data.name: no data set 'digit'; there are digits, mnist, fashion_mnist, file. Did you mean 'digits'?"
    )
    assert str(refused.value) == expected


def test_image_and_label_go_where_they_fit(tmp_path: Path) -> None:
    data = get()
    cells = {
        "retina": Cells("input", 64),
        "l4": Cells("pyramidal", 7),
        "a": Cells("output", 10),
        "b": Cells("output", 10),
    }
    chosen = assign(data, cells)
    assert (chosen.inputs, chosen.targets) == ({"retina": "image"}, {"a": "label", "b": "label"})
    save(tmp_path, place=np.zeros((20, 2)), target=np.zeros((20, 5)))
    own = get(tmp_path, name="file", train="x.npz")
    cells = {
        "eye": Cells("input", 4),
        "where": Cells("input", 2),
        "choice": Cells("output", 4),
        "target": Cells("output", 5),
    }
    chosen = assign(own, cells, {"where": "place"}, {})
    assert chosen.inputs == {"eye": "eye", "where": "place"}
    assert chosen.targets == {"choice": "label", "target": "target"}


def test_what_does_not_fit_is_told_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        assign(
            get(),
            {"retina": Cells("input", 100), "readout": Cells("output", 12)},
            {"l4": "image"},
            {"readout": "lable"},
        )
    assert str(refused.value).splitlines() == [
        "data.inputs.l4: no input population 'l4'; there are retina.",
        "data: retina has 100 units, but a digits image has 64 pixels; set its size to 64, "
        "or name another array under data.inputs.retina",
        "data.targets.readout: no array 'lable'; there are image, label. Did you mean 'label'?",
    ]
    save(tmp_path, wide=np.zeros((20, 7)))
    own = get(tmp_path, name="file", train="x.npz")
    cells = {
        "ear": Cells("input", 4),
        "eye": Cells("input", 3),
        "a": Cells("output", 2),
        "wide": Cells("output", 6),
    }
    with pytest.raises(DataError) as refused:
        assign(own, cells)
    assert str(refused.value).splitlines() == [
        "data: no array for the input population ear; there are eye, label, wide.",
        "data: eye has 3 units, but the array 'eye' has 4 values; set its size to 4, or name another array "
        "under data.inputs.eye",
        "data: a has 2 units, but file has 3 classes; set its size to 3, "
        "or name another array under data.targets.a",
        "data: wide has 6 units, but the array 'wide' has 7 values; set its size to 7, or name another array "
        "under data.targets.wide",
    ]


def test_batches_hang_on_seed_and_epoch_alone() -> None:
    rows = list(batches(10, 4, seed=3, epoch=2))
    assert [len(part) for part in rows] == [4, 4, 2]
    assert sorted(np.concatenate(rows).tolist()) == list(range(10))
    again = list(batches(10, 4, seed=3, epoch=2))
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))
    for other in (batches(10, 4, seed=3, epoch=3), batches(10, 4, seed=4, epoch=2)):
        assert not np.array_equal(np.concatenate(rows), np.concatenate(list(other)))
