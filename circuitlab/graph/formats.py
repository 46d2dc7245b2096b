"""Edges, weights and neurons from files: CSV, npz, GraphML, by index or by name of the neurons."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Edges, FloatArray, Synapses, coalesce
from circuitlab.graph.foreign.scan import Scan
from circuitlab.graph.sonata import read_sonata_edges
from circuitlab.graph.tables import read_arrays, read_table

SOURCE, TARGET = ("source", "pre"), ("target", "post")
SONATA = (".h5", ".hdf5", ".sonata")
EDGE_FILES = (".csv", ".npz", ".graphml", *SONATA)


def read_edges(
    path: Path,
    source: Population,
    target: Population,
    where: Mapping[str, Any] | None = None,
    skip_unknown: bool = False,
    population: str | None = None,
) -> Synapses:
    """Edges between two populations from a CSV, npz, GraphML or SONATA file.

    CSV: columns source,target (or pre,post), optional weight (of all `multiplicity` synapses of the row, where that
    column is there), any others become attributes. npz: arrays of
    those names, of one length; or a matrix saved by scipy.sparse.save_npz, entry [target, source] its weight.
    GraphML: edges between nodes, neurons by the node's `name`, else its id; an undirected edge is one synapse
    in each direction. Neurons are given by name, where the population has names, or by index from 0.

    Args:
        where: keep only the rows whose columns have these values, such as {type: chemical}.
        population: which edge population of a SONATA file; needed where it holds more than one.
        skip_unknown: leave out edges of neurons that are not in the populations instead of refusing them.

    Raises:
        FormatError: `file:line: what is wrong`.
    """
    if path.suffix not in EDGE_FILES:
        raise FormatError(f"{path}: edges are read from {', '.join(EDGE_FILES)} files")
    if path.suffix == ".csv":
        table = read_table(path).where(where or {})
        pre, post = table.column(*SOURCE), table.column(*TARGET)
        others = [name for name in table.columns if name not in (*SOURCE, *TARGET, "weight")]
        columns = {name: table.values(name) for name in others}
        weight = table.numbers("weight") if "weight" in table.columns else None
        places: Sequence[str] = [f"{path}:{line}" for line in table.lines]
    else:
        if path.suffix in SONATA:
            pre, post, weight, columns = _columns(path, read_sonata_edges(path, population))
        else:
            pre, post, weight, columns = _archive(path) if path.suffix == ".npz" else _graphml(path)
        places = _Everywhere(str(path))
        if where:
            keep = _matching(path, columns, where)
            pre, post = np.asarray(pre)[keep], np.asarray(post)[keep]
            weight = None if weight is None else weight[keep]
            columns = {name: values[keep] for name, values in columns.items()}
    sources = _indices(pre, source, places, skip_unknown)
    targets = _indices(post, target, places, skip_unknown)
    known = (sources >= 0) & (targets >= 0)
    if not known.all():
        sources, targets = sources[known], targets[known]
        weight = None if weight is None else weight[known]
        columns = {name: values[known] for name, values in columns.items()}
    count = columns.pop("multiplicity", None)
    if count is not None and (count.dtype.kind not in "iu" or (count < 1).any()):
        raise FormatError(f"{path}: 'multiplicity' counts parallel synapses, whole numbers from 1")
    return Synapses(sources, targets, weight, multiplicity=count, attributes=columns)


class _Everywhere(Sequence[str]):
    """The place of every entry of a file without lines: the file."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __getitem__(self, index: Any) -> Any:
        return self.place

    def __len__(self) -> int:
        return 0


def _matching(path: Path, columns: Mapping[str, NDArray], where: Mapping[str, Any]) -> NDArray[np.bool_]:
    keep: NDArray[np.bool_] | None = None
    for name, wanted in where.items():
        if name not in columns:
            raise FormatError(f"{path}: no attribute '{name}'; there are {', '.join(columns) or 'none'}")
        allowed = wanted if isinstance(wanted, list | tuple) else [wanted]
        found = np.isin(columns[name].astype(np.str_), [str(value) for value in allowed])
        keep = found if keep is None else keep & found
    assert keep is not None
    return keep


