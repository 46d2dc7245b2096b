"""How each sample's equilibrium was found: iterations, residual, whether it was reached at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.recorded import Recorded, recordings, target_classes, with_ends

MEASURES = ("converged", "iterations", "residual")
MOST = 2_000_000
"""Values of one measure that are read at most."""


@dataclass(frozen=True, eq=False)
class Settled:
    """How samples settled, over the frames of probes or at one equilibrium.

    Args:
        name: which equilibrium, or of which probes. phase: free or controlled.
        samples: number of each sample, ascending. labels: its class, or None.
        seen: how often each was looked at, [sample]. unsettled: how often of these it did not settle; None where not
            recorded.
        iterations, residual: of every sample at every time, flat; None where not recorded.
        read, frames: frames read, and all.
    """

    name: str
    phase: str
    samples: NDArray
    labels: NDArray | None
    seen: NDArray
    unsettled: NDArray | None
    iterations: NDArray | None
    residual: NDArray | None
    read: int
    frames: int

    @property
    def never(self) -> NDArray:
        """Numbers of the samples that did not settle any of the times."""
        if self.unsettled is None:
            return np.empty(0, dtype=np.int64)
        return self.samples[(self.unsettled == self.seen) & (self.seen > 0)]

    @property
    def sometimes(self) -> NDArray:
        """Numbers of the samples that did not settle some of the times, but others."""
        if self.unsettled is None:
            return np.empty(0, dtype=np.int64)
        return self.samples[(self.unsettled > 0) & (self.unsettled < self.seen)]

    def classes(self, samples: NDArray) -> list[str] | None:
        """The class of each of some samples, or None where unknown."""
        if self.labels is None:
            return None
        return [str(c) for c in self.labels[np.searchsorted(self.samples, samples)]]


def settled(run: Run) -> list[Settled]:
    """All that the file says of single samples: its equilibria, and probes of residual, iterations and converged."""
    found = [s for phase in ("free", "controlled") if (s := _equilibrium(run, phase)) is not None]
    groups: dict[tuple, dict[str, Recorded]] = {}
    for r in recordings(run):
        if r.variable in MEASURES and r.dims == ("frame", "sample"):
            of = str(run.file[r.folder].attrs.get("of", ""))
            groups.setdefault((r.phase, of, r.sizes["sample"], r.sizes["frame"]), {}).setdefault(
                r.variable, r
            )
    return [*found, *(_probes(key[0], key[1], parts) for key, parts in groups.items())]


def _equilibrium(run: Run, phase: str) -> Settled | None:
    paths = {m: f"equilibria/{phase}/{m}" for m in MEASURES}
    held = {m: run.read(p) for m, p in paths.items() if p in run.datasets and run.datasets[p].size}
    if not held:
        return None
    count = len(next(iter(held.values())))
    labels = target_classes(run)
    return Settled(
        f"{phase} equilibrium",
        phase,
        np.arange(count),
        labels if labels is not None and len(labels) == count else None,
        np.ones(count, dtype=np.int64),
        (~held["converged"].astype(bool)).astype(np.int64) if "converged" in held else None,
        held.get("iterations"),
        held.get("residual"),
        1,
        1,
    )


def _probes(phase: str, of: str, parts: dict[str, Recorded]) -> Settled:
    one = next(iter(parts.values()))
    count = one.sizes["frame"]
    frames = with_ends(count, max(2, MOST // one.sizes["sample"]))
    values = {m: r.read(frame=frames) for m, r in parts.items()}
    ids = one.beside("sample_ids")
    if ids is None or ids.shape[-1] != one.sizes["sample"]:
        ids = np.arange(one.sizes["sample"])
    at = np.broadcast_to(ids if ids.ndim == 1 else ids[frames], (len(frames), one.sizes["sample"]))
    real = at >= 0
    samples, inverse = np.unique(at[real], return_inverse=True)
    seen = np.bincount(inverse, minlength=len(samples))
    unsettled = None
    if "converged" in values:
        missed = values["converged"][real]
        missed = np.nan_to_num(missed.astype(float), nan=1.0) == 0
        unsettled = np.bincount(inverse, weights=missed, minlength=len(samples)).astype(np.int64)
    labels = one.labels
    if labels is not None and one.fixed:
        order = np.searchsorted(samples, one.sample_ids)
        sorted_ = np.empty(len(samples), dtype=labels.dtype)
        sorted_[order] = labels
        labels = sorted_
    else:
        labels = None

    def flat(measure: str) -> NDArray | None:
        if measure not in values:
            return None
        found = values[measure][real].astype(float)
        return found[np.isfinite(found)]

    split = {"train": "training ", "validation": "validation ", "test": "test "}.get(of, "")
    return Settled(
        f"{split}samples, {phase} equilibrium" if phase else f"{split}samples",
        phase,
        samples,
        labels,
        seen,
        unsettled,
        flat("iterations"),
        flat("residual"),
        len(frames),
        count,
    )
