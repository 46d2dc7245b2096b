"""MNIST-like sets in their published form, idx files packed with gzip, checked byte by byte."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuitlab.errors import DataError

SIDE = 28
CLASSES = 10
COUNTS = {"train": 60_000, "t10k": 10_000}


@dataclass(frozen=True)
class Published:
    """Where a data set comes from.

    Args:
        title: how it is called.
        url: where it is published.
        citation: what to cite.
    """

    title: str
    url: str
    citation: str


PUBLISHED = {
    "mnist": Published(
        "MNIST handwritten digits",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. "
        "Proceedings of the IEEE 86(11), 1998",
    ),
    "fashion_mnist": Published(
        "Fashion-MNIST articles of clothing",
        "https://github.com/zalandoresearch/fashion-mnist",
        "Xiao, Rasul, Vollgraf: Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms. arXiv:1708.07747, 2017",
    ),
}
FILES = tuple(f"{part}-{kind}.gz" for part in COUNTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))


def search_folders() -> list[Path]:
    """Where data sets are looked for, in this order: $CIRCUITLAB_DATA, data/ of the repository, beside it."""
    given = os.environ.get("CIRCUITLAB_DATA")
    repository = Path(__file__).resolve().parents[2]
    return [*([Path(given)] if given else []), repository / "data", repository.parent / "shared" / "data"]


def locate(name: str) -> Path:
    """The folder that holds a published set.

    Raises:
        DataError: no folder has all of its files; says where it looked and where the set is published.
    """
    folders = [folder / name for folder in search_folders()]
    for folder in folders:
        if all((folder / file).is_file() for file in FILES):
            return folder
    looked = ", ".join(str(folder) for folder in folders)
    raise DataError(
        f"data: {name} was not found; looked for {', '.join(FILES)} in {looked}. It is published at "
        f"{PUBLISHED[name].url}; put the four files into the folder {name} of a folder of your own and set "
        "CIRCUITLAB_DATA to that folder"
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An idx file of bytes.

    Args:
        shape: what it must hold.
    Returns:
        uint8 array of that shape.
    Raises:
        DataError: it cannot be read, is damaged or truncated, or holds something else.
    """
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            data = file.read(expected + 1)
            rest = file.read(1) if len(data) == expected else b""  # also checks the sum at the end
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is damaged or truncated, or no gzip file: {error}") from error
    if data[:4] != header[:4]:
        raise DataError(
            f"{path}: is no idx file of bytes with {len(shape)} axes: it begins with {data[:4].hex(' ')}"
        )
    if data[: len(header)] != header:
        found = struct.unpack(f">{len(shape)}I", data[4 : len(header)].ljust(4 * len(shape), b"\0"))
        raise DataError(f"{path}: holds an array of shape {list(found)}; expected {list(shape)}")
    if len(data) != expected or rest:
        size = "more" if len(data) > expected or rest else f"{len(data)}"
        raise DataError(f"{path}: holds {size} bytes; {expected} expected")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


def read_published(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of `train` and `t10k`.

    Returns:
        uint8 [sample, pixel] with values 0 to 255, int64 labels [sample] from 0 to 9.
    Raises:
        DataError: the set is missing or damaged.
    """
    folder = locate(name)
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for part, count in COUNTS.items():
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", (count, SIDE, SIDE))
        path = folder / f"{part}-labels-idx1-ubyte.gz"
        labels = read_idx(path, (count,))
        if labels.max() >= CLASSES:
            sample = int(np.argmax(labels >= CLASSES))
            raise DataError(
                f"{path}: sample {sample} has the label {labels[sample]}; labels are 0 to {CLASSES - 1}"
            )
        parts[part] = images.reshape(count, -1), labels.astype(np.int64)
    return parts
