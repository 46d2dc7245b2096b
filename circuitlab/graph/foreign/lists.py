"""Circuits from CSV edge lists, with or without a table of the nodes, and from npz: scipy's matrices or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse

from circuitlab.errors import FormatError
from circuitlab.graph.foreign.graphs import circuit_of
from circuitlab.graph.foreign.options import Imported, Options, stem
from circuitlab.graph.formats import SOURCE, TARGET
from circuitlab.graph.memory import available_memory, gigabytes
from circuitlab.graph.tables import Table, read_arrays, read_table

NODE_NAMES = ("name", "id", "node", "neuron", "index")
EDGE_BYTES = 1000
"""Memory that an edge takes on its way through a graph, about."""
MATRIX = {"format", "shape", "data"}


def read_tables(files: Sequence[Path], options: Options) -> Imported:
    """A circuit from a CSV file of edges (source,target or pre,post), and one of nodes (name or id) if there is one.

    Raises:
        FormatError: `file:line: what is wrong`.
    """
    tables = [read_table(file) for file in files]
    edges = [table for table in tables if _is_edges(table)]
    nodes = [table for table in tables if not _is_edges(table)]
    if len(edges) != 1 or len(nodes) > 1:
        found = ", ".join(
            f"{table.path.name} ({'edges' if _is_edges(table) else 'nodes'})" for table in tables
        )
        raise FormatError(
            f"{files[0]}: one table of edges (columns source,target or pre,post) and at most one of nodes are read; "
            f"found {found}"
        )
    graph = nx.MultiDiGraph(name=stem(edges[0].path))
    if nodes:
        _add_nodes(graph, nodes[0])
    _add_edges(graph, edges[0], known=bool(nodes))
    return circuit_of(graph, edges[0].path, options, "CSV")


def _is_edges(table: Table) -> bool:
    return any(name in table.columns for name in SOURCE) and any(name in table.columns for name in TARGET)


def _add_nodes(graph: nx.MultiDiGraph, table: Table) -> None:
    key = next((name for name in NODE_NAMES if name in table.columns), None)
    if key is None:
        raise FormatError(
            f"{table.path}:1: a table of nodes needs a column {' or '.join(NODE_NAMES)}; "
            f"there are {', '.join(table.columns)}"
        )
    columns = {
        name: table.values(name).tolist()
        for name in table.columns
        if name not in (key, "x", "y", "z") or (name == "index" and key != "index")
    }
    for name in ("population", "type", "sign"):
        if name in columns:
            columns[name] = [str(value) for value in table.columns[name]]
    axes = []
    for axis in ("x", "y", "z"):
        if axis not in table.columns:
            break
        axes.append(table.numbers(axis).tolist())
    first: dict[str, int] = {}
    for row, (node, line) in enumerate(zip(table.columns[key], table.lines, strict=True)):
        if not node:
            raise FormatError(f"{table.path}:{line}: {key} is empty")
        if node in first:
            raise FormatError(
                f"{table.path}:{line}: the node '{node}' stands twice, first in line {first[node]}"
            )
        first[node] = line
        data: dict[str, Any] = {name: values[row] for name, values in columns.items()}
        if data.get("sign") == "":
            del data["sign"]
        if axes:
            data["position"] = tuple(axis[row] for axis in axes)
        graph.add_node(node, **data)


def _add_edges(graph: nx.MultiDiGraph, table: Table, known: bool) -> None:
    if EDGE_BYTES * len(table) > available_memory():
        raise FormatError(
            f"{table.path}: {len(table):,} edges take about {gigabytes(EDGE_BYTES * len(table))}; "
            f"{gigabytes(available_memory())} are available; read them by the rule 'explicit'"
        )
    pre, post = table.column(*SOURCE), table.column(*TARGET)
    if not known:
        graph.add_nodes_from(_nodes_of(pre, post))
    columns = {
        name: table.values(name).tolist()
        for name in table.columns
        if name not in (*SOURCE, *TARGET, "weight", "key", "id")
    }
    if "weight" in table.columns:
        columns["weight"] = table.numbers("weight").tolist()
    for row, (source, target) in enumerate(zip(pre, post, strict=True)):
        for end in (source, target):
            if end not in graph:
                raise FormatError(f"{table.path}:{table.lines[row]}: no node '{end}' in the table of nodes")
        graph.add_edge(source, target, **{name: values[row] for name, values in columns.items()})


def _nodes_of(pre: Sequence[str], post: Sequence[str]) -> list[str]:
    """The nodes that edges name: 0 to the largest where all are whole numbers, else in the order they come."""
    names = list(dict.fromkeys(name for pair in zip(pre, post, strict=True) for name in pair))
    if names and all(name.isdecimal() and str(int(name)) == name and len(name) < 9 for name in names):
        return [str(number) for number in range(max(map(int, names)) + 1)]
    return names


def read_npz(path: Path, options: Options) -> Imported:
    """A circuit from a matrix saved by scipy.sparse.save_npz, [target, source], or from arrays source, target, weight.

    A square matrix joins the population `neurons` with itself; another one leads from the input `inputs` to `neurons`.

    Raises:
        FormatError: damaged, other arrays, weights that are not finite.
    """
    arrays = read_arrays(path)
    graph = nx.MultiDiGraph(name=stem(path))
    columns: dict[str, Any] = {}
    if arrays.keys() >= MATRIX:
        try:
            matrix = scipy.sparse.load_npz(path).tocoo()
        except (ValueError, KeyError, IndexError) as error:
            raise FormatError(f"{path}: is not a matrix saved by scipy.sparse.save_npz: {error}") from error
        pre, post, sizes = matrix.col, matrix.row, (matrix.shape[1], matrix.shape[0])
        columns["weight"] = matrix.data
    else:
        ends = [next((arrays[name] for name in names if name in arrays), None) for names in (SOURCE, TARGET)]
        if any(end is None for end in ends):
            raise FormatError(
                f"{path}: needs the arrays source and target (or pre and post), or a matrix saved by "
                f"scipy.sparse.save_npz; it holds {', '.join(arrays) or 'nothing'}"
            )
        pre, post = (np.asarray(end) for end in ends)
        if (
            pre.ndim != 1
            or pre.shape != post.shape
            or pre.dtype.kind not in "iu"
            or post.dtype.kind not in "iu"
        ):
            raise FormatError(f"{path}: source and target are whole numbers, one of each for every edge")
        if pre.size and min(pre.min(), post.min()) < 0:
            raise FormatError(f"{path}: source and target count from 0")
        top = int(max(pre.max(), post.max())) + 1 if pre.size else 0
        sizes = top, top
        columns = {name: values for name, values in arrays.items() if name not in (*SOURCE, *TARGET)}
    count = max(len(pre), sum(sizes))
    if EDGE_BYTES * count > available_memory():
        raise FormatError(
            f"{path}: {len(pre):,} edges among {sum(sizes):,} neurons take about {gigabytes(EDGE_BYTES * count)}; "
            f"{gigabytes(available_memory())} are available"
        )
    for name, values in columns.items():
        if values.shape != pre.shape or values.dtype.kind not in "biufU":
            raise FormatError(f"{path}: '{name}' has shape {list(values.shape)}; there are {len(pre)} edges")
        if name == "weight" and not np.isfinite(values.astype(np.float64)).all():
            first = int(np.argmax(~np.isfinite(values.astype(np.float64))))
            raise FormatError(
                f"{path}: 'weight' is {values[first]} at entry {first}; weights are finite numbers"
            )
    if sizes[0] == sizes[1]:
        graph.add_nodes_from(range(sizes[1]))
        senders = list(range(sizes[0]))
    else:
        senders = [f"inputs/{number}" for number in range(sizes[0])]
        graph.add_nodes_from(senders, population="inputs", type="input")
        graph.add_nodes_from(range(sizes[1]), population="neurons")
    rows = {name: values.tolist() for name, values in columns.items()}
    for row, (source, target) in enumerate(zip(pre.tolist(), post.tolist(), strict=True)):
        graph.add_edge(senders[source], target, **{name: values[row] for name, values in rows.items()})
    return circuit_of(graph, path, options, "npz")
