"""Shared weights run by torch's own convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad

from circuitlab.compile.kernels.base import Kernel
from circuitlab.graph.edges import Edges


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

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        images = pre.t().reshape(-1, *self.images).contiguous()
        maps = post.t().reshape(-1, *self.maps).contiguous()
        stride: Any = self.stride
        padding: Any = self.padding
        update = grad.conv2d_weight(images, self.kernel_shape, maps, stride, padding)
        return update.reshape(-1) if out is None else out.copy_(update.reshape(-1))


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)
