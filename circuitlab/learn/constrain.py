"""Bounds on the recurrent weights, which keep learning circuits settled.

Two numbers can be bounded, of the matrix W that the projections of one recurrent group make together: its largest
singular value, and the largest eigenvalue m of its symmetric part (W + W^T)/2. With m < 1 the operator I - W is
strongly monotone, I - W >= (1 - m) I, and every activation whose slope lies in [0, 1] then has exactly one free
equilibrium (Winston and Kolter 2020, Monotone operator equilibrium networks). A largest singular value
below 1 implies it, and makes the plain iteration a contraction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit, Link
from circuitlab.compile.kernels import Kernel
from circuitlab.errors import CircuitError

LEAST_COLD, MOST_COLD = 10, 80
"""Rounds of `_Group.sharpen` where the vector is not yet, or should be well, aligned."""
SETTLED = 1e-6
"""Relative change of the estimate, and squared relative residual, at which more rounds bring nothing."""


def recurrent_groups(compiled: CompiledCircuit) -> list[list[Link]]:
    """The rate-coded links within each recurrent group (a strongly connected component of the graph of f)."""
    groups = []
    for group in compiled.circuit.strongly_connected():
        members = set(group)
        links = [k for k in compiled.recurrent if {k.projection.source, k.projection.target} <= members]
        groups += [links] if links else []  # gap junctions alone have no gain
    return groups


class SpectralBound(ABC):
    """Scales the recurrent weights back when a number of their matrix exceeds a bound.

    The populations of one recurrent group share one matrix; all plastic projections inside the group are scaled by
    the same factor, so that signs and sparsity stay. The number is followed by restarted Lanczos steps of dimension
    two: four products with a vector per update, from the vector of the last one.

    Args:
        compiled: the circuit.
        bound: the largest value allowed, above 0, dimensionless.
        companions: of projections, which are scaled by the same factors (`Pathway.companions`).
        frozen: what becomes of a group whose frozen projections alone exceed the bound: `refuse` it, or `leave` the
            group as it is and tell of it in `left`.

    Attributes:
        left: a sentence about every group that is left without the bound.

    Raises:
        CircuitError: the frozen projections of a group alone exceed the bound, and `frozen` is `refuse`.
    """

    key: ClassVar[str]

    def __init__(
        self,
        compiled: CompiledCircuit,
        bound: float,
        frozen: str = "refuse",
        companions: Mapping[str, Mapping[str, Kernel]] | None = None,
    ) -> None:
        self.bound = bound
        self.groups: list[_Group] = []
        self.left: list[str] = []
        for links in recurrent_groups(compiled):
            still = [link for link in links if not link.projection.plastic]
            least = self._value(self._group(still, compiled).settle()) if still else 0.0
            if least <= bound:
                group = self._group(links, compiled, least)
                group.follow(companions or {})
                self.groups.append(group)
                continue
            names = ", ".join(link.projection.name for link in still)
            if frozen == "refuse":
                raise CircuitError(
                    f"learn.constrain.{self.key}: the frozen projections {names} alone exceed {bound:g} "
                    f"(they have {least:.4g}); scale their weights, or raise the bound"
                )
            self.left.append(
                f"learn.constrain.{self.key}: no bound is kept on the recurrent group of the frozen projections "
                f"{names}, which alone exceed {bound:g} (they have {least:.4g})"
            )
        self._cold = True

    @abstractmethod
    def _group(self, links: list[Link], compiled: CompiledCircuit, frozen: float = 0.0) -> _Group:
        """The operator of a group whose largest eigenvalue is followed."""

    @abstractmethod
    def _value(self, eigenvalue: float) -> float:
        """The bounded number from the operator's largest eigenvalue."""

    @torch.no_grad()
    def apply(self, thorough: bool = False) -> None:
        """Bring every recurrent group within the bound.

        Args:
            thorough: whether to find the number to many digits first, as at the end of an epoch.
        """
        for group in self.groups:
            value = self._value(group.settle() if thorough or self._cold else group.sharpen())
            if not value > self.bound * (1 + SETTLED):
                continue
            group.scale(self.bound / value)
            for _ in range(50 if group.mixed else 0):
                value = self._value(group.sharpen())
                if value <= self.bound * (1 + SETTLED):
                    break
                group.scale(self.bound / value)
            if group.mixed and value > self.bound * (1 + 1e-3):
                # the value is convex in the factor of the plastic weights, so that this one is enough
                group.scale((self.bound - group.frozen) / (value - group.frozen))
        self._cold = False

    def state(self) -> dict[str, Tensor]:
        """What the next update depends on, for a checkpoint."""
        return {} if self._cold else {str(n): group.vector.clone() for n, group in enumerate(self.groups)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, vector in state.items():
            self.groups[int(name)].vector.copy_(vector)
        self._cold = not state


class SingularValueBound(SpectralBound):
    """Bounds the largest singular value of W: the square root of the largest eigenvalue of W^T W."""

    key = "largest_singular_value"

    def _group(self, links: list[Link], compiled: CompiledCircuit, frozen: float = 0.0) -> _Group:
        return _Squared(links, compiled, frozen)

    def _value(self, eigenvalue: float) -> float:
        return math.sqrt(max(eigenvalue, 0.0))


class SymmetricEigenvalueBound(SpectralBound):
    """Bounds the largest eigenvalue m of (W + W^T)/2, so that I - W >= (1 - m) I."""

    key = "largest_symmetric_eigenvalue"

    def _group(self, links: list[Link], compiled: CompiledCircuit, frozen: float = 0.0) -> _Group:
        return _Symmetric(links, compiled, frozen)

    def _value(self, eigenvalue: float) -> float:
        return eigenvalue


class Bounds:
    """Several bounds, each kept after every update.

    Args:
        parts: in the order they are applied.
    """

    def __init__(self, parts: list[SpectralBound]) -> None:
        self.parts = parts

    @property
    def left(self) -> list[str]:
        """A sentence about every group that is left without a bound."""
        return [line for part in self.parts for line in part.left]

    def apply(self, thorough: bool = False) -> None:
        """Bring every recurrent group within every bound."""
        for part in self.parts:
            part.apply(thorough)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What the next update depends on, for a checkpoint."""
        return {part.key: part.state() for part in self.parts}

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a checkpoint."""
        for part in self.parts:
            part.restore(state[part.key])


class _Group(ABC):
    """The links of one recurrent group, and the largest eigenvalue of a symmetric operator A made of them.

    Args:
        links: the group's, or some of them.
        frozen: the bounded number of the frozen ones alone.
    """

    def __init__(self, links: list[Link], compiled: CompiledCircuit, frozen: float) -> None:
        self.frozen = frozen
        self.names = [link.projection.name for link in links if link.projection.plastic]
        self.plastic = [link.kernel for link in links if link.projection.plastic]
        self.companions: list[Kernel] = []
        self.mixed = len(self.plastic) < len(links)
        places: dict[int, slice] = {}
        size = 0
        for rows in sorted({(r.start, r.stop) for link in links for r in (link.source, link.target)}):
            places[rows[0]] = slice(size, size + rows[1] - rows[0])
            size = places[rows[0]].stop
        generator = torch.Generator().manual_seed(0)
        draw = torch.randn(size, generator=generator, dtype=torch.float64)
        self.rows = torch.zeros(3, size, dtype=compiled.dtype, device=compiled.device)
        self.vector = self.rows[0].copy_(draw.to(compiled.dtype))
        self.columns = [row.unsqueeze(1) for row in (*self.rows, torch.zeros_like(self.vector))]
        self.kernels = [link.kernel for link in links]
        # every link's part of every column, cut once
        self.sources = [[column[places[k.source.start]] for k in links] for column in self.columns]
        self.targets = [[column[places[k.target.start]] for k in links] for column in self.columns]
        self.exact = torch.float32 if compiled.device.type == "mps" else torch.float64

    @abstractmethod
    def operate(self, column: int, out: int) -> None:
        """A times one of the columns into another one; the last column is free for use."""

    def add_product(self, column: int, out: int) -> None:
        """out += W column, by the columns' numbers."""
        for kernel, source, target in zip(self.kernels, self.sources[column], self.targets[out], strict=True):
            kernel.add_product(source, target)

    def add_transposed(self, column: int, out: int) -> None:
        """out += W^T column, by the columns' numbers."""
        for kernel, target, source in zip(self.kernels, self.targets[column], self.sources[out], strict=True):
            kernel.add_transposed(target, source)

    def scale(self, factor: float) -> None:
        """Multiply the plastic weights, and those that follow them."""
        for kernel in (*self.plastic, *self.companions):
            kernel.scale_(factor)

    def follow(self, companions: Mapping[str, Mapping[str, Kernel]]) -> None:
        """Scale these as well, each once."""
        found = {id(kernel): kernel for name in self.names for kernel in companions.get(name, {}).values()}
        self.companions = list(found.values())

    @torch.no_grad()
    def settle(self) -> float:
        """The largest eigenvalue to many digits."""
        last = value = self.sharpen()
        for count in range(MOST_COLD):
            value = self.sharpen()
            if count >= LEAST_COLD and abs(value - last) <= 0.1 * SETTLED * abs(value):
                break
            last = value
        return value

    def sharpen(self) -> float:
        """An estimate from below of the largest eigenvalue, better with every call; the vector moves with it.

        Rayleigh and Ritz on the span of v and Av; the next v is (A + shift) y of the best vector y, with A y known
        from A v and A A v, and a shift that keeps the other end of the spectrum from growing.
        """
        v, first, second, _ = self.columns
        self.operate(0, 1)
        self.operate(1, 2)
        wide = self.rows.to(self.exact)
        (vv, va, _), (_, aa, ab), _ = (wide @ wide.t()).tolist()
        if not aa > 0 or not math.isfinite(aa):
            return 0.0 if aa == 0 else math.nan
        top = va / vv
        rest = aa - va * top
        if rest <= SETTLED * aa:
            v.mul_(vv**-0.5)
            return top
        low = (ab - 2 * top * aa + top * top * va) / rest
        cross = (rest / vv) ** 0.5
        middle, half = 0.5 * (top + low), math.hypot(0.5 * (top - low), cross)
        value, shift = middle + half, max(0.0, half - middle)
        along, across = (value - low, cross) if top >= low else (cross, value - top)
        length = math.hypot(along, across)
        across /= length * rest**0.5
        along = along / (length * vv**0.5) - top * across
        size = 1 / (abs(value) + shift)
        v.mul_(shift * along * size).add_(first, alpha=(along + shift * across) * size)
        v.add_(second, alpha=across * size)
        return value


class _Squared(_Group):
    """A = W^T W."""

    def operate(self, column: int, out: int) -> None:
        self.columns[3].zero_()
        self.columns[out].zero_()
        self.add_product(column, 3)
        self.add_transposed(3, out)


class _Symmetric(_Group):
    """A = (W + W^T)/2."""

    def operate(self, column: int, out: int) -> None:
        result = self.columns[out].zero_()
        self.add_product(column, out)
        self.add_transposed(column, out)
        result.mul_(0.5)
