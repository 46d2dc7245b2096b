"""Which kernel a projection gets: the one asked for, or by its structure and density."""

from __future__ import annotations

import numpy as np
import torch

from circuitlab import native
from circuitlab.compile.kernels.base import Kernel
from circuitlab.compile.kernels.convolution import Convolution
from circuitlab.compile.kernels.csr import Csr
from circuitlab.compile.kernels.dense import Dense, Diagonal
from circuitlab.compile.kernels.electrical import Electrical
from circuitlab.compile.kernels.extra import TorchSparse, is_installed
from circuitlab.compile.kernels.low_rank import LowRank
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Projection

DENSE_FROM = 0.25
"""Density from which a dense product is faster than torch's CSR product on a CPU."""
DENSE_FROM_NATIVE = 0.5
"""The same for the compiled CSR product."""

KERNELS: dict[str, type[Kernel]] = {
    "dense": Dense,
    "csr": Csr,
    "diagonal": Diagonal,
    "convolution": Convolution,
    "low_rank": LowRank,
    "torch_sparse": TorchSparse,
}


def dense_from() -> float:
    """Density from which projections are stored densely on this machine."""
    return DENSE_FROM_NATIVE if native.available() else DENSE_FROM


def choose(projection: Projection, shape: tuple[int, int]) -> str:
    """Name of the kernel for a projection: the one asked for, or by its structure and density."""
    edges, asked = projection.edges, projection.kernel
    one_to_one = shape[0] == shape[1] == len(edges.source) and bool(np.all(edges.source == edges.target))
    shared = edges.parameter_index is not None
    where = f"projections.{projection.name}.kernel"
    if projection.rank is not None:
        if asked not in ("auto", "low_rank"):
            raise CircuitError(f"{where}: {asked} cannot hold factors; allowed with a rank: auto, low_rank")
        return "low_rank"
    if asked == "torch_sparse" and not is_installed():
        raise CircuitError(
            f"{where}: the package torch-sparse is not installed (pip install 'circuitlab[torch-sparse]'); "
            "allowed without it: csr, dense"
        )
    if asked == "low_rank":
        raise CircuitError(f"{where}: low_rank needs a rank; allowed here: csr, dense")
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
    return "dense" if len(edges.source) >= dense_from() * shape[0] * shape[1] else "csr"


def compile_kernel(projection: Projection, shape: tuple[int, int], dtype: torch.dtype) -> Kernel:
    """The kernel of a projection with its initial weights; shape is (targets, sources)."""
    if projection.kind == "electrical":
        return Electrical(projection, shape, dtype, lambda one: compile_kernel(one, shape, dtype))
    name = choose(projection, shape)
    if name == "low_rank":
        assert projection.rank is not None
        return LowRank(projection.edges, shape, dtype, projection.plastic, projection.rank)
    if name == "convolution":
        assert projection.geometry is not None
        return Convolution(projection.edges, shape, dtype, projection.plastic, projection.geometry)
    return KERNELS[name](projection.edges, shape, dtype, projection.plastic)
