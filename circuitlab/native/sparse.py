"""The products of `sparse.cpp` by address: compressed rows with int32 indices, activity [unit, sample].

Rows of the activity may lie anywhere apart (`stride`, in numbers), samples lie side by side. Results do not depend on
the number of threads. NaN and infinity pass through as in any sum.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int, c_int64, c_void_p
from typing import Any

from circuitlab.native.loader import function

_ADD = (
    *(c_void_p, c_void_p, c_void_p, c_int64, c_int64),
    *(c_void_p, c_int64, c_void_p, c_int64, c_int64, c_int),
)
_OUTER = (
    *(c_void_p, c_void_p, c_int64, c_int64),
    *(c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_int, c_int),
)


def adder(bits: int) -> Callable[..., Any]:
    """out += W x for float32 or float64 (`bits`).

    The function takes rows [target + 1], columns [edge], values [edge], targets, sources, x, its stride, out, its
    stride, samples, threads; arrays as addresses.

    Raises:
        CircuitlabError: the library cannot be used.
    """
    return function(f"circuitlab_csr_add_f{bits}", _ADD)


def outer(bits: int) -> Callable[..., Any]:
    """out[edge] = sum over samples of post_i pre_j for float32 or float64 (`bits`).

    The function takes rows [target + 1], columns [edge], targets, sources, post, its stride, pre, its stride,
    out [edge], samples, whether to add to what is there, threads; arrays as addresses.

    Raises:
        CircuitlabError: the library cannot be used.
    """
    return function(f"circuitlab_csr_outer_f{bits}", _OUTER)
