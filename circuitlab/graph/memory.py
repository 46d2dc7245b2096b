"""How much memory a circuit needs and how much there is: one too large is refused before it is drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from circuitlab.errors import CircuitError
from circuitlab.graph.edges import LARGE

GRAPH_BYTES, LARGE_GRAPH_BYTES = 20, 9
"""Bytes of a synapse in the graph: source 4, target 4 (none), weight 8 (4), how many are parallel 4 (1), where a
projection has fewer than `LARGE` synapses (or more)."""
COMPILED_BYTES, LARGE_COMPILED_BYTES = 16, 12
"""Compiled: value, and row and value of the transpose, 4 each; its permutation 4 (none). Columns are the graph's."""
UPDATE_BYTES = 4
"""Of one update, in float32."""
DRAWING_BYTES, SORTING_BYTES = 32, 52
"""Of a synapse of the projection that is being drawn, by a rule that draws in order, and by any other."""
IN_ORDER = (
    "all_to_all",
    "one_to_one",
    "fixed_indegree",
    "fixed_total_number",
    "pairwise_bernoulli",
    "pairwise_poisson",
)
LIMIT_VARIABLE = "CIRCUITLAB_MEMORY_LIMIT"

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def available_memory() -> float:
    """Bytes of memory that may be used: CIRCUITLAB_MEMORY_LIMIT ("8 GB"), else what the machine has free.

    Free is MemAvailable of Linux and what the control group leaves; elsewhere the machine's physical memory.
    """
    if text := os.environ.get(LIMIT_VARIABLE):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?\s*", text.lower())
        if match is None:
            raise CircuitError(
                f"the environment variable {LIMIT_VARIABLE} is '{text}'; write an amount such as '8 GB'"
            )
        return float(match[1]) * _UNITS[match[2] or ""]
    return min(_machine_memory(), control_group_memory())


def gigabytes(amount: float) -> str:
    """Bytes as text for messages: `52 GB`, `0.5 GB`."""
    value = amount / 1e9
    return f"{value:,.0f} GB" if value >= 10 else f"{value:.2g} GB"


def refuse_too_large(expected: Mapping[str, tuple[str, float]]) -> None:
    """Refuse a circuit whose synapses would not fit into memory.

    Args:
        expected: projection name -> (rule, expected number of synapses).

    Raises:
        CircuitError: it would take more than the memory available.
    """
    if not expected:
        return
    total = sum(count for _, count in expected.values())
    name = max(expected, key=lambda key: expected[key][1])
    rule, count = expected[name]
    own = _needed(rule, count)
    need, limit = max(own, sum(_settled(count) for _, count in expected.values())), available_memory()
    if need <= limit:
        return
    message = f"projections.{name}: {rule} makes {count:,.0f} synapses, about {gigabytes(own)}; "
    if own <= limit:
        message += f"the whole circuit has {total:,.0f}, about {gigabytes(need)}; "
    message += f"{gigabytes(limit)} are available; use "
    message += (
        "fewer synapses"
        if rule == "fixed_indegree"
        else "a sparse rule such as {rule: fixed_indegree, indegree: 100}"
    )
    raise CircuitError(message)


def _settled(count: float) -> float:
    """Bytes of a projection of so many synapses once it is compiled, and one update of it."""
    if count >= LARGE:
        return count * (LARGE_GRAPH_BYTES + LARGE_COMPILED_BYTES + UPDATE_BYTES)
    return count * (GRAPH_BYTES + COMPILED_BYTES + UPDATE_BYTES)


def _needed(rule: str, count: float) -> float:
    """Bytes of a projection at its highest: drawn, or compiled and updated."""
    return max(count * (DRAWING_BYTES if rule in IN_ORDER else SORTING_BYTES), _settled(count))


def _machine_memory() -> float:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return (
            float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
            if hasattr(os, "sysconf")
            else float("inf")
        )
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return float(match[1]) * 1024 if match else float("inf")


def control_group_memory(root: Path = Path("/sys/fs/cgroup"), membership: str | None = None) -> float:
    """What this process's control groups (version 2 and 1) leave, in bytes; infinite where there is no limit.

    Args:
        root: where control groups are mounted.
        membership: the text of /proc/self/cgroup; read from there if None.
    """
    if membership is None:
        try:
            membership = Path("/proc/self/cgroup").read_text()
        except OSError:
            return float("inf")
    left = float("inf")
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _VERSION_1 if controllers else _VERSION_2
        mount = root / "memory" if controllers else root
        folder = mount / path.lstrip("/")
        for place in (folder, *folder.parents):
            left = min(left, _left_in(place, *files))
            if place == mount:
                break
    return left


_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left_in(folder: Path, limit: str, used: str, cache: str) -> float:
    """What one control group leaves: its limit less what is used, but for file caches that can be dropped."""
    try:
        limit_text, used_text = (folder / limit).read_text().strip(), (folder / used).read_text()
        statistics = (folder / "memory.stat").read_text()
    except OSError:
        return float("inf")
    if not limit_text.isdigit():
        return float("inf")
    reclaimable = re.search(rf"^{cache} (\d+)$", statistics, re.MULTILINE)
    return max(float(int(limit_text) - int(used_text) + (int(reclaimable[1]) if reclaimable else 0)), 0.0)
