"""The circuit drawn: the SVG of report/draw.py inside the page, and the same in words."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import matplotlib as mpl

from circuitlab.errors import RunFileError
from circuitlab.record.circuits import circuit_of_run
from circuitlab.report.draw import picture
from circuitlab.report.page.pack import text
from circuitlab.report.page.parts import Part, count, fold, number, paragraph, table
from circuitlab.report.page.source import DAMAGE, Source

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
MOST_EDGES = 8_000_000
"""Circuits with more edges are told in words and not drawn: their drawing reads all of them."""
MOST_DRAWN = 4
"""Different circuits that one page draws."""


def circuits(sources: Sequence[Source]) -> Part:
    """The section of the circuits: each that differs from those before it."""
    different: dict[str, list[Source]] = {}
    for source in sources:
        different.setdefault(source.run.circuit_yaml, []).append(source)
    body = ""
    for place, same in enumerate(list(different.values())[:MOST_DRAWN]):
        body += _one(same[0], place, ", ".join(source.label for source in same) if len(different) > 1 else "")
    if len(different) > MOST_DRAWN:
        body += paragraph(f"{len(different) - MOST_DRAWN} further circuits are not drawn.", "quiet")
    return Part("circuit", "The circuit" if len(different) == 1 else "The circuits", body)


def _one(source: Source, place: int, runs: str) -> str:
    name = str(source.circuit.get("circuit") or "circuit")
    edges = sum(map(source.edges, source.projections))
    title = f"<h3>{text(name)}</h3>{paragraph(runs, 'quiet')}" if runs else ""
    if edges > MOST_EDGES:
        drawn = paragraph(
            f"{edges:,} edges are too many to be drawn here; circuitlab show CIRCUIT.yaml --draw draws them."
        )
    else:
        svg = svg_of(source, f"circuit{place}-")
        label = text(f"Drawing of {name}")
        drawn = f'<div class="drawing" role="group" tabindex="0" aria-label="{label}">{svg}</div>'
    return title + drawn + fold("The circuit in words", _words(source))


def svg_of(source: Source, prefix: str) -> str:
    """A run's circuit as an SVG element for a page, its ids set apart by a prefix."""
    buffer = io.StringIO()
    # "none" keeps text as text, which is smaller, can be searched, and is read by the page's own font
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "circuitlab", "text.parse_math": False}):
        try:
            circuit = circuit_of_run(source.run.path, "initial")
        except DAMAGE as error:
            raise RunFileError(f"{source.run.path}: /nodes or /edges is damaged") from error
        picture(circuit).savefig(buffer, format="svg", metadata={"Date": None})
    return embedded(
        buffer.getvalue(),
        prefix,
        f"Drawing of the circuit {source.circuit.get('circuit')}: {_sentence(source)}",
    )


def embedded(svg: str, prefix: str, label: str) -> str:
    """An SVG file as an element of a page: ids set apart, nothing that points outside, a text alternative."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}script", f"{{{SVG}}}foreignObject"):
                parent.remove(child)
    known = {item.get("id") for item in root.iter() if item.get("id")}
    again: dict[str, int] = {}
    for item in root.iter():
        item.tag = item.tag.removeprefix(f"{{{SVG}}}")
        href = item.attrib.pop(f"{{{XLINK}}}href", None) or item.attrib.pop("href", None)
        if href is not None and (href.startswith("data:image/png") or href.removeprefix("#") in known):
            item.set("href", href if href.startswith("data:") else f"#{prefix}{href[1:]}")
        for key, value in list(item.attrib.items()):
            if key.startswith(("{", "on")):
                del item.attrib[key]
            elif key == "id":
                again[value] = again.get(value, 0) + 1
                times = f"-{again[value]}" if again[value] > 1 else ""
                item.set("id", prefix + re.sub(r"\s", "-", value) + times)
            elif "url(#" in value:
                item.set(key, re.sub(r"url\(#", f"url(#{prefix}", value))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    box = [float(part) for part in root.get("viewBox", "0 0 100 100").split()]
    root.set("style", f"aspect-ratio: {box[2]:.0f} / {box[3]:.0f}; width: {box[2] * 4 / 3:.0f}px")
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _sentence(source: Source) -> str:
    parts = []
    for name in source.projections:
        said = source.about_projection(name)
        parts.append(f"{said.get('source')} to {said.get('target')}")
    listed = "; ".join(parts[:30]) + (f"; and {len(parts) - 30} more" if len(parts) > 30 else "")
    return f"{count(len(source.populations), 'population')}, projections {listed or 'none'}."


def _words(source: Source) -> str:
    populations = []
    for name in source.populations:
        said = source.about_population(name)
        inner = said.get("type") != "input"
        populations.append(
            [
                name,
                said.get("type", ""),
                f"{source.size(name):,}",
                said.get("activation", "") if inner else "",
                number(float(said["tau_ms"])) if inner and "tau_ms" in said else "",
                said.get("sign") or "",
            ]
        )
    projections = []
    for name in source.projections:
        said = source.about_projection(name)
        ends = source.size(str(said.get("source"))) * source.size(str(said.get("target")))
        projections.append(
            [
                name,
                said.get("source", ""),
                said.get("target", ""),
                said.get("site", ""),
                "gap junctions"
                if said.get("kind") == "electrical"
                else f"carries {said.get('carries', 'rate')}s",
                f"{source.edges(name):,}",
                f"{100 * source.edges(name) / ends:.3g}%" if ends else "",
                "learns" if said.get("plastic") else "fixed",
            ]
        )
    return table(
        "Populations",
        ["population", "type", "neurons", "activation", "time constant (ms)", "sign"],
        populations,
    ) + table(
        "Projections",
        ["projection", "from", "to", "site", "kind", "connections", "density", "learning"],
        projections,
    )
