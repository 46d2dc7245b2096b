"""Convolutions written out as edges, by loops, and the image sizes at which native ones go wrong easily."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import Edges
from tests.oracles.circuits import projection

# in_shape, out channels, kernel, stride, padding; the last column says whether the transpose needs output_padding
IMAGES = {
    "plain": ((1, 5, 5), 2, (3, 3), (1, 1), (0, 0)),
    "padded": ((2, 4, 5), 3, (3, 3), (1, 1), (1, 1)),
    "stride leaves a rest": ((2, 6, 5), 2, (3, 2), (2, 2), (0, 0)),
    "stride, padding and a rest": ((1, 8, 7), 2, (3, 2), (3, 2), (1, 0)),
    "skipped pixels": ((1, 7, 8), 2, (1, 2), (3, 3), (0, 0)),
    "whole image": ((3, 3, 4), 4, (3, 4), (1, 1), (0, 0)),
}


def convolution(in_shape, channels, kernel, stride, padding, seed=0) -> tuple[Projection, tuple[int, int]]:
    """Edges of y[o, r, c] = sum w[o, i, u, v] x[i, r s + u - p, c s + v - p], by loops."""
    (n, height, width), (ky, kx) = in_shape, kernel
    out = [(m + 2 * p - k) // s + 1 for m, p, k, s in zip(in_shape[1:], padding, kernel, stride, strict=True)]
    found = []
    for o, r, c, i, u, v in np.ndindex(channels, *out, n, ky, kx):
        y, x = r * stride[0] + u - padding[0], c * stride[1] + v - padding[1]
        if 0 <= y < height and 0 <= x < width:
            parameter = ((o * n + i) * ky + u) * kx + v
            found.append(((o * out[0] + r) * out[1] + c, (i * height + y) * width + x, parameter))
    target, source, index = np.array(sorted(found)).T
    weights = np.random.default_rng(seed).standard_normal(channels * n * ky * kx)
    e = Edges(
        source.astype(np.int32),
        target.astype(np.int32),
        weights[index],
        np.ones(len(index), np.int32),
        index.astype(np.int64),
        weights,
    )
    geometry = dict(
        in_shape=in_shape, out_shape=(channels, *out), kernel=kernel, stride=stride, padding=padding
    )
    shape = (channels * out[0] * out[1], n * height * width)
    return replace(projection("p", "a", "b", e, kernel="convolution"), geometry=geometry), shape