def _indices(
    neurons: Sequence[Any] | NDArray, population: Population, places: Sequence[str], skip: bool
) -> NDArray[np.int32]:
    """Index of each neuron given by name or by index; -1 for the unknown ones where `skip`."""
    array = np.asarray(neurons)
    if array.size == 0:
        return np.empty(0, dtype=np.int32)
    by_name = {name: index for index, name in enumerate(population.names or ())}
    if array.dtype.kind in "iu" and not by_name:
        indices = array.astype(np.int64)
    else:
        words, inverse = np.unique(array.astype(np.str_), return_inverse=True)
        indices = np.array([by_name.get(word, _integer(word)) for word in words.tolist()], dtype=np.int64)[
            inverse
        ]
    wrong = (indices < 0) | (indices >= population.size)
    if wrong.any() and not skip:
        first = int(np.argmax(wrong))
        raise FormatError(f"{places[first]}: {_unknown(array[first], population)}")
    return np.where(wrong, -1, indices).astype(np.int32)


def _integer(word: str) -> int:
    return int(word) if word.isdecimal() and word.isascii() and len(word) < 10 else -1


def _unknown(neuron: Any, population: Population) -> str:
    if population.names:
        near = suggestion(str(neuron), population.names)
        return f"no neuron '{neuron}' in population '{population.name}'.{near}"
    allowed = f"population '{population.name}' has {population.size} units, 0 to {population.size - 1}"
    if not str(neuron).lstrip("-").isdigit():
        return f"no neuron '{neuron}': {allowed}, and no names"
    return f"no neuron {neuron}: {allowed}"


def _archive(path: Path) -> tuple[NDArray, NDArray, FloatArray | None, dict[str, NDArray]]:
    arrays = read_arrays(path)
    if {"format", "shape", "data"} <= arrays.keys():
        try:
            matrix = scipy.sparse.load_npz(path).tocoo()
        except (ValueError, KeyError, IndexError) as error:
            raise FormatError(f"{path}: is not a matrix saved by scipy.sparse.save_npz: {error}") from error
        return matrix.col, matrix.row, _finite(path, "weight", matrix.data), {}
    return _columns(path, arrays)


def _columns(
    path: Path, arrays: dict[str, NDArray]
) -> tuple[NDArray, NDArray, FloatArray | None, dict[str, NDArray]]:
    """Senders, receivers, weights and attributes of arrays that hold one entry for each edge."""
    found = [next((name for name in names if name in arrays), None) for names in (SOURCE, TARGET)]
    if None in found:
        missing = SOURCE if found[0] is None else TARGET
        raise FormatError(
            f"{path}: no array '{missing[0]}' or '{missing[1]}'; there are {', '.join(arrays) or 'none'}"
        )
    pre, post = (arrays.pop(str(name)) for name in found)
    for name, array in {"target": post, **arrays}.items():
        if array.ndim != 1 or pre.ndim != 1 or array.size != pre.size:
            raise FormatError(
                f"{path}: '{name}' has shape {list(array.shape)}, but 'source' {list(pre.shape)}; "
                "the arrays hold one entry for each edge"
            )
    for name, array in ((found[0], pre), (found[1], post)):
        if array.dtype.kind not in "iuU":
            raise FormatError(
                f"{path}: '{name}' holds {array.dtype}; neurons are given by integers or by names"
            )
    weight = arrays.pop("weight", None)
    return pre, post, None if weight is None else _finite(path, "weight", weight), arrays


