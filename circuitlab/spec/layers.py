"""The `layers` section of a circuit file: depth ranges by name, and what they ask of the populations in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from circuitlab.spec.base import Model, refuse, without_none
from circuitlab.spec.entries import Entry, Finding
from circuitlab.spec.populations import PopulationSpec

AXES = ("x", "y", "z")


class LayerSpec(Model):
    """A range of depths that neurons lie in."""

    start: float = Field(alias="from")
    """Where the layer begins, in the length unit of the positions."""
    end: float = Field(alias="to")
    """Where it ends."""
    axis: Literal["x", "y", "z"] | None = None
    """The axis of depth; the last one of a population's positions unless given."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The smaller and the larger depth."""
        return min(self.start, self.end), max(self.start, self.end)

    def depth_axis(self, dimensions: int) -> int:
        """Which dimension of positions is depth.

        Raises:
            ValueError: positions have no such axis.
        """
        index = dimensions - 1 if self.axis is None else AXES.index(self.axis)
        if index >= dimensions:
            raise ValueError(
                f"the depth of the layer is along {self.axis}, but positions have {dimensions} dimensions"
            )
        return index

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return without_none(self.model_dump(mode="json", by_alias=True))


def check_layer(entry: Entry) -> Iterator[Finding]:
    """Findings on one layer."""
    layer: LayerSpec | None = entry.spec
    if layer is not None and layer.start == layer.end:
        yield ("to",), f"the layer has no depth: it begins and ends at {layer.end:g}", ("from",)


def check_placement(p: PopulationSpec, layers: Mapping[str, Entry]) -> Iterator[Finding]:
    """Findings on a population's origin and layer."""
    positions = p.positions
    dimensions = None
    if positions is not None:
        for way in (
            positions.grid,
            positions.random and positions.random.extent,
            (positions.values or (None,))[0],
        ):
            dimensions = len(way) if way is not None else dimensions
        origin = positions.origin
        if origin is not None and dimensions is not None and len(origin) != dimensions:
            yield (
                ("positions", "origin"),
                f"{len(origin)} numbers for positions in {dimensions} dimensions; one per dimension is wanted",
                (),
            )
    if p.layer is None:
        return
    if p.layer not in layers:
        yield ("layer",), f"no layer '{p.layer}'{refuse(layers, p.layer)}", ()
        return
    layer: LayerSpec | None = layers[p.layer].spec
    if layer is None or layers[p.layer].keys or positions is None or dimensions is None:
        return
    low, high = layer.bounds
    drawn = positions.random is not None
    if drawn and dimensions == 3:
        yield (
            ("positions", "random"),
            "the layer gives the depth, and the extent the other axes; one or two numbers are wanted",
            ("layer",),
        )
        return
    try:
        axis = layer.depth_axis(dimensions + drawn)
    except ValueError as error:
        yield ("layer",), str(error), ("positions",)
        return
    for index, point in enumerate(positions.values or ()):
        if axis < len(point):
            depth = point[axis] + (
                positions.origin[axis] if positions.origin and axis < len(positions.origin) else 0.0
            )
            if not low <= depth <= high:
                yield (
                    ("positions", index),
                    f"the depth {depth:g} lies outside of layer '{p.layer}', {low:g} to {high:g}",
                    ("layer",),
                )
