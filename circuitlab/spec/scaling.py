"""`scale`: a circuit file with fewer or more neurons, its densities kept.

Every population but inputs and outputs gets `scale` times its neurons, at least one. A rule that counts
synapses (`fixed_indegree`, `fixed_outdegree`, `fixed_total_number`, or `distance_dependent` with an indegree)
counts in proportion, so that the share of pairs that it joins stays; probabilities stay as they are. What
belongs to single neurons cannot be scaled and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from circuitlab.spec.base import MAX_INT
from circuitlab.spec.source import Source

UNSCALED = ("input", "output")
"""Types of populations whose size is the data's."""
COUNTS = {
    "fixed_indegree": ("indegree", ("source",)),
    "fixed_outdegree": ("outdegree", ("target",)),
    "fixed_total_number": ("N", ("source", "target")),
    "distance_dependent": ("indegree", ("source",)),
}
"""Rules that count synapses: the parameter, and the populations in whose proportion it grows."""


def apply_scale(source: Source) -> None:
    """Write the scaled numbers into a circuit's data; what cannot be scaled is reported to the source.

    A scale that is no number above 0 is left to the check of the key itself.
    """
    scale = source.data.get("scale", 1)
    if (
        isinstance(scale, bool)
        or not isinstance(scale, int | float)
        or not 0 < scale < math.inf
        or scale == 1
    ):
        return
    populations, projections = source.data.get("populations"), source.data.get("projections")
    ratios: dict[str, float] = {}
    if isinstance(populations, dict):
        scaled = {name: _population(source, name, raw, scale, ratios) for name, raw in populations.items()}
        source.data = {**source.data, "populations": scaled}
    if isinstance(projections, dict):
        scaled = {name: _projection(source, name, raw, ratios) for name, raw in projections.items()}
        source.data = {**source.data, "projections": scaled}


def scaled_number(number: int, factor: float) -> int:
    """A number of neurons or synapses at a scale: rounded to the nearest, half up, at least 1."""
    return max(1, math.floor(number * factor + 0.5))


def _population(source: Source, name: str, raw: Any, scale: float, ratios: dict[str, float]) -> Any:
    """A population as the file has it, with its size scaled, and its ratio noted."""
    if not isinstance(raw, dict) or raw.get("type") in UNSCALED:
        return raw
    ratios[name] = 1.0
    own = [key for key in ("shape", "names", "attributes") if raw.get(key) is not None]
    positions, bias = raw.get("positions"), raw.get("bias")
    drawn = isinstance(positions, dict) and not {"file", "values", "grid"} & set(positions)
    if positions is not None and not drawn:
        own.append("positions")
    if isinstance(bias, dict) and bias.get("file") is not None:
        own.append("bias")
    for key in own:
        allowed = "; allowed: positions: {random: ..}" if key == "positions" else ""
        source.report(
            ("populations", name, key),
            f"'{key}' is of {_size(raw)} single neurons, and the circuit's scale is not 1; leave out one of"
            f" them{allowed}",
        )
    size = raw.get("size")
    if own or isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_INT:
        return raw
    number = scaled_number(size, scale)
    if number > MAX_INT:
        source.report(
            ("scale",), f"populations.{name}: {size:,} neurons become {number:,}; at most {MAX_INT:,}"
        )
        return raw
    ratios[name] = number / size
    return {**raw, "size": number}


def _size(raw: Mapping[str, Any]) -> str:
    return f"{raw['size']:,}" if isinstance(raw.get("size"), int) else "the"


def _projection(source: Source, name: str, raw: Any, ratios: Mapping[str, float]) -> Any:
    """A projection as the file has it, with its number of synapses scaled."""
    if not isinstance(raw, dict):
        return raw
    ends = {end: raw.get(end) for end in ("source", "target")}
    factors = {end: ratios.get(of, 1.0) if isinstance(of, str) else 1.0 for end, of in ends.items()}
    touched = [of for of in ends.values() if isinstance(of, str) and of in ratios]
    connect, weights = raw.get("connect"), raw.get("weights")
    rule = connect.get("rule") if isinstance(connect, dict) else connect
    for key, given in (("connect", rule == "explicit"), ("weights", _from_file(weights))):
        if given and touched:
            source.report(
                ("projections", name, key),
                f"the file is of the single neurons of '{touched[0]}', and the circuit's scale is not 1; leave out"
                " one of them",
            )
    if not isinstance(connect, dict) or rule not in COUNTS:
        return raw
    key, along = COUNTS[rule]
    count = connect.get(key)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        return raw
    return {
        **raw,
        "connect": {**connect, key: scaled_number(count, math.prod(factors[end] for end in along))},
    }


def _from_file(weights: Any) -> bool:
    return isinstance(weights, dict) and weights.get("file") is not None
