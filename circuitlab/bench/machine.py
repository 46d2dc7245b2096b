"""The machine a measurement was taken on, and how many of its threads were used."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from circuitlab.errors import CircuitError
from circuitlab.record.provenance import provenance

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_CACHES = {2: 2**20, 3: 2**25}
"""Bytes of the second and third cache where the system does not tell them."""


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Run with this many threads of torch.

    Raises:
        CircuitError: there are fewer cores.
    """
    if not 1 <= threads <= cores():
        raise CircuitError(
            f"--threads: {threads} threads on a machine with {cores()} cores; allowed: 1 to {cores()}"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cache_bytes() -> dict[int, int]:
    """Bytes of the unified or data cache of each level that one core sees, levels 2 and 3 at least."""
    found = dict(UNKNOWN_CACHES)
    for index in sorted(CACHES.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size[-1:] in "KM":
            found[int(level)] = int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    return found


def describe(threads: int, command: str) -> dict[str, Any]:
    """Command, processor, cores, threads, caches and versions, as plain data."""
    told = provenance(Path(__file__).parent)
    return {
        "processor": _processor(),
        "cores": cores(),
        "threads": threads,
        "cache_bytes": {str(level): size for level, size in sorted(cache_bytes().items())},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "matrix_library": "MKL" if torch.backends.mkl.is_available() else "BLAS",
        **told,
        "command": command,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def resident(key: str) -> int | None:
    """Bytes of the process in memory, now (VmRSS) or at the highest (VmHWM); None where the system does not tell."""
    try:
        match = re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def reset_peak() -> None:
    """Set the high-water mark back to what is in memory now, where the system can."""
    if CLEAR.exists():
        CLEAR.write_text("5")
