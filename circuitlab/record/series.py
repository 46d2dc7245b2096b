"""What waits to be written into a growing dataset: the rows of its unfinished chunks, and full chunks being encoded."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np

from circuitlab.record.chunks import Layout

Encoded = list[tuple[tuple[int, ...], bytes, int]]
"""Chunks: offset in the frame, bytes, and mask of the filters left out."""


class Encoder:
    """Encodes full chunks in a thread of its own; Python's lock is free meanwhile."""

    backlog = 16 * 1024 * 1024
    """Bytes that wait for it from which on chunks are no longer compressed: it must not fall behind."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._count = threading.Lock()

    def submit(self, layout: Layout, rows: np.ndarray) -> Future[Encoded]:
        """Encodes a row of chunks, shape [row, *frame], which nobody changes any more."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "circuitlab-encode")
        compress = self._waiting < self.backlog
        with self._count:
            self._waiting += rows.nbytes

        def encode() -> Encoded:
            try:
                return [(place, *layout.encoded(piece, compress)) for place, piece in layout.pieces(rows)]
            finally:
                with self._count:
                    self._waiting -= rows.nbytes

        return self._pool.submit(encode)

    def close(self) -> None:
        """Ends the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class Series:
    """A growing dataset of a run file.

    Args:
        encoder: of its full chunks.
        first: its first frame, which all others are like.
        attributes: of the dataset.
        expected: rows that there will be, where that is known: room for no more is taken in small files.
    """

    def __init__(
        self, encoder: Encoder, first: np.ndarray, attributes: dict[str, Any], expected: int | None = None
    ) -> None:
        self.first, self.attributes, self.expected = np.array(first), attributes, expected
        self.layout: Layout | None = None
        self._encoder = encoder
        self._blocks: list[tuple[int, Future[Encoded]]] = []
        self._start = 0  # row that the unfinished chunk begins at
        self._tail: np.ndarray | None = None
        self._filled = self._written = 0  # rows in the unfinished chunk, and those of them that HDF5 has
        self._early: list[np.ndarray] = []  # frames that wait for the dataset to be made

    @property
    def rows(self) -> int:
        """All rows, those that wait included."""
        return self._start + self._filled + len(self._early)

    @property
    def stored(self) -> bool:
        """Whether the file has the dataset."""
        return self.layout is not None

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return bool(self._blocks) or self._filled > self._written or bool(self._early)

    @property
    def ready(self) -> bool:
        """Whether full chunks wait that are encoded."""
        return bool(self._blocks) and self._blocks[0][1].done()

    def takes(self, frame: np.ndarray) -> bool:
        """Whether a frame is just like the first."""
        return frame.dtype == self.first.dtype and frame.shape == self.first.shape

    def append(self, frame: np.ndarray) -> int:
        """Adds a frame; the bytes that wait more for it."""
        if self.layout is None:
            self._early.append(np.array(frame, self.first.dtype))
            return frame.nbytes + 64
        if self._tail is None:
            self._tail = np.zeros((self.layout.chunk[0], *self.first.shape), self.layout.dtype)
        self._tail[self._filled] = frame
        self._filled += 1
        if self._filled < len(self._tail):
            return 0
        self._blocks.append((self._start, self._encoder.submit(self.layout, self._tail)))
        full, self._tail = self._tail.nbytes, None
        self._start, self._filled, self._written = self._start + self.layout.chunk[0], 0, 0
        return full

    def attach(self, dataset: h5py.Dataset) -> None:
        """Goes on in a dataset that is there, behind its last row."""
        self.layout = Layout.of(dataset)
        rows = len(dataset)
        self._start = rows - rows % self.layout.chunk[0]
        self._filled = self._written = rows - self._start
        if self._filled:
            self._tail = np.zeros((self.layout.chunk[0], *self.first.shape), self.layout.dtype)
            self._tail[: self._filled] = dataset[self._start :]
        early, self._early = self._early, []
        for frame in early:
            self.append(frame)

    def write(self, dataset: h5py.Dataset, *, blocks_only: bool = False, last: bool = False) -> int:
        """Hands what waits to HDF5; the bytes written of full chunks.

        Args:
            blocks_only: full chunks that are encoded, and nothing that would be waited for.
            last: nothing follows; the unfinished chunk is encoded, too.
        """
        assert self.layout is not None
        written = 0
        while self._blocks and (not blocks_only or self.ready):
            start, encoded = self._blocks.pop(0)
            chunks = encoded.result()
            dataset.resize(start + self.layout.chunk[0], axis=0)
            for place, data, mask in chunks:
                dataset.id.write_direct_chunk((start, *place), data, mask)
            written += self.layout.chunk[0] * self.first.nbytes
        if blocks_only or not (self._filled > self._written or (last and self._filled)):
            return written
        assert self._tail is not None
        dataset.resize(self._start + self._filled, axis=0)
        for place, piece in self.layout.pieces(self._tail):
            data, mask = self.layout.encoded(piece, True) if last else (piece.tobytes(), self.layout.plain)
            dataset.id.write_direct_chunk((self._start, *place), data, mask)
        self._written = self._filled
        return written
