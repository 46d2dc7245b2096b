"""SONATA's node and edge populations as they stand in their files: ids, types, groups of attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.foreign.hdf5 import check_sizes, column, item, opened, subgroups, whole_numbers
from circuitlab.graph.foreign.type_tables import TypeTable

LIBRARY = "@library"
DYNAMICS = "dynamics_params"
TEXT = "text"


@dataclass(frozen=True)
class Column:
    """One dataset of a group: its type, `text` for strings, and the words that an enumeration's numbers stand for."""

    dtype: str
    library: tuple[str, ...] | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"dtype": self.dtype} | ({} if self.library is None else {"library": list(self.library)})


@dataclass(frozen=True, eq=False)
class Entries:
    """The nodes or edges of a population, in the file's order.

    Args:
        path, name: file and population. rows: how many.
        type_ids: type of each, int64, shape [row]; None where the file has none.
        group_ids: which group holds the attributes of each, int64, shape [row].
        groups: group -> name of a dataset -> its type.
        columns: name of a dataset -> values of all rows, shape [row]; rows of groups that lack it hold zero, an
            empty text or nan.
    """

    path: Path
    name: str
    rows: int
    type_ids: NDArray[np.int64] | None
    group_ids: NDArray[np.int64]
    groups: Mapping[str, Mapping[str, Column]]
    columns: Mapping[str, NDArray]

    def having(self, name: str) -> NDArray[np.bool_]:
        """Which rows have a value in the dataset, shape [row]."""
        holding = [int(group) for group, columns in self.groups.items() if name in columns]
        return np.isin(self.group_ids, holding)


@dataclass(frozen=True, eq=False)
class Nodes:
    """A node population: its entries, node ids of shape [node], and type table (None without types)."""

    entries: Entries
    ids: NDArray[np.int64]
    types: TypeTable | None = None
    virtual: bool | None = None

    @property
    def name(self) -> str:
        return self.entries.name


@dataclass(frozen=True, eq=False)
class EdgeList:
    """An edge population: its entries, names of two node populations, their node ids of shape [edge], types."""

    entries: Entries
    source: str
    target: str
    source_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    types: TypeTable | None = None

    @property
    def name(self) -> str:
        return self.entries.name


@dataclass
class _Merged:
    """Columns of several groups, put together row by row."""

    rows: int
    values: dict[str, NDArray] = field(default_factory=dict)

    def add(self, path: Path, name: str, at: NDArray, array: NDArray) -> None:
        if len(at) == self.rows:
            whole = np.empty_like(array)
            whole[at] = array
            self.values[name] = whole
            return
        before = self.values.get(name)
        if before is None:
            fill = np.nan if array.dtype.kind == "f" else np.zeros(1, dtype=array.dtype)[0]
            before = np.full(self.rows, fill, dtype=array.dtype)
        if (before.dtype.kind == "U") != (array.dtype.kind == "U"):
            raise FormatError(f"{path}: '{name}' is text in one group and numbers in another")
        joined = before.astype(np.promote_types(before.dtype, array.dtype))
        joined[at] = array
        self.values[name] = joined


def has_populations(path: Path) -> list[str]:
    """Which of nodes and edges a SONATA file holds."""
    with opened(path) as file:
        return [kind for kind in ("nodes", "edges") if kind in file]


def read_nodes(path: Path, chosen: list[str] | None = None) -> list[Nodes]:
    """Every node population of a SONATA file, or the chosen ones.

    Raises:
        FormatError: no SONATA nodes, damaged, ids that stand twice.
    """
    with opened(path) as file:
        found = []
        for name, group in _populations(path, file, "nodes", chosen).items():
            entries = _entries(path, name, group, "node")
            if "node_id" in group:
                ids = whole_numbers(path, group, "node_id", entries.rows)
            else:
                ids = np.arange(entries.rows, dtype=np.int64)
            unique, counts = np.unique(ids, return_counts=True)
            if (counts > 1).any():
                raise FormatError(
                    f"{path}: {group.name}/node_id has {unique[np.argmax(counts > 1)]} twice; ids differ"
                )
            found.append(Nodes(entries, ids))
        return found


def read_edges(path: Path, chosen: list[str] | None = None) -> list[EdgeList]:
    """Every edge population of a SONATA file, or the chosen ones.

    Raises:
        FormatError: no SONATA edges, damaged, no names of node populations.
    """
    with opened(path) as file:
        return [
            read_edge_list(path, name, group, need_populations=True)
            for name, group in _populations(path, file, "edges", chosen).items()
        ]


def read_edge_list(path: Path, name: str, group: h5py.Group, *, need_populations: bool) -> EdgeList:
    """One edge population of an open SONATA file.

    Args:
        need_populations: whether the edges must say which node populations they join.
    """
    entries = _entries(path, name, group, "edge")
    ends = {}
    for end in ("source", "target"):
        ids = whole_numbers(path, group, f"{end}_node_id", entries.rows)
        population = group[f"{end}_node_id"].attrs.get("node_population")
        if isinstance(population, bytes):
            population = population.decode("utf-8", "replace")
        if not isinstance(population, str) and need_populations:
            raise FormatError(
                f"{path}: {group.name}/{end}_node_id has no attribute 'node_population', the population of its nodes"
            )
        ends[end] = ids, str(population or "")
    (source_ids, source), (target_ids, target) = ends["source"], ends["target"]
    return EdgeList(entries, source, target, source_ids, target_ids)


