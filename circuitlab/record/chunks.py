"""Datasets that grow along axis 0, chunk by chunk.

A full chunk is written once, compressed where that pays, with the checksum (Fletcher's) of HDF5's own filter. The
last, unfinished chunk lies in the file as plain bytes, all filters left out for it: new rows are added in place
without touching those that readers see, which no checksum over the chunk would allow. HDF5 knows of both by the
filter mask that it keeps of every chunk, so that any reader reads them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import h5py
import numpy as np

CHUNK_BYTES = 256 * 1024
"""Bytes of the rows that one chunk, or one row of chunks, holds; before compression."""
LARGE_FRAME = 16 * 1024
"""Bytes of a frame from which its last axis (neurons) is cut into several chunks, so that one neuron is read over
time without all others."""
PARTS, NARROWEST = 8, 16
"""Parts that the last axis is cut into at most, and values in a part at least."""
ROWS = 1024


def shape_of_chunks(frame: Sequence[int], itemsize: int, expected: int | None = None) -> tuple[int, ...]:
    """Shape of the chunks of a dataset [row, *frame].

    Args:
        itemsize: bytes of a value. expected: rows that there will be; a chunk has no room for more.
    """
    sides = [max(1, size) for size in frame]
    nbytes = int(np.prod(sides)) * itemsize
    block = 4 * CHUNK_BYTES if nbytes >= LARGE_FRAME else CHUNK_BYTES
    rows = min(ROWS, max(1, block // nbytes), max(1, expected or ROWS))
    if nbytes >= LARGE_FRAME and len(sides) > 1:
        sides[-1] = min(sides[-1], max(NARROWEST, -(-sides[-1] // PARTS)))
    while int(np.prod(sides)) * itemsize * rows > 16 * CHUNK_BYTES:
        widest = int(np.argmax(sides))
        sides[widest] = -(-sides[widest] // 2)
    return (rows, *sides)


def fletcher32(data: bytes) -> bytes:
    """HDF5's checksum of a chunk: two sums over its 16-bit words, big end first, modulo 65535.

    A swap of the bytes multiplies a sum by 256 modulo 65535, so that words are summed as this machine reads them.
    """
    words = np.frombuffer(data, "<u2", len(data) // 2).astype(np.float64)
    count, width = len(words), 256
    whole = count // width
    first = second = 0
    if whole:
        weights = np.stack([np.ones(width), np.arange(width, 0, -1.0)], axis=1)
        sums = (words[: whole * width].reshape(whole, width) @ weights).astype(np.int64)
        first = int(sums[:, 0].sum())
        behind = count - width * np.arange(1, whole + 1, dtype=np.int64)
        second = int((sums[:, 0] % 65535 * (behind % 65535)).sum()) + int(sums[:, 1].sum())
        plain = int((sums[:, 0] != 0).sum())
    else:
        plain = 0
    rest = words[whole * width :]
    first += int(rest.sum())
    second += int((rest * np.arange(len(rest), 0, -1.0)).sum())
    some = plain > 0 or bool(rest.any())
    first, second = first * 256, second * 256
    if len(data) % 2:
        first += data[-1] << 8
        second += first
        some = some or data[-1] != 0
    # sums of something other than zeros never fold to zero, but to 65535
    one, two = (total % 65535 or (65535 if some else 0) for total in (first, second))
    return struct.pack("<I", two << 16 | one)


@dataclass(frozen=True)
class Layout:
    """How a growing dataset lies in the file.

    Args:
        chunk: shape of a chunk, [row, *frame]. dtype: of its values.
        compressed: whether its chunks may be shuffled and deflated. checked: whether they carry checksums.
    """

    chunk: tuple[int, ...]
    dtype: np.dtype
    compressed: bool
    checked: bool = True

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Layout:
        """Of a dataset that is there."""
        assert dataset.chunks is not None
        return cls(dataset.chunks, dataset.dtype, dataset.compression == "gzip", bool(dataset.fletcher32))

    @property
    def plain(self) -> int:
        """The mask that leaves out all filters: shuffle and deflate, and the checksum."""
        return (0b11 if self.compressed else 0) << self.checked | int(self.checked)

    def pieces(self, rows: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Cuts a row of chunks into its chunks, filled up with zeros.

        Args:
            rows: at most `chunk[0]` of them, [row, *frame].
        Yields:
            Offset of the chunk in the frame, and its values.
        """
        sides = self.chunk[1:]
        starts = (range(0, size, side) for size, side in zip(rows.shape[1:], sides, strict=True))
        for place in product(*starts):
            window = tuple(slice(at, at + side) for at, side in zip(place, sides, strict=True))
            piece = rows[(slice(None), *window)]
            if piece.shape != self.chunk:
                whole = np.zeros(self.chunk, self.dtype)
                whole[tuple(slice(size) for size in piece.shape)] = piece
                piece = whole
            yield place, np.ascontiguousarray(piece, self.dtype)

    def encoded(self, piece: np.ndarray, compress: bool) -> tuple[bytes, int]:
        """A full chunk as it lies in the file, and the mask of the filters left out.

        Args:
            compress: whether to try, where the dataset can be compressed.
        """
        data, mask = piece.tobytes(), 0
        if self.compressed:
            small = zlib.compress(shuffled(data, piece.itemsize), 1) if compress else data
            if len(small) < len(data) - 4:  # of another length than the plain chunk, which stays where it is
                data = small
            else:
                mask = 0b11
        return (data + fletcher32(data) if self.checked else data), mask


def shuffled(data: bytes, itemsize: int) -> bytes:
    """HDF5's shuffle: the first bytes of all values, then the second bytes of all, and so on."""
    return np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()
