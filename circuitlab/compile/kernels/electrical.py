"""Gap junctions: conductances that act in both directions, one for each pair of neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuitlab.compile.kernels.base import Kernel
from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import Edges
from circuitlab.graph.junctions import turned


class Electrical(Kernel):
    """Conductances g >= 0 between two populations, or within one.

    As a map it is C, [target, source], with C_ij = g_ij: between two populations C acts one way and C^T the other;
    within one C is symmetric, though a pair may be listed in one direction only, and its diagonal is zero, as a
    junction of a neuron with itself carries no current.

    Args:
        projection: of the kind electrical.
        shape: (targets, sources).
        make: of a chemical projection's kernel.

    Attributes:
        within: whether both ends are in one population.
        pair: for each edge the first one that lists its pair, [edge].
    """

    place: Tensor
    of: Tensor
    pair: Tensor

    def __init__(
        self,
        projection: Projection,
        shape: tuple[int, int],
        dtype: torch.dtype,
        make: Callable[[Projection], Kernel],
    ) -> None:
        edges = projection.edges
        super().__init__(edges, shape, dtype, projection.plastic)
        self.within = projection.source == projection.target
        listed = np.arange(len(edges))
        source, target, of, pair = edges.source, edges.target, listed, listed
        place = listed
        if self.within:
            other = turned(edges)
            pair = np.where(other >= 0, np.minimum(other, listed), listed)
            keep = source != target
            ends = [np.concatenate([a[keep], b[keep]]) for a, b in ((source, target), (target, source))]
            key = ends[1].astype(np.int64) * shape[1] + ends[0]
            unique, first = np.unique(key, return_index=True)
            of = np.concatenate([pair[keep]] * 2)[first]
            own = target.astype(np.int64) * shape[1] + source
            place = np.searchsorted(unique, own)
            place[~keep] = -1
            source, target = ends[0][first], ends[1][first]
        both = Edges(source, target, edges.weight[of], np.ones(len(of), dtype=np.int32))
        self.inner = make(replace(projection, kind="chemical", edges=both, plastic=False))
        self.name = self.inner.name
        self.register_buffer("place", torch.as_tensor(place, dtype=torch.int64), persistent=False)
        self.register_buffer("of", torch.as_tensor(of, dtype=torch.int64), persistent=False)
        self.register_buffer("pair", torch.as_tensor(pair, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def refresh(self) -> None:
        self.inner.values.copy_(self.values[self.of])
        ones = self.values.new_ones((max(self.shape), 1))
        self.totals = tuple(self.values.new_zeros((size, 1)) for size in self.shape)
        self.inner.add_product(ones[: self.shape[1]], self.totals[0])
        self.inner.add_transposed(ones[: self.shape[0]], self.totals[1])

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        self.current()
        self.inner.add_product(rate, out)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.current()
        self.inner.add_transposed(control, out)

    def loads(self) -> tuple[Tensor, Tensor]:
        """Sum of the conductances at each target, [target, 1], and at each source, [source, 1]: within a population
        each of the two is all there is."""
        self.current()
        target, source = self.totals
        return target, source

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        """Sum over samples of post_i pre_j for every edge j -> i; zero for a junction of a neuron with itself."""
        found = self.inner.outer(post, pre)
        if self.within:
            found = (
                torch.where(self.place >= 0, found[self.place], 0)
                if len(found)
                else post.new_zeros(len(self.place))
            )
        return found if out is None else out.copy_(found)
