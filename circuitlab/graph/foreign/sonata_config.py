"""Which files make up a SONATA circuit: circuit_config.json, a folder, or the bare files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitlab.errors import FormatError
from circuitlab.graph.foreign.sonata_tables import has_populations
from circuitlab.graph.tables import read_json

CONFIG = "circuit_config.json"
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Pair:
    """An HDF5 file of nodes or edges with its type table.

    Args:
        kind: nodes or edges. file: the HDF5 file. types: the table, None where the types have no attributes.
        populations: the populations to read, None for all; node populations with what they say of themselves.
    """

    kind: str
    file: Path
    types: Path | None
    populations: Mapping[str, Mapping[str, Any]] | None = None


def read_config(path: Path, allow_outside: bool = False) -> list[Pair]:
    """The files that a circuit_config.json names, those with `enabled: false` left out.

    Paths may use the variables of `manifest` and are relative to the config.

    Raises:
        FormatError: bad JSON, unknown variables, missing files, files outside the config's folder.
    """
    config = read_json(path)
    networks = config.get("networks")
    if not isinstance(networks, dict):
        raise FormatError(f"{path}: networks: missing; a SONATA circuit names its nodes and edges there")
    manifest = config.get("manifest", {})
    if not isinstance(manifest, dict) or not all(isinstance(value, str) for value in manifest.values()):
        raise FormatError(f"{path}: manifest: is not an object of texts")
    pairs = []
    for kind in ("nodes", "edges"):
        entries = networks.get(kind, [])
        if not isinstance(entries, list):
            raise FormatError(f"{path}: networks.{kind}: is not a list")
        for number, entry in enumerate(entries):
            pair = _pair(path, manifest, kind, f"networks.{kind}[{number}]", entry, allow_outside)
            if pair is not None:
                pairs.append(pair)
    if not any(pair.kind == "nodes" for pair in pairs):
        raise FormatError(f"{path}: networks.nodes: names no file of nodes")
    return pairs


def _pair(
    config: Path, manifest: Mapping[str, str], kind: str, where: str, entry: Any, allow_outside: bool
) -> Pair | None:
    if not isinstance(entry, dict):
        raise FormatError(f"{config}: {where}: is not an object")
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise FormatError(f"{config}: {where}.enabled: is {enabled!r}; allowed: true, false")
    if not enabled:
        return None
    named = {}
    for key in (f"{kind}_file", f"{kind[:-1]}_types_file"):
        text = entry.get(key)
        if text is not None and not isinstance(text, str):
            raise FormatError(f"{config}: {where}.{key}: is not a text")
        if text:
            named[key] = _file(config, manifest, f"{where}.{key}", text, allow_outside)
    if f"{kind}_file" not in named:
        raise FormatError(f"{config}: {where}.{kind}_file: missing")
    populations = entry.get("populations")
    if populations is not None and not (
        isinstance(populations, dict) and all(isinstance(each, dict) for each in populations.values())
    ):
        raise FormatError(f"{config}: {where}.populations: is not an object of objects")
    return Pair(kind, named[f"{kind}_file"], named.get(f"{kind[:-1]}_types_file"), populations or None)


def _file(config: Path, manifest: Mapping[str, str], where: str, text: str, allow_outside: bool) -> Path:
    folder = config.parent
    path = folder / _expanded(config, manifest, where, text, ())
    if not allow_outside and not path.resolve().is_relative_to(folder.resolve()):
        raise FormatError(
            f"{config}: {where}: '{text}' lies outside the folder of this file; allowed: files below it "
            "(or --allow-outside)"
        )
    if not path.is_file():
        raise FormatError(f"{config}: {where}: no file '{path}'")
    return path


def _expanded(config: Path, manifest: Mapping[str, str], where: str, text: str, seen: tuple[str, ...]) -> str:
    """A text with the manifest's variables put in; a variable may use others."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == "configdir":
            return "."
        for key in (f"${name}", f"${{{name}}}", name):
            if key in manifest:
                if name in seen:
                    raise FormatError(f"{config}: manifest.${name}: goes in a circle")
                return _expanded(config, manifest, f"manifest.{key}", manifest[key], (*seen, name))
        known = ", ".join(manifest) or "none"
        raise FormatError(f"{config}: {where}: no variable ${name} in manifest; there are {known}")

    return VARIABLE.sub(value, text)


def find_config(folder: Path) -> Path | None:
    """The circuit config in a folder, if there is one."""
    for name in (CONFIG, "config.json"):
        if (folder / name).is_file():
            return folder / name
    return None


def pair_files(files: Sequence[Path], *, without_types: bool = False) -> tuple[list[Pair], list[Path]]:
    """HDF5 files with the type tables that belong to them by name: X_nodes.h5 and X_node_types.csv.

    A table that is not among the files is looked for beside the HDF5 file. A single HDF5 file of a kind takes the
    single table of that kind, whatever its name.

    Args:
        without_types: whether a file may go without a table.

    Returns:
        The pairs, and the tables that belong to no file.

    Raises:
        FormatError: a file that is no SONATA file, or one whose table is missing.
    """
    tables = [file for file in files if file.suffix in (".csv", ".tsv")]
    kinds = {}
    for file in files:
        if file in tables:
            continue
        found = has_populations(file)
        if not found:
            raise FormatError(f"{file}: is not a SONATA file: it has neither /nodes nor /edges")
        kinds[file] = found
    pairs, used = [], set()
    for kind in ("nodes", "edges"):
        of_kind = [file for file, found in kinds.items() if kind in found]
        for file in of_kind:
            table = _table_of(file, kind, tables, alone=len(of_kind) == 1)
            if table is None and not without_types:
                name = _table_name(file, kind)
                raise FormatError(
                    f"{file}: its type table is missing: {name} beside it, or named on the command line; "
                    "--without-types reads it without"
                )
            used.add(table)
            pairs.append(Pair(kind, file, table))
    return pairs, [table for table in tables if table not in used]


def _table_name(file: Path, kind: str) -> str:
    stem = file.stem.removesuffix(f"_{kind}").removesuffix(f".{kind}")
    return f"{kind[:-1]}_types.csv" if stem == kind else f"{stem}_{kind[:-1]}_types.csv"


def _table_of(file: Path, kind: str, tables: Sequence[Path], alone: bool) -> Path | None:
    name = _table_name(file, kind)
    for table in tables:
        if table.name == name:
            return table
    fitting = [table for table in tables if table.stem.endswith(f"{kind[:-1]}_types")]
    if alone and len(fitting) == 1:
        return fitting[0]
    beside = file.parent / name
    return beside if beside.is_file() else None
