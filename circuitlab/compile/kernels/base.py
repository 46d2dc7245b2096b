"""What every kernel is: one flat parameter of values, and three products that know nothing of autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from circuitlab.graph.edges import Edges


def _notice_fused_steps(optimizer: Optimizer, args: Any, options: Any) -> None:
    """Count a fused optimizer's step as a change of its parameters, which torch itself forgets to do."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version(group["params"])


register_optimizer_step_post_hook(_notice_fused_steps)


Product = Callable[[Tensor, Tensor | None, Tensor], Any]
"""(x, base, out) -> out = base + M x, or M x where base is None; base may be out itself. All [unit, sample]."""


class Kernel(nn.Module, ABC):
    """Weights of one projection as a linear map, shape (targets, sources).

    `refresh` brings stored copies (a transpose, a dense block) up to date after the values changed; it is called by
    itself, once per change. Between changes, `add_product` and `add_transposed` of dense and CSR kernels allocate
    nothing.

    Attributes:
        name: in circuit files. values: one for every synapse, or for every shared parameter.
        borrowed: bytes that are arrays of the graph's own.
    """

    name: str
    borrowed: int = 0
    values: nn.Parameter

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__()
        self.shape = shape
        initial = edges.weight if edges.parameters is None else edges.parameters
        values = torch.empty(len(initial), dtype=dtype)
        values.numpy()[:] = initial
        self.values = nn.Parameter(values, requires_grad=plastic)
        self._seen: tuple[int, int] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._seen = None

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

    def add_rows(self, rate: Tensor, targets: slice | Tensor, out: Tensor) -> None:
        """out += some rows of W rate, [chosen target, sample].

        Args:
            targets: which targets, a range or their numbers.
        """
        whole = rate.new_zeros(self.shape[0], rate.shape[1])
        self.add_product(rate, whole)
        out += whole[targets]

    def product(self, turned: bool = False) -> Product:
        """out = base + W x, with the weights as they are when this is called: good until they change. It saves what
        `add_product` does at every call to find out whether they did.

        Args:
            turned: W^T in place of W.
        """
        add = self.add_transposed if turned else self.add_product

        def product(x: Tensor, base: Tensor | None, out: Tensor) -> None:
            if base is None:
                out.zero_()
            elif base is not out:
                out.copy_(base)
            add(x, out)

        return product

    @abstractmethod
    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        """Sum over samples of post_i pre_j for every synapse j -> i.

        Args:
            post: [target, sample]. pre: [source, sample].
            out: [parameter], contiguous; the result is written there and nothing else is allocated once the kernel
                has its work space. A new tensor if None.
        """

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply every weight by a factor of at least 0, in place."""
        self.values.mul_(factor)

    def matrix(self) -> Tensor:
        """The weights as a dense matrix, [target, source]; not to be written to."""
        out = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        self.add_product(torch.eye(self.shape[1], dtype=out.dtype, device=out.device), out)
        return out

    @property
    def edge_values(self) -> Tensor:
        """Weight of every edge, shape [edge]."""
        return self.values.detach()
