"""The compiled loops of `native/steps.cpp` on tensors: what an iteration does between its products.

Each has a twin in torch where it is used; `usable` says whether the compiled one can take a tensor. Results do not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import Structure, c_double, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from circuitlab import native

KINDS = {"tanh": 0, "sigmoid": 1, "softplus": 2, "elu": 3, "linear": 4, "relu": 5, "leaky_relu": 6}
"""Activations by the numbers that steps.cpp knows."""
DEEPEST = 64
"""Most differences that the compiled history holds."""
_BITS = {torch.float32: 32, torch.float64: 64}
_P, _N, _I, _D = c_void_p, c_int64, c_int, c_double
_TYPES = {
    "gate": (_I, _I, _N, _P, _P, _P, _P, _P, _P, _D, _D, _I),
    "observe": (_P, _N, _N, _I),
    "mix": (_P, _N, _P, _P, _I),
    "tanh": (_N, _P, _P, _P, _P, _I),
    "cross_entropy": (_N, _N, _P, _P, _D, _P, _N, _I),
}
_RESULTS = {"mix": _I}
_RUN: dict[tuple[str, torch.dtype], Callable[..., Any]] = {}
_JUDGE = (_N, _N, _P, _P, _D, _D, _N, _D, _N, _P, _P, _P, _P, _P, _P)


class Buffers(Structure):
    """Addresses and sizes that an accelerated iteration hands to its loops again and again; the fields are those of
    `Buffers` in steps.cpp."""

    _fields_ = (
        *((name, _N) for name in ("rows", "all_rows", "blocks", "samples", "depth")),
        *(
            (name, _P)
            for name in ("edges", "state", "image", "best", "origin", "last_image", "last_residual")
        ),
        *((name, _P) for name in ("images", "residuals", "fresh", "norms", "gram", "right", "damping")),
        *((name, _D) for name in ("ridge", "tiny", "retreat", "shortest")),
    )


def usable(tensor: Tensor) -> bool:
    """Whether the compiled loops take this tensor: on the CPU, float32 or float64, its rows side by side."""
    return tensor.is_cpu and tensor.dtype in _BITS and native.available()


def call(name: str, like: Tensor, *arguments: Any) -> Any:
    """Run a loop in the precision of `like`, with torch's number of threads; tensors are given by their addresses. What
    it returns, if anything, is said in steps.cpp."""
    key = (name, like.dtype)
    if key not in _RUN:
        address = f"circuitlab_{name}_f{_BITS[like.dtype]}"
        _RUN[key] = native.function(address, _TYPES[name], _RESULTS.get(name))
    return _RUN[key](*arguments, torch.get_num_threads())


def judge(
    norms: Tensor,
    floors: Tensor,
    target: float,
    leap: float,
    patience: int,
    ahead: float,
    count: int,
    least: Tensor,
    waited: Tensor,
    flags: Tensor,
    iterations: Tensor,
) -> int:
    """Compare residuals with the target; see `solve.base.judge` for what is written where.

    Args:
        norms: squared norms of residual and image, [block, 2, sample].
        floors: smallest scales, [block, sample].
        flags: open, better and in trouble, bool [3, sample].

    Returns:
        Samples still open.
    """
    run = native.function("circuitlab_judge", _JUDGE, c_int64)
    blocks, samples = floors.shape
    at, step = flags.data_ptr(), flags.stride(0)
    return run(
        samples,
        blocks,
        norms.data_ptr(),
        floors.data_ptr(),
        target,
        leap,
        patience,
        ahead,
        count,
        least.data_ptr(),
        waited.data_ptr(),
        at,
        at + step,
        at + 2 * step,
        iterations.data_ptr(),
    )
