"""MNIST's own files: every byte is what it should be, or one line says what is not."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from circuitlab.data import idx
from circuitlab.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 2), dtype=np.uint8)


def zipped(data: bytes) -> bytes:
    """Compressed, without the time of day in it: the parameters of a test are the same in every process."""
    return gzip.compress(data, mtime=0)


def packed(array: np.ndarray, kind: int = 8) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return header + array.tobytes()


def test_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(zipped(packed(IMAGES)))
    np.testing.assert_array_equal(idx.read_idx(path, (5, 3, 2)), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            zipped(packed(IMAGES, kind=13)),
            "is no idx file of bytes with 3 axes: it begins with 00 00 0d 03",
        ),
        (zipped(packed(IMAGES[0])), "is no idx file of bytes with 3 axes: it begins with 00 00 08 02"),
        (zipped(packed(IMAGES[:4])), "holds an array of shape [4, 3, 2]; expected [5, 3, 2]"),
        (zipped(packed(IMAGES)[:-1]), "holds 45 bytes; 46 expected"),
        (zipped(packed(IMAGES) + b"x"), "holds more bytes; 46 expected"),
        (zipped(b""), "is no idx file of bytes with 3 axes: it begins with "),
        (packed(IMAGES), "is damaged or truncated, or no gzip file: Not a gzipped file (b'\\x00\\x00')"),
        (
            zipped(packed(IMAGES))[:-9],
            "is damaged or truncated, or no gzip file: Compressed file ended before "
            "the end-of-stream marker was reached",
        ),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        idx.read_idx(path, (5, 3, 2))
    assert str(refused.value) == f"{path}: {message}"


def test_wrong_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    content = bytearray(zipped(packed(IMAGES)))
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or truncated, or no gzip file: CRC check failed"):
        idx.read_idx(path, (5, 3, 2))


def test_label_beyond_nine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_DATA", str(tmp_path))
    monkeypatch.setattr(idx, "COUNTS", {"train": 3, "t10k": 3})
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(zipped(packed(np.zeros((3, 28, 28), np.uint8))))
        labels = np.array([9, 10, 0] if part == "t10k" else [0, 1, 2], np.uint8)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(zipped(packed(labels)))
    with pytest.raises(
        DataError, match=r"t10k-labels-idx1-ubyte\.gz: sample 1 has the label 10; labels are 0 to 9$"
    ):
        idx.read_published("mnist")


def test_a_missing_set_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_DATA", str(tmp_path / "mine"))
    given, repository, beside = idx.search_folders()
    assert given == tmp_path / "mine"
    assert (repository / "mnist").is_dir()
    assert beside == repository.parent.parent / "shared" / "data"
    monkeypatch.setattr(idx, "search_folders", lambda: [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(DataError) as refused:
        idx.locate("fashion_mnist")
    message = str(refused.value)
    assert "\n" not in message
    for part in (
        tmp_path / "a/fashion_mnist",
        tmp_path / "b/fashion_mnist",
        "https://github.com/zalandoresearch",
        "CIRCUITLAB_DATA",
    ):
        assert str(part) in message


def test_the_users_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_DATA", str(tmp_path))
    assert idx.locate("mnist") != tmp_path / "mnist"
    (tmp_path / "mnist").mkdir()
    for file in idx.FILES:
        (tmp_path / "mnist" / file).touch()
    assert idx.locate("mnist") == tmp_path / "mnist"
