"""How well feedback weights S agree with the transpose of W: the angle between them, over all synapses."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit, Link


def angle(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Angle in degrees between two sets of weights, given side by side: arccos of their cosine over all parts; NaN
    where one of them is zero.

    Args:
        pairs: weights of each part, of one shape.
    """
    inner = first = second = 0.0
    for a, b in pairs:
        a, b = a.double(), b.double()
        inner, first, second = (
            inner + float((a * b).sum()),
            first + float((a * a).sum()),
            second + float((b * b).sum()),
        )
    return _degrees(inner, first * second)


def burst_angle(compiled: CompiledCircuit) -> float:
    """Angle in degrees between the burst-coded projections and the transpose of the rate-coded ones that run the
    other way between the same populations, parallel synapses summed; NaN where there are none."""
    joined = {(link.target.start, link.source.start) for link in compiled.recurrent}
    bursts = [link for link in compiled.burst if (link.source.start, link.target.start) in joined]
    reached = {(link.source.start, link.target.start) for link in bursts}
    forward = [link for link in compiled.recurrent if (link.target.start, link.source.start) in reached]
    n = compiled.size
    s_place, s = _synapses(bursts, n, turned=False)
    w_place, w = _synapses(forward, n, turned=True)
    _, in_s, in_w = np.intersect1d(s_place, w_place, assume_unique=True, return_indices=True)
    return _degrees(float(s[in_s] @ w[in_w]), float(s @ s) * float(w @ w))


def _synapses(links: list[Link], n: int, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places (target n + source, or the other way round) and weights of all synapses, parallel ones summed."""
    places, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for link in links:
        edges = link.projection.edges
        target, source = link.target.start + edges.target.astype(np.int64), link.source.start + edges.source
        places.append(source * n + target if turned else target * n + source)
        weights.append(link.kernel.edge_values.double().cpu().numpy())
    place, index = np.unique(np.concatenate(places), return_inverse=True)
    return place, np.bincount(index, np.concatenate(weights), len(place))


def _degrees(inner: float, squares: float) -> float:
    if not squares > 0:
        return math.nan
    return math.degrees(math.acos(min(1.0, max(-1.0, inner / math.sqrt(squares)))))
