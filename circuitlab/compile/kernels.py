"""Edge matrices: the product of a projection's weights with activity, its transpose, and the sampled outer product.

Activity is [unit, sample]. Every kernel holds its synapses' values in one flat parameter, in the order of `Edges`
(sorted by target, then source), so that optimizers see synapses and nothing else: a weight that is no synapse of the
graph does not exist. Kernels never use autograd. `refresh` brings stored copies (a transpose, a dense block) up to
date after the values changed; it is called by itself, once per change.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn import functional as F
from torch.nn import grad
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import Edges

DENSE_FROM = 0.25
"""Density from which a dense product is faster than a CSR product on a CPU."""


def _notice_fused_steps(optimizer: Optimizer, args: Any, options: Any) -> None:
    """Count a fused optimizer's step as a change of its parameters, which torch itself forgets to do."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version(group["params"])


register_optimizer_step_post_hook(_notice_fused_steps)


class Kernel(nn.Module, ABC):
    """Weights of one projection as a linear map, shape (targets, sources)."""

    name: str
    values: nn.Parameter

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__()
        self.shape = shape
        initial = edges.weight if edges.parameters is None else edges.parameters
        self.values = nn.Parameter(torch.as_tensor(np.array(initial), dtype=dtype), requires_grad=plastic)
        self._seen: tuple[int, int] | None = None

    def current(self) -> None:
        """Call `refresh` if the values were written since the last call."""
        state = (self.values.data_ptr(), self.values._version)
        if state != self._seen:
            self.refresh()
            self._seen = state

    def refresh(self) -> None:
        """Bring stored copies of the values up to date."""

    @abstractmethod
    def add_product(self, rate: Tensor, out: Tensor) -> None:
        """out += W rate, with rate [source, sample] and out [target, sample]."""

    @abstractmethod
    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        """out += W^T control, with control [target, sample] and out [source, sample]."""

    @abstractmethod
    def outer(self, post: Tensor, pre: Tensor) -> Tensor:
        """Sum over samples of post_i pre_j for every synapse j -> i, shape [parameter]."""

    @property
    def edge_values(self) -> Tensor:
        """Weight of every edge, shape [edge]."""
        return self.values.detach()

    def matrix(self) -> Tensor:
        """The weights as a dense matrix, [target, source]; not to be written to."""
        out = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        self.add_product(torch.eye(self.shape[1], dtype=out.dtype, device=out.device), out)
        return out


class Dense(Kernel):
    """A dense block; where synapses are missing the block holds zeros that no update reaches."""

    name = "dense"
    place: Tensor
    block: Tensor

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__(edges, shape, dtype, plastic)
        self.full = len(edges.weight) == shape[0] * shape[1]
        if not self.full:
            place = edges.target.astype(np.int64) * shape[1] + edges.source
            self.register_buffer("place", torch.as_tensor(place), persistent=False)
            self.register_buffer("block", torch.zeros(shape, dtype=dtype), persistent=False)

    def refresh(self) -> None:
        if not self.full:
            self.block.view(-1)[self.place] = self.values.detach()

    def matrix(self) -> Tensor:
        self.current()
        return self.values.detach().view(self.shape) if self.full else self.block

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        out.addmm_(self.matrix(), rate)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        out.addmm_(self.matrix().t(), control)

    def outer(self, post: Tensor, pre: Tensor) -> Tensor:
        product = (post @ pre.t()).view(-1)
        return product if self.full else product[self.place]


class Csr(Kernel):
    """Compressed sparse rows with int32 indices, and a stored transpose whose values are a permutation of theirs.

    Weights shared by many edges (a convolution written out as edges) have one parameter for all of them.
    """

    name = "csr"
    rows: Tensor
    columns: Tensor
    rows_back: Tensor
    columns_back: Tensor
    back: Tensor
    index: Tensor

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__(edges, shape, dtype, plastic)
        if len(edges.source) >= 2**31:
            raise CircuitError(
                f"a projection of {len(edges.source):,} synapses is more than int32 indices can number"
            )
        back = np.lexsort((edges.target, edges.source))
        for name, array in (
            ("rows", _pointers(edges.target, shape[0])),
            ("columns", edges.source.astype(np.int32)),
            ("rows_back", _pointers(edges.source, shape[1])),
            ("columns_back", edges.target[back].astype(np.int32)),
            ("back", back.astype(np.int64)),
        ):
            self.register_buffer(name, torch.as_tensor(array), persistent=False)
        self.shared = edges.parameter_index is not None
        if self.shared:
            self.register_buffer("index", torch.as_tensor(edges.parameter_index), persistent=False)
        self._forward = self._backward = torch.empty(0)
        self._built_on: int | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> Csr:
        self._seen = self._built_on = None
        return super()._apply(fn, recurse)

    @property
    def edge_values(self) -> Tensor:
        return self.values.detach()[self.index] if self.shared else self.values.detach()

    def refresh(self) -> None:
        values = self.edge_values
        if self._built_on != self.values.data_ptr():
            self._forward = _csr(self.rows, self.columns, values, self.shape)
            turned = (self.shape[1], self.shape[0])
            self._backward = _csr(self.rows_back, self.columns_back, values[self.back], turned)
            self._built_on = self.values.data_ptr()
            return
        if self.shared:
            self._forward.values().copy_(values)
        torch.index_select(values, 0, self.back, out=self._backward.values())

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        self.current()
        torch.addmm(out, self._forward, rate, out=out)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.current()
        torch.addmm(out, self._backward, control, out=out)

    def outer(self, post: Tensor, pre: Tensor) -> Tensor:
        self.current()
        edges = torch.sparse.sampled_addmm(self._forward, post.contiguous(), pre.t(), beta=0.0).values()
        if not self.shared:
            return edges
        return torch.zeros_like(self.values).index_add_(0, self.index, edges)