def _populations(path: Path, file: h5py.File, kind: str, chosen: list[str] | None) -> dict[str, h5py.Group]:
    root = item(path, file, kind)
    if not isinstance(root, h5py.Group):
        raise FormatError(f"{path}: is not a SONATA {kind[:-1]} file: it has no group /{kind}")
    found = subgroups(path, root)
    if not found:
        raise FormatError(f"{path}: /{kind} holds no population")
    for name in chosen or ():
        if name not in found:
            raise FormatError(
                f"{path}: no {kind[:-1]} population '{name}'; there are {', '.join(found)}.{suggestion(name, found)}"
            )
    return found if chosen is None else {name: found[name] for name in chosen}


def _entries(path: Path, name: str, group: h5py.Group, kind: str) -> Entries:
    inner = {key: each for key, each in subgroups(path, group).items() if key.isdecimal()}
    for key in (f"{kind}_type_id", f"{kind}_group_id", f"{kind}_group_index", "node_id", "source_node_id"):
        item(path, group, key)
    read = [each for key in group if isinstance(each := group.get(key), h5py.Dataset)]
    libraries = {key: _libraries(path, each) for key, each in inner.items()}
    datasets = {key: _datasets(path, each) for key, each in inner.items()}
    check_sizes(path, [*read, *(each for found in datasets.values() for each in found.values())])
    rows = _count(path, group, kind)
    types = None
    if f"{kind}_type_id" in group:
        types = _type_ids(path, group, f"{kind}_type_id", rows)
    ids, index = _groups(path, group, kind, rows, inner)
    merged, kinds = _Merged(rows), {}
    for key in sorted(inner, key=int):
        members = np.flatnonzero(ids == int(key))
        kinds[key] = {}
        for dataset_name, dataset in datasets[key].items():
            values = column(path, dataset)
            if len(members) and index[members].max() >= len(values):
                row = int(members[np.argmax(index[members] >= len(values))])
                raise FormatError(
                    f"{path}: {group.name}/{kind}_group_index is {index[row]} in row {row}, "
                    f"but {dataset.name} has {len(values)} rows"
                )
            words = libraries[key].get(dataset_name)
            kinds[key][dataset_name] = Column(TEXT if values.dtype.kind == "U" else values.dtype.str, words)
            values = values[index[members]]
            merged.add(
                path, dataset_name, members, values if words is None else _named(path, dataset, values, words)
            )
    return Entries(path, name, rows, types, ids, kinds, merged.values)


def _type_ids(path: Path, group: h5py.Group, name: str, rows: int) -> NDArray[np.int64]:
    """Type ids; -1 stands for no type in files of some programs."""
    values = column(path, group[name], rows)
    if values.dtype.kind == "i" and values.size and (values == -1).all():
        return values.astype(np.int64)
    return whole_numbers(path, group, name, rows)


def _count(path: Path, group: h5py.Group, kind: str) -> int:
    for name in (f"{kind}_type_id", "node_id" if kind == "node" else "source_node_id"):
        found = item(path, group, name)
        if isinstance(found, h5py.Dataset) and found.ndim == 1:
            return len(found)
    raise FormatError(f"{path}: {group.name} has no dataset '{kind}_type_id'")


def _groups(
    path: Path, group: h5py.Group, kind: str, rows: int, inner: Mapping[str, h5py.Group]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group and row in the group of every row."""
    names = f"{kind}_group_id", f"{kind}_group_index"
    if all(name not in group for name in names) and len(inner) <= 1:
        return np.full(rows, int(next(iter(inner), "0")), dtype=np.int64), np.arange(rows, dtype=np.int64)
    ids, index = (whole_numbers(path, group, name, rows) for name in names)
    for number in np.unique(ids).tolist():
        if str(number) not in inner:
            row = int(np.argmax(ids == number))
            raise FormatError(
                f"{path}: {group.name}/{names[0]} is {number} in row {row}, but there is no such group"
            )
    return ids, index


def _datasets(path: Path, group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Datasets of a group, those of dynamics_params under `dynamics_params/<name>`."""
    found: dict[str, h5py.Dataset] = {}
    for name in map(str, group):
        inside = item(path, group, name)
        if isinstance(inside, h5py.Dataset):
            found[name] = inside
        elif isinstance(inside, h5py.Group) and name == DYNAMICS:
            found |= {f"{DYNAMICS}/{key}": each for key, each in _datasets(path, inside).items()}
        elif isinstance(inside, h5py.Group) and name != LIBRARY:
            raise FormatError(
                f"{path}: {inside.name} is a group; {DYNAMICS} and {LIBRARY} are the groups that are read here"
            )
    return found


def _libraries(path: Path, group: h5py.Group) -> dict[str, tuple[str, ...]]:
    """Words of the enumerations of a group."""
    library = item(path, group, LIBRARY) if LIBRARY in group else None
    if not isinstance(library, h5py.Group):
        return {}
    words = {name: column(path, item(path, library, name)) for name in map(str, library)}
    return {name: tuple(values.astype(np.str_).tolist()) for name, values in words.items()}


def _named(path: Path, dataset: h5py.Dataset, values: NDArray, words: tuple[str, ...]) -> NDArray:
    if values.dtype.kind not in "iu" or (values.size and (values.min() < 0 or values.max() >= len(words))):
        raise FormatError(f"{path}: {dataset.name} has values outside its {LIBRARY}, 0 to {len(words) - 1}")
    return np.array(words, dtype=np.str_)[values] if len(words) else values.astype(np.str_)
