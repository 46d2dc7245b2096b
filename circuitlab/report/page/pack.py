"""Data inside a page: arrays as base64 of typed numbers, JSON and text that no markup can leave."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

KINDS = {"f4": "<f4", "i4": "<i4", "u1": "|u1"}
"""Types of packed arrays, by the name that the page's script knows them by."""


def pack(values: ArrayLike) -> dict[str, Any]:
    """An array as the page's script reads it: its type, shape and base64 of its numbers in C order, little-endian.

    Floats become float32, integers int32 where they fit, truth values bytes.
    """
    array = np.asarray(values)
    if array.dtype.kind == "b":
        kind = "u1"
    elif array.dtype.kind in "iu" and (not array.size or (abs(int(array.min())) | int(array.max())) < 2**31):
        kind = "i4"
    else:
        kind = "f4"
    with np.errstate(over="ignore"):
        flat = np.ascontiguousarray(array, dtype=KINDS[kind])
    return {
        "type": kind,
        "shape": list(array.shape),
        "data": base64.b64encode(flat.tobytes()).decode("ascii"),
    }


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that `pack` packed."""
    flat = np.frombuffer(base64.b64decode(packed["data"]), dtype=KINDS[packed["type"]])
    return flat.reshape(packed["shape"])


def packed_bytes(numbers: int) -> int:
    """Characters that so many packed float32 numbers take in a page."""
    return 16 * numbers // 3


def to_json(value: Any) -> str:
    """Strict JSON that is harmless inside a script element: no markup in it, and no number that is not finite."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def text(value: object) -> str:
    """Any text of a user, harmless inside HTML, attributes among it."""
    return html.escape(str(value), quote=True)
