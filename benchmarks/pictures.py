"""Draws every topology for the documentation: its populations and sites, and the synapses among its neurons.

Use: python benchmarks/pictures.py [NAME ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.report.adjacency import draw_adjacency
from circuitlab.report.draw import draw
from circuitlab.spec.circuit import load_circuit

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images" / "topologies"
SCALES = {"potjans_diesmann": 0.1}
"""Of circuits that are too large to be drawn in a moment at their full size."""
FULL = 0.5
"""Density from which a projection is no wiring to look at."""
WIDEST, COLOURS = 1600, 256
"""Pixels of a picture's width on a page, and its colours."""


def circuit_of(path: Path) -> Circuit:
    """The circuit of a file, at its scale in SCALES."""
    return build(load_circuit(path, scale=SCALES.get(path.stem)))


def wired(circuit: Circuit) -> bool:
    """Whether there is wiring to see: of circuits all joined to all the adjacency picture shows full blocks."""
    return any(circuit.density(name) < FULL for name in circuit.projections)


def fit(path: Path) -> None:
    """Make a picture small enough for a page, in pixels and in bytes."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.width > WIDEST:
        height = round(image.height * WIDEST / image.width)
        image = image.resize((WIDEST, height), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def main(names: list[str]) -> None:
    """Draw the topologies of these names, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "topologies").glob("*.yaml")):
        if names and path.stem not in names:
            continue
        circuit = circuit_of(path)
        pictures = [(FOLDER / f"{path.stem}.png", draw)]
        if wired(circuit):
            pictures.append((FOLDER / f"{path.stem}_adjacency.png", draw_adjacency))
        for file, work in pictures:
            work(circuit, file)
            fit(file)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
