"""What only circuitlab knows of a circuit, as JSON beside or inside a foreign file, so that it comes back the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError
from circuitlab.graph.circuit import Circuit, Noise, Population, Projection
from circuitlab.graph.exchange import POPULATION_FIELDS, PROJECTION_FIELDS, header
from circuitlab.graph.tables import read_json

FORMAT, VERSION = "circuitlab", 1


def encode(value: Any) -> Any:
    """Plain data as strict JSON can hold it: arrays, tuples and numbers that are not finite are marked."""
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"__array__": value.dtype.str, "values": encode(value.tolist())}
    if isinstance(value, tuple):
        return {"__tuple__": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FormatError(f"a {type(value).__name__} cannot be written as JSON: {value!r}")


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        FormatError: the marks are damaged.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        if value.keys() == {"__array__", "values"}:
            return np.array(decode(value["values"]), dtype=np.dtype(value["__array__"]))
        if value.keys() == {"__tuple__"}:
            return tuple(decode(item) for item in value["__tuple__"])
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"the data that circuitlab wrote is damaged: {error}") from error
    return {key: decode(item) for key, item in value.items()}


@dataclass(frozen=True)
class Header:
    """What an earlier export wrote down of its circuit.

    Args:
        path: where it stands, for messages. data: name, description, seed, fields of populations and projections,
            parts of node populations, projections of edge populations, the origin.
    """

    path: Path
    data: Mapping[str, Any]

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """Where the exported circuit had come from itself."""
        return self.data.get("origin")

    def owns(self, kind: str, name: str) -> bool:
        """Whether a node or edge population came from the circuit itself, not from other SONATA files before.

        Args:
            kind: nodes or edges.
        """
        return name in self.data["own"][kind]

    def parts_of(self, name: str, rows: int) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
        """Which of the circuit's populations each node of a node population belongs to, and these populations."""
        found = self.data["parts"].get(name)
        if found is None:
            return None, None
        part = np.asarray(found["part"], dtype=np.int64)
        if part.size == 0:
            part = np.zeros(rows, dtype=np.int64)
        names = tuple(found["populations"])
        if len(part) != rows or (rows and (part.min() < 0 or part.max() >= len(names))):
            raise FormatError(f"{self.path}: parts.{name}: does not fit the {rows} nodes of the population")
        return part, names

    def projection_names(self) -> dict[str, dict[tuple[str, str], str]]:
        """Edge population -> (source, target) -> name of the projection."""
        found: dict[str, dict[tuple[str, str], str]] = {}
        for name, fields in self.data["projections"].items():
            pair = fields["source"], fields["target"]
            found.setdefault(fields["edge_population"], {})[pair] = name
        return found

    def applied(self, circuit: Circuit, keep_types: set[str]) -> Circuit:
        """The circuit with everything that the header says of its populations and projections, in its order.

        Args:
            keep_types: populations whose type the user asked for.
        """
        populations = {
            name: _population(p, self.data["populations"].get(name), name in keep_types)
            for name, p in circuit.populations.items()
        }
        projections = {
            name: _projection(p, self.data["projections"].get(name))
            for name, p in circuit.projections.items()
        }
        for name, fields in self.data["projections"].items():
            if name not in projections and {fields["source"], fields["target"]} <= populations.keys():
                raise FormatError(f"{self.path}: projections.{name}: there is no such edge population")
        return replace(
            circuit,
            description=self.data["description"],
            seed=self.data["seed"],
            populations=_ordered(populations, self.data["populations"]),
            projections=_ordered(projections, self.data["projections"]),
            name=self.data["name"],
        )


def _ordered(items: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    names = [*(name for name in order if name in items), *(name for name in items if name not in order)]
    return {name: items[name] for name in names}


def _population(p: Population, known: Mapping[str, Any] | None, keep_type: bool) -> Population:
    if known is None or keep_type:
        return p
    fields = {key: known[key] for key in POPULATION_FIELDS if key in known and key != "size"}
    fields["noise"] = Noise(**known["noise"]) if known.get("noise") else None
    attributes = _kept(p.attributes, known["attributes"])
    if not known["has_bias"]:
        fields["bias"] = None
    return replace(p, attributes=attributes, **fields)


def _kept(attributes: Mapping[str, NDArray], kinds: Mapping[str, str]) -> dict[str, NDArray]:
    return {key: attributes[key].astype(kind) for key, kind in kinds.items() if key in attributes}


def _projection(p: Projection, known: Mapping[str, Any] | None) -> Projection:
    if known is None:
        return p
    fields = {key: known[key] for key in PROJECTION_FIELDS if key in known}
    edges = p.edges
    if known["parameters"] is not None:
        edges = replace(edges, parameters=known["parameters"])
    edges = replace(edges, attributes=_kept(edges.attributes, known["attributes"]))
    if edges.rows is not None:
        edges = replace(
            edges, rows=replace(edges.rows, attributes=_kept(edges.rows.attributes, known["attributes"]))
        )
    return replace(p, edges=edges, **fields)


def circuit_data(circuit: Circuit) -> dict[str, Any]:
    """Name, description, seed, origin and the fields of populations and projections, with numpy arrays."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **header(circuit),
        "origin": None if circuit.origin is None else dict(circuit.origin),
    }


def write_header(path: Path, data: Mapping[str, Any]) -> None:
    """Write a header as a JSON file."""
    path.write_text(json.dumps(encode(data), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_header(path: Path) -> Header | None:
    """A header that an earlier export wrote, None where there is no such file.

    Raises:
        FormatError: it is damaged, of another program, or of a newer version.
    """
    if not path.is_file():
        return None
    data = read_json(path)
    if data.get("format") != FORMAT or not isinstance(data.get("version"), int):
        raise FormatError(f"{path}: was not written by circuitlab; it should not lie here")
    if data["version"] > VERSION:
        raise FormatError(f"{path}: has version {data['version']}; this circuitlab reads up to {VERSION}")
    decoded = decode(data)
    for key in ("name", "description", "seed", "populations", "projections", "parts", "own"):
        if key not in decoded:
            raise FormatError(f"{path}: is damaged: it has no '{key}'")
    return Header(path, decoded)
