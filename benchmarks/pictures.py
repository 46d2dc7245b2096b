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
WIDEST = 1600
"""Pixels of a picture's width on a page."""


def circuit_of(path: Path) -> Circuit:
    """The circuit of a file, at its scale in SCALES."""
    return build(load_circuit(path, scale=SCALES.get(path.stem)))


def recurrent(circuit: Circuit) -> bool:
    """Whether any synapse joins two units: else the adjacency picture shows full blocks alone."""
    inner = set(circuit.units) - set(circuit.outputs)
    return any(p.source in inner and p.target in inner for p in circuit.projections.values())


def fit(path: Path) -> None:
    """Make a picture small enough for a page."""
    with Image.open(path) as image:
        if image.width <= WIDEST:
            return
        height = round(image.height * WIDEST / image.width)
        smaller = image.convert("RGB").resize((WIDEST, height), Image.Resampling.LANCZOS)
    smaller.save(path, optimize=True)


def main(names: list[str]) -> None:
    """Draw the topologies of these names, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "topologies").glob("*.yaml")):
        if names and path.stem not in names:
            continue
        circuit = circuit_of(path)
        pictures = [(FOLDER / f"{path.stem}.png", draw)]
        if recurrent(circuit):
            pictures.append((FOLDER / f"{path.stem}_adjacency.png", draw_adjacency))
        for file, work in pictures:
            work(circuit, file)
            fit(file)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