class Diagonal(Kernel):
    """One-to-one synapses: an elementwise product."""

    name = "diagonal"

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        out.addcmul_(self.values.detach().unsqueeze(1), rate)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.add_product(control, out)

    def outer(self, post: Tensor, pre: Tensor) -> Tensor:
        return (post * pre).sum(1)


class Convolution(Kernel):
    """Shared weights run by torch's convolution; the parameters are the kernel, [out, in, height, width], flat."""

    name = "convolution"
    index: Tensor

    def __init__(
        self,
        edges: Edges,
        shape: tuple[int, int],
        dtype: torch.dtype,
        plastic: bool,
        geometry: dict[str, Any],
    ) -> None:
        super().__init__(edges, shape, dtype, plastic)
        self.images = tuple(int(n) for n in geometry["in_shape"])
        self.maps = tuple(int(n) for n in geometry["out_shape"])
        self.stride, self.padding = _pair(geometry["stride"]), _pair(geometry["padding"])
        self.kernel_shape = (self.maps[0], self.images[0], *_pair(geometry["kernel"]))
        self.register_buffer("index", torch.as_tensor(edges.parameter_index), persistent=False)
        reach = [
            (n - 1) * s - 2 * p + k
            for n, s, p, k in zip(
                self.maps[1:], self.stride, self.padding, self.kernel_shape[2:], strict=True
            )
        ]
        self.rest = tuple(n - r for n, r in zip(self.images[1:], reach, strict=True))

    @property
    def edge_values(self) -> Tensor:
        return self.values.detach()[self.index]

    def _kernel(self) -> Tensor:
        return self.values.detach().view(self.kernel_shape)

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        images = rate.t().reshape(-1, *self.images)
        out.add_(F.conv2d(images, self._kernel(), stride=self.stride, padding=self.padding).flatten(1).t())

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        maps = control.t().reshape(-1, *self.maps)
        images = F.conv_transpose2d(
            maps, self._kernel(), stride=self.stride, padding=self.padding, output_padding=self.rest
        )
        out.add_(images.flatten(1).t())

    def outer(self, post: Tensor, pre: Tensor) -> Tensor:
        images = pre.t().reshape(-1, *self.images).contiguous()
        maps = post.t().reshape(-1, *self.maps).contiguous()
        stride: Any = self.stride
        padding: Any = self.padding
        update = grad.conv2d_weight(images, self.kernel_shape, maps, stride, padding)
        return update.reshape(-1)


KERNELS: dict[str, type[Kernel]] = {
    "dense": Dense,
    "csr": Csr,
    "diagonal": Diagonal,
    "convolution": Convolution,
}


def choose(projection: Projection, shape: tuple[int, int]) -> str:
    """Name of the kernel for a projection: the one asked for, or by its structure and density."""
    edges, asked = projection.edges, projection.kernel
    one_to_one = shape[0] == shape[1] == len(edges.source) and bool(np.all(edges.source == edges.target))
    shared = edges.parameter_index is not None
    where = f"projections.{projection.name}.kernel"
    if asked == "diagonal" and not one_to_one:
        raise CircuitError(f"{where}: diagonal needs exactly the synapses i -> i; allowed here: csr, dense")
    if asked == "convolution" and (projection.geometry is None or not shared):
        raise CircuitError(
            f"{where}: convolution needs connect: {{rule: convolution}}; allowed here: csr, dense"
        )
    if asked in ("dense", "diagonal") and shared:
        raise CircuitError(f"{where}: {asked} cannot share weights; allowed here: convolution, csr")
    if asked != "auto":
        return asked
    if shared:
        return "convolution" if projection.geometry is not None else "csr"
    if one_to_one:
        return "diagonal"
    return "dense" if len(edges.source) >= DENSE_FROM * shape[0] * shape[1] else "csr"


def compile_kernel(projection: Projection, shape: tuple[int, int], dtype: torch.dtype) -> Kernel:
    """The kernel of a projection with its initial weights; shape is (targets, sources)."""
    name = choose(projection, shape)
    if name == "convolution":
        assert projection.geometry is not None
        return Convolution(projection.edges, shape, dtype, projection.plastic, projection.geometry)
    return KERNELS[name](projection.edges, shape, dtype, projection.plastic)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)


def _pointers(sorted_by: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.bincount(sorted_by, minlength=count)))).astype(np.int32)


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)
