"""Weights of synapses before and after learning, read in parts where there are very many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitlabError, RunFileError, suggestion
from circuitlab.record.integrity import part_of
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name
from circuitlab.record.weights import snapshot_count, weights_at
from circuitlab.report.figures.recorded import names_of, projections

EDGES, BLOCKS = 1_000_000, 100
"""Synapses of a projection that are read at most, in so many blocks at equal distances."""


@dataclass(frozen=True, eq=False)
class Synapses:
    """A projection's synapses, or a part of them.

    Args:
        name, source, target, kind: of the projection.
        count: of its weights (parameters where they are shared). parts: those read. shared: whether they are.
        snapshots: of its weights over training; 0 where nothing learned.
    """

    run: Run
    name: str
    source: str
    target: str
    kind: str
    count: int
    parts: Sequence[slice]
    shared: bool
    snapshots: int

    @property
    def read(self) -> int:
        """How many weights are read."""
        return sum(p.stop - p.start for p in self.parts)

    @property
    def word(self) -> str:
        """What a weight is called."""
        return "conductance" if self.kind == "electrical" else "weight"

    @property
    def edge_path(self) -> str:
        """The projection's group."""
        return f"edges/{link_name(self.name)}"

    def at(self, snapshot: int) -> NDArray:
        """The weights read, [synapse], at a snapshot; the initial ones where there are no snapshots.

        Raises:
            RunFileError: they are damaged.
        """
        if not self.snapshots:
            return self._parts(f"{self.edge_path}/0/syn_weight", ())
        path = f"weights/{link_name(self.name)}"
        if path in self.run.datasets and self.run.datasets[path].ndim == 2:
            return self._parts(path, (snapshot % self.snapshots,))
        whole = weights_at(self.run, self.name, snapshot)
        return whole if self.read == len(whole) else np.concatenate([whole[p] for p in self.parts])

    def _parts(self, path: str, before: tuple[int, ...]) -> NDArray:
        try:
            item = self.run.datasets[path]
            found = [part_of(item, (*before, p)) for p in self.parts]
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise RunFileError(f"{self.run.path}: {path}: is damaged and cannot be read") from error
        return np.concatenate(found) if found else np.empty(0)

    def places(self) -> NDArray[np.int64]:
        """Row of each weight read in /edges or /weights, [synapse]."""
        return np.concatenate([np.arange(p.start, p.stop) for p in self.parts] or [np.arange(0)])

    def ends(self, place: int) -> str:
        """The neurons that a synapse joins, in words: by name where they have names."""
        if self.shared:
            return f"weight {place}"
        words = []
        for end, population in (("source", self.source), ("target", self.target)):
            number = int(part_of(self.run.datasets[f"{self.edge_path}/{end}_node_id"], (place,)))
            names = names_of(self.run, population)
            words.append(names[number] if names is not None else str(number))
        return " to ".join(words)


def synapses(run: Run, name: str) -> Synapses:
    """One projection's synapses."""
    said = projections(run)[name]
    path = f"edges/{link_name(name)}"
    try:
        snapshots = snapshot_count(run, name)
    except CircuitlabError:
        snapshots = 0
    count = run.datasets[f"{path}/source_node_id"].shape[0]
    shared = f"{path}/0/parameter_index" in run.datasets and snapshots > 0
    if shared:
        count = len(weights_at(run, name, 0))
    if count <= EDGES:
        parts = [slice(0, count)]
    else:
        length = EDGES // BLOCKS
        parts = [
            slice(int(a), int(a) + length) for a in np.linspace(0, count - length, BLOCKS).astype(np.int64)
        ]
    return Synapses(
        run,
        name,
        str(said.get("source", "")),
        str(said.get("target", "")),
        str(said.get("kind", "chemical")),
        count,
        parts,
        shared,
        snapshots,
    )


def chosen_projection(run: Run, wanted: str | None) -> str | None:
    """The projection asked for, or None.

    Raises:
        RunFileError: the file has none of this name.
    """
    known = projections(run)
    if wanted is not None and wanted not in known:
        raise RunFileError(
            f"--projection: no projection '{wanted}' in {run.path}; there are {', '.join(known)}."
            f"{suggestion(wanted, known)}"
        )
    return wanted


def by_interest(run: Run) -> list[Synapses]:
    """All projections, those that learned first, then the larger ones."""
    found = [synapses(run, name) for name in projections(run)]
    plastic = {name: bool(said.get("plastic", False)) for name, said in projections(run).items()}
    return sorted(found, key=lambda s: (not (plastic[s.name] and s.snapshots > 1), -s.count))


def bins_of(*values: NDArray, count: int = 60) -> NDArray:
    """Edges of bins that hold all finite values."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        wide = max(abs(low), 1.0) * 0.5
        low, high = low - wide, high + wide
    return np.linspace(low, high, count + 1)
