"""What this machine can do at best: its matrix rate and the bandwidth of its memory and caches, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from circuitlab.bench.machine import cache_bytes

MATRICES = (512, 1024, 2048)
IN_MEMORY = 4
"""The arrays of a stream in memory are together so many times larger than the last cache."""
SECONDS = 0.4


@dataclass(frozen=True)
class Rates:
    """Best rates seen, and the sizes of the caches.

    Args:
        matrix: multiplications and additions per second in a dense product.
        second, third, memory: bytes per second of a copy or triad that stays in the second cache, in the third, or
            goes to memory; reads and writes counted.
        second_bytes, third_bytes: sizes of the caches.
    """

    matrix: float
    second: float
    third: float
    memory: float
    second_bytes: int
    third_bytes: int

    def bandwidth(self, bytes_: float) -> float:
        """Bytes per second of the level that holds so many bytes."""
        if bytes_ <= self.second_bytes:
            return self.second
        return self.third if bytes_ <= self.third_bytes else self.memory


def measure(dtype: torch.dtype = torch.float32) -> Rates:
    """Measure the machine with the present number of threads; some seconds."""
    caches = cache_bytes()
    second, third = caches[2], max(caches[3], 4 * caches[2])
    third_level = max(4 * second, third // 4)
    return Rates(
        matrix=max(_matrix(n, dtype) for n in MATRICES),
        second=_stream(second // 2, dtype),
        third=_stream(min(third_level, third), dtype),
        memory=_stream(IN_MEMORY * third, dtype),
        second_bytes=second,
        third_bytes=third,
    )


def _matrix(n: int, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, dtype=dtype, generator=generator) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * n**3 / _least(lambda: torch.mm(a, b, out=out))


def _stream(bytes_: int, dtype: torch.dtype) -> float:
    """The better of copy (a = b) and triad (a = b + s c), arrays of `bytes_` together."""
    item = torch.empty(0, dtype=dtype).element_size()
    best = 0.0
    for arrays in (2, 3):
        length = bytes_ // (arrays * item)
        out, *given = (torch.ones(length, dtype=dtype) for _ in range(arrays))
        if arrays == 2:
            seconds = _least(lambda out=out, given=given: out.copy_(given[0]))
        else:
            seconds = _least(lambda out=out, given=given: torch.add(given[0], given[1], alpha=0.5, out=out))
        best = max(best, arrays * length * item / seconds)
    return best


def _least(work: Callable[[], object]) -> float:
    """Least seconds of one call over about SECONDS."""
    work()
    begun = time.perf_counter()
    work()
    loops = max(1, round(2e-3 / max(time.perf_counter() - begun, 1e-7)))
    least, stop = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < stop or least == float("inf"):
        begun = time.perf_counter()
        for _ in range(loops):
            work()
        least = min(least, (time.perf_counter() - begun) / loops)
    return least
