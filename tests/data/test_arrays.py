"""The user's own arrays: what is read, and the one line that says why something is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from circuitlab.data.arrays import read_array, read_arrays
from circuitlab.errors import DataError

GOOD = np.linspace(0, 1, 12).reshape(4, 3)
LABELS = np.array([0, 2, 1, 0])


def with_value(value: float, at: tuple[int, int]) -> np.ndarray:
    array = GOOD.copy()
    array[at] = value
    return array


def test_arrays_come_back_as_samples_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(
        path, retina=GOOD, image=GOOD.reshape(4, 1, 3, 1).astype(np.float32), label=LABELS.astype(np.uint8)
    )
    arrays = read_arrays(path)
    np.testing.assert_array_equal(arrays["retina"], GOOD)
    assert arrays["image"].shape == (4, 3)
    assert arrays["image"].dtype == np.float32
    assert arrays["label"].dtype == np.int64
    assert arrays["label"].tolist() == [0, 2, 1, 0]
    np.testing.assert_array_equal(read_array(path, "retina"), GOOD)
    with pytest.raises(
        DataError, match=r"no array 'retin'; there are retina, image, label\. Did you mean 'retina'\?"
    ):
        read_array(path, "retin")
    with pytest.raises(DataError, match=r"holds several arrays \(retina, image, label\); say which"):
        read_array(path)


def test_single_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GOOD)
    np.savez(tmp_path / "x.npz", anything=GOOD)
    np.testing.assert_array_equal(read_array(tmp_path / "x.npy"), GOOD)
    np.testing.assert_array_equal(read_array(tmp_path / "x.npz"), GOOD)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_value(np.nan, (2, 1)), "sample 2, unit 1 is nan; every value must be finite"),
        (with_value(-np.inf, (3, 0)), "sample 3, unit 0 is -inf; every value must be finite"),
        (np.array([0, 1, -3, 1]), "sample 2 has the label -3; labels count from 0"),
        (GOOD[:, 0], "has one axis; floats are [sample, unit], labels are whole numbers"),
        (GOOD[:, 0] > 0, "holds values of type bool; give floats [sample, unit] or whole labels [sample]"),
        (
            np.array(["a"] * 4),
            "holds values of type <U1; give floats [sample, unit] or whole labels [sample]",
        ),
        (GOOD * 1j, "holds values of type complex128; give floats [sample, unit] or whole labels [sample]"),
        (np.array(1.0), "is a single value; the first axis must be the sample"),
        (np.zeros((0, 3)), "is empty, of shape (0, 3)"),
        (np.array([{}, 1], dtype=object), "holds Python objects, which are not read; save plain numbers"),
        (GOOD[:3], "has 3 samples, label has 4; every array needs one row per sample"),
    ],
)
def test_bad_arrays_are_named_with_their_first_bad_sample(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, allow_pickle=True, label=LABELS, image=array)
    with pytest.raises(DataError) as refused:
        read_arrays(path)
    assert str(refused.value) == f"{path}: image: {message}".replace("image: has 3", "image has 3")


def test_files_that_hold_no_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", GOOD)
    whole = (tmp_path / "whole.npy").read_bytes()
    np.savez(tmp_path / "whole.npz", image=GOOD)
    packed = (tmp_path / "whole.npz").read_bytes()
    np.savez(tmp_path / "none.npz")
    huge = whole.replace(b"(4, 3), }            ", b"(4, 9999999999999), }")
    assert len(huge) == len(whole)
    files = {
        "text.npz": b"a,b\n1,2\n",
        "empty.npz": b"",
        "text.npy": b"a,b\n1,2\n",
        "empty.npy": b"",
        "short.npy": whole[:-5],
        "huge.npy": huge,
        "short.npz": packed[: len(packed) // 2],
        "flipped.npz": packed[:140] + bytes(byte ^ 255 for byte in packed[140:150]) + packed[150:],
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as refused:
            read_arrays(path)
        assert str(refused.value) == f"{path}: is damaged, or no {name[-3:]} file"
    for name, message in (
        ("gone.npz", "there is no such file"),
        ("none.npz", "holds no array"),
        ("data.yaml", "is no data file: arrays are read from .npz and .npy"),
    ):
        (tmp_path / "data.yaml").write_text("x: 1\n")
        with pytest.raises(DataError) as refused:
            read_arrays(tmp_path / name)
        assert str(refused.value) == f"{tmp_path / name}: {message}"
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy: array: holds Python objects, which are not read"):
        read_arrays(tmp_path / "objects.npy")
    with pytest.raises(DataError, match="is a folder; give an npz or npy file"):
        read_arrays(tmp_path)


def test_whole_numbers_with_two_axes_are_values_not_labels(tmp_path: Path) -> None:
    for array in (np.arange(12, dtype=np.uint8).reshape(4, 3), np.eye(4, dtype=bool)):
        np.save(tmp_path / "x.npy", array)
        found = read_array(tmp_path / "x.npy")
        assert found.dtype == np.float64
        assert np.array_equal(found, array)


def test_weights_come_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "q.npz", a=np.ones((3, 2)), b=np.ones((5, 2)))
    assert {name: array.shape for name, array in read_arrays(tmp_path / "q.npz", samples=False).items()} == {
        "a": (3, 2),
        "b": (5, 2),
    }
