"""What must hold in a circuit file beyond the types of its keys: names, sites, shapes, signs, files.

The checks also run on a file whose other parts are wrong, so that all of its mistakes come out at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from circuitlab.spec.base import Model, described, listed
from circuitlab.spec.entries import Entry, Finding, entry_of, publish
from circuitlab.spec.files import file_problem
from circuitlab.spec.layers import LayerSpec, check_layer, check_placement
from circuitlab.spec.populations import PopulationSpec, PopulationType
from circuitlab.spec.projection_checks import check_projection
from circuitlab.spec.projections import ProjectionSpec
from circuitlab.spec.source import Source

RESERVED = ("residual", "iterations", "converged", "controller", "kinks", "target", "input")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def check_circuit(source: Source, folder: Path, allow_outside: bool, files: bool = True) -> None:
    """Report everything that is wrong with a circuit's meaning to the source.

    Args:
        files: whether the files that it names must be there.
    """
    raw_populations, raw_projections = source.data.get("populations"), source.data.get("projections")
    populations = _entries(PopulationSpec, raw_populations)
    projections = _entries(ProjectionSpec, raw_projections)
    layers = _entries(LayerSpec, source.data.get("layers"))
    for name, entry in layers.items():
        _check_name(source, ("layers", name), name, ())
        publish(source, ("layers", name), entry, check_layer(entry))
    for name, entry in populations.items():
        _check_name(source, ("populations", name), name, RESERVED)
        publish(source, ("populations", name), entry, _check_population(entry))
        if entry.spec is not None:
            publish(source, ("populations", name), entry, check_placement(entry.spec, layers))
    for name, entry in projections.items():
        _check_name(source, ("projections", name), name, ("step",))
        if name.removesuffix("_bias") in populations and name.endswith("_bias"):
            source.report(
                ("projections", name),
                f"the name is taken by the bias of '{name.removesuffix('_bias')}'; choose another",
                at_key=True,
            )
        publish(source, ("projections", name), entry, check_projection(entry, populations, projections))
    for section, entries in (("populations", populations), ("projections", projections)):
        for name, entry in entries.items() if files else ():
            for path, file in _files(entry):
                problem = file_problem(folder, file, allow_outside)
                if problem:
                    source.report((section, name, *path), problem)
    if files and isinstance(source.data.get("origin"), str):
        problem = file_problem(folder, source.data["origin"], allow_outside)
        if problem:
            source.report(("origin",), problem)
    _check_whole(source, populations, projections)
    _check_junctions(source, projections)


def _entries(model: type[Model], raw: Any) -> dict[str, Entry]:
    return {name: entry_of(model, value) for name, value in raw.items()} if isinstance(raw, dict) else {}


def _check_name(source: Source, path: tuple[str, ...], name: str, reserved: tuple[str, ...]) -> None:
    if not NAME.fullmatch(name):
        source.report(
            path,
            f"{described(name)} is not a name; allowed: letters, digits, _ and -, a letter or _ first",
            at_key=True,
        )
    elif name in reserved:
        source.report(
            path,
            f"'{name}' is reserved for the run file; choose another name (reserved: {listed(reserved)})",
            at_key=True,
        )


def _check_population(entry: Entry) -> Iterator[Finding]:
    p: PopulationSpec | None = entry.spec
    if p is None:
        return
    raw = entry.raw
    if p.shape is not None and "size" in raw and math.prod(p.shape) != p.size:
        yield (
            ("shape",),
            f"shape {list(p.shape)} holds {math.prod(p.shape)} neurons, but size is {p.size}; they"
            " must agree",
            ("size",),
        )
    elif p.shape is not None and math.prod(p.shape) > 2**31 - 1:
        yield ("shape",), f"shape {list(p.shape)} holds more than {2**31 - 1} neurons", ()
    if p.type == "input":
        for key, what in (
            ("activation", "their activity is the data"),
            ("tau", "they have no dynamics"),
            ("gain", "their activity is the data"),
            ("threshold", "their activity is the data"),
            ("noise", "they have no dynamics"),
            ("controlled", "they receive no control"),
            ("bias", "they have no bias"),
        ):
            if key in raw and not (key in ("controlled", "bias") and raw[key] is False):
                yield (key,), f"inputs are clamped to the data, {what}; leave '{key}' out", ("type",)
    yield from _check_bias(p)
    if p.names is not None:
        yield from _one_of(p.names, "names", ("file", "values"))
        values = p.names.values
        if values is not None and len(values) != p.size:
            yield (
                ("names",),
                f"{len(values)} names for {p.size} neurons; one name each is wanted",
                ("size", "shape"),
            )
        seen: set[str] = set()
        for index, name in enumerate(values or ()):
            if name in seen:
                yield ("names", index), f"the name '{name}' stands twice; names differ", ()
            seen.add(name)
    if p.positions is not None:
        yield from _check_positions(p)


def _one_of(spec: Any, key: str, ways: tuple[str, ...]) -> Iterator[Finding]:
    given = [way for way in ways if getattr(spec, way) is not None]
    if len(given) != 1:
        wanted = " or ".join("a list" if way == "values" else f"'{way}'" for way in ways)
        found = " and ".join(f"'{way}'" for way in given) if given else "nothing"
        yield (key,), f"{found} given; exactly one of {wanted} is wanted", ()


def _check_bias(p: PopulationSpec) -> Iterator[Finding]:
    if p.bias is None:
        return
    used = {"constant": {"value"}, "uniform": {"scale"}, "normal": {"scale"}, "file": {"file"}}.get(
        p.bias.init, set()
    )
    for key in ("value", "scale", "file"):
        given = getattr(p.bias, key) is not None
        if given and key not in used:
            yield (
                ("bias", key),
                f"bias '{p.bias.init}' takes no '{key}'; allowed:"
                f" {listed(sorted(used | {'init', 'plastic'}))}",
                (),
            )
        if not given and key in used:
            yield ("bias",), f"bias '{p.bias.init}' needs '{key}'", ()


def _check_positions(p: PopulationSpec) -> Iterator[Finding]:
    positions = p.positions
    assert positions is not None
    yield from _one_of(positions, "positions", ("values", "file", "grid", "random"))
    if positions.grid is not None and math.prod(positions.grid) != p.size:
        yield (
            ("positions", "grid"),
            f"grid {list(positions.grid)} holds {math.prod(positions.grid)} neurons, but size is {p.size};"
            " they must agree",
            ("size", "shape"),
        )
    values = positions.values
    if values is not None:
        if len(values) != p.size:
            yield (
                ("positions",),
                f"{len(values)} points for {p.size} neurons; one each is wanted",
                ("size", "shape"),
            )
        if len({len(point) for point in values}) > 1:
            yield (
                ("positions",),
                "points of different dimensions; every point has as many numbers as the first",
                (),
            )


def _files(entry: Entry) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every file an entry names, and where."""
    if not isinstance(entry.raw, dict):
        return
    for key in ("names", "positions", "attributes", "bias", "weights", "connect"):
        part = entry.raw.get(key)
        file = (
            part.get("file")
            if isinstance(part, dict)
            else part
            if key in ("names", "positions", "attributes")
            else None
        )
        if isinstance(file, str):
            yield (key, "file") if isinstance(part, dict) else (key,), file


