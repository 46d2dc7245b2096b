"""One way in and one way out for every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.adapt import adapted
from circuitlab.graph.foreign.folder import write_folder
from circuitlab.graph.foreign.graphs import GRAPHML, JSON, read_graph, write_graphml, write_json
from circuitlab.graph.foreign.lists import read_npz, read_tables
from circuitlab.graph.foreign.options import Imported, Options, refuse_split
from circuitlab.graph.foreign.place import whole_folder
from circuitlab.graph.foreign.sonata_in import is_sonata_folder, read_sonata
from circuitlab.graph.foreign.sonata_out import write_sonata
from circuitlab.graph.memory import available_memory, gigabytes
from circuitlab.graph.tables import read_json
from circuitlab.spec.circuit import load_circuit

READ = (".json", ".h5", ".hdf5", ".sonata", ".graphml", ".xml", ".csv", ".npz", ".yaml", ".yml")
HDF5 = (".h5", ".hdf5", ".sonata")
WRITERS: dict[str, Callable[[Circuit, Path], None]] = {
    "sonata": write_sonata,
    "graphml": write_graphml,
    "json": write_json,
    "csv": lambda circuit, folder: write_folder(circuit, folder, "csv"),
    "npz": lambda circuit, folder: write_folder(circuit, folder, "npz"),
}
BYTES = {"sonata": 150, "npz": 100, "csv": 800, "graphml": 4000, "json": 4000}
"""Memory that an edge takes on its way into a format, about."""


def write_format(circuit: Circuit, kind: str, folder: str | Path, *, force: bool = False) -> None:
    """Write a circuit into a folder of another program's files; the folder is made whole or not at all.

    Args:
        kind: sonata, graphml, json, csv or npz.
        folder: a new or empty one. force: whether a folder that circuitlab wrote may be replaced.

    Raises:
        FormatError: no such format, the folder exists, or the format cannot hold the circuit.
    """
    if kind not in WRITERS:
        raise FormatError(f"no format '{kind}'; allowed: {', '.join(WRITERS)}.{suggestion(kind, WRITERS)}")
    refuse_too_large(circuit, kind, folder)
    with whole_folder(Path(folder), force) as place:
        WRITERS[kind](circuit, place)


def refuse_too_large(circuit: Circuit, kind: str, folder: str | Path) -> None:
    """Refuse a circuit whose way into a format takes more memory than there is.

    Raises:
        FormatError: it does.
    """
    need = edge_rows(circuit) * BYTES[kind]
    if need > available_memory():
        leaner = ", ".join(each for each in BYTES if BYTES[each] < BYTES[kind])
        raise FormatError(
            f"{folder}: {edge_rows(circuit):,} edges take about {gigabytes(need)} on their way to {kind}; "
            f"{gigabytes(available_memory())} are available" + (f"; {leaner} take less" if leaner else "")
        )


def edge_rows(circuit: Circuit) -> int:
    """How many rows of edges a file of the circuit has."""
    return sum(len(p.edges if p.edges.rows is None else p.edges.rows) for p in circuit.projections.values())


def read_foreign(files: Sequence[str | Path], options: Options | None = None) -> Imported:
    """A circuit from other programs' files, or from a folder of them.

    Args:
        files: SONATA (circuit_config.json; or files of nodes, edges and types), GraphML, node-link JSON, CSV (edges,
            and nodes), npz, a circuit file, or one folder that holds one of these.

    Raises:
        FormatError: one line: file, line or dataset, what is wrong, what is allowed.
    """
    options = options or Options()
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.exists():
            raise FormatError(f"{path}: there is no such file or folder")
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise FormatError(f"{paths[0]}: a folder is given alone, or files")
        return _folder(paths[0], options)
    for path in paths:
        if path.suffix not in READ:
            raise FormatError(f"{path}: is of no kind that is read; allowed: {', '.join(READ)}")
    kinds = {path.suffix for path in paths}
    if kinds & set(HDF5) or (len(paths) == 1 and _is_config(paths[0])):
        return read_sonata(paths, options)
    if kinds == {".csv"}:
        return adapted(read_tables(paths, options), options)
    if len(paths) > 1:
        raise FormatError(f"{paths[1]}: {paths[0].suffix} files are read one at a time")
    return adapted(_single(paths[0], options), options)


def _single(path: Path, options: Options) -> Imported:
    if path.suffix == ".npz":
        return read_npz(path, options)
    if path.suffix in (".yaml", ".yml"):
        refuse_split(path, options)
        return Imported(build(load_circuit(path, allow_outside=options.allow_outside)), (), "circuit file")
    return read_graph(path, options)


def _folder(folder: Path, options: Options) -> Imported:
    for name in ("circuit.yaml", GRAPHML, JSON):
        if (folder / name).is_file():
            return adapted(_single(folder / name, options), options)
    if is_sonata_folder(folder):
        return read_sonata([folder], options)
    tables = sorted(folder.glob("*.csv"))
    if tables:
        return adapted(read_tables(tables, options), options)
    raise FormatError(
        f"{folder}: holds nothing that is read: circuit_config.json, SONATA's .h5 files, circuit.yaml, {GRAPHML}, "
        f"{JSON}, or CSV tables"
    )


def _is_config(path: Path) -> bool:
    return path.suffix == ".json" and "networks" in read_json(path)