def _finite(path: Path, name: str, values: NDArray) -> FloatArray:
    if values.dtype.kind not in "iufb":
        raise FormatError(f"{path}: '{name}' holds {values.dtype}, not real numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        first = int(np.argmax(~np.isfinite(values.ravel())))
        raise FormatError(
            f"{path}: '{name}' is {values.ravel()[first]} at entry {first}; weights are finite numbers"
        )
    return values


def _graphml(path: Path) -> tuple[list[str], list[str], FloatArray | None, dict[str, NDArray]]:
    graph = read_graphml(path)
    names = {node: str(data.get("name", node)) for node, data in graph.nodes(data=True)}
    edges = list(graph.edges(data=True))
    if not graph.is_directed():
        edges += [(post, pre, data) for pre, post, data in edges if pre != post]
    every = {name for _, _, data in edges for name in data if name != "id"}
    columns = {}
    for name in sorted(every):
        if not all(name in data for _, _, data in edges):
            raise FormatError(f"{path}: some edges have no '{name}', others do")
        columns[name] = np.array([data[name] for _, _, data in edges])
    weight = columns.pop("weight", None)
    weight = None if weight is None else _finite(path, "weight", weight)
    return [names[pre] for pre, _, _ in edges], [names[post] for _, post, _ in edges], weight, columns


def read_graphml(path: Path) -> nx.Graph:
    """Read a GraphML file by networkx, after refusing document types and entities (XML bombs, outside files).

    Raises:
        FormatError: missing, damaged, no graph, with a DOCTYPE, a node twice, an edge to no node, hyperedges.
    """

    Scan(path).run()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return nx.read_graphml(path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except (
        nx.NetworkXError,
        StopIteration,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        UserWarning,
    ) as error:
        raise FormatError(f"{path}: is not a GraphML file: {error}") from error


def read_weights(path: Path, edges: Edges, source: Population, target: Population) -> FloatArray:
    """Initial weights of existing edges from a file, shape [edge], or [parameter] for shared weights.

    .npy, or `weight` in an .npz: one number for each edge in the order of (target, source), or a matrix
    [target, source]; shared weights in the order [out_channel, in_channel, kernel_y, kernel_x]. CSV or npz
    with source and target, and matrices saved by scipy.sparse.save_npz: weights by pair, for exactly the
    projection's edges.

    Raises:
        FormatError: another shape, a missing edge, or one that the projection does not have.
    """
    if path.suffix not in (".npy", ".npz", ".csv"):
        raise FormatError(f"{path}: weights are read from .npy, .npz or .csv files")
    array = None
    if path.suffix != ".csv":
        arrays = read_arrays(path)
        array = arrays.get("array", arrays.get("weight") if not arrays.keys() & {*SOURCE, *TARGET} else None)
    if array is not None:
        return _array_weights(path, _finite(path, "weight", array), edges, source, target)
    if edges.parameters is not None:
        raise FormatError(f"{path}: shared weights are read from .npy or .npz, one array")
    given = read_edges(path, source, target)
    if given.weight is None:
        raise FormatError(f"{path}: no column 'weight'")
    return _by_pair(path, coalesce(given.source, given.target, given.weight), edges, source, target)


def _array_weights(
    path: Path, array: FloatArray, edges: Edges, source: Population, target: Population
) -> FloatArray:
    count = len(edges) if edges.parameters is None else edges.parameters.size
    if array.size == count and (array.ndim == 1 or edges.parameters is not None):
        return array.ravel()
    if array.shape == (target.size, source.size) and edges.parameters is None:
        row, column = np.nonzero(array)
        pairs = coalesce(column, row, array[row, column])
        _by_pair(path, pairs, edges, source, target, partial=True)
        return array[edges.target, edges.source]
    allowed = f"[{count}]" if edges.parameters is not None else f"[{count}] or [{target.size}, {source.size}]"
    raise FormatError(f"{path}: the weights have shape {list(array.shape)}; the projection needs {allowed}")


def _by_pair(
    path: Path, given: Edges, edges: Edges, source: Population, target: Population, partial: bool = False
) -> FloatArray:
    """Weights of the edges, looked up in given ones; `partial` allows edges without a given weight (zero)."""
    key = edges.target.astype(np.int64) * source.size + edges.source
    given_key = given.target.astype(np.int64) * source.size + given.source
    for asked, there, what in (
        (given_key, key, "a weight for {}, but the projection has no such synapse"),
        (key, given_key, "no weight for {}"),
    ):
        if partial and what.startswith("no"):
            continue
        missing = ~np.isin(asked, there, assume_unique=True)
        if missing.any():
            row, column = divmod(int(asked[np.argmax(missing)]), source.size)
            raise FormatError(f"{path}: has " + what.format(f"{source.label(column)} -> {target.label(row)}"))
    return np.zeros(len(edges)) if partial else given.weight