def _check_junctions(source: Source, projections: dict[str, Entry]) -> None:
    """One projection holds all gap junctions between two populations: it acts on both ends."""
    seen: dict[tuple[str, str], str] = {}
    for name, entry in projections.items():
        p = entry.spec
        if p is None or p.kind != "electrical" or {"source", "target", "kind"} & entry.keys:
            continue
        turned = seen.get((p.target, p.source))
        if turned is not None and p.source != p.target:
            source.report(
                ("projections", name),
                f"'{turned}' already joins '{p.target}' and '{p.source}' by gap junctions, and these act on both "
                "ends; leave one of the two out",
                at_key=True,
            )
        seen.setdefault((p.source, p.target), name)


def _check_whole(source: Source, populations: dict[str, Entry], projections: dict[str, Entry]) -> None:
    types = [entry.raw.get("type") if isinstance(entry.raw, dict) else None for entry in populations.values()]
    known = get_args(PopulationType)
    if isinstance(source.data.get("populations"), dict) and all(kind in known for kind in types):
        imported = isinstance(source.data.get("origin"), str)
        for kind in ("input", "output"):
            if kind not in types and not imported:
                source.report(
                    ("populations",),
                    f"no {kind} population; a circuit needs at least one of type '{kind}'",
                    at_key=True,
                )
    targets = [
        entry.raw.get("target") if isinstance(entry.raw, dict) else None for entry in projections.values()
    ]
    if not all(isinstance(target, str) and target in populations for target in targets):
        return
    for name, entry in populations.items():
        if isinstance(entry.raw, dict) and entry.raw.get("type") == "output" and name not in targets:
            message = f"an output that no projection reaches; give it a projection with 'target: {name}'"
            source.report(("populations", name), message, at_key=True)
