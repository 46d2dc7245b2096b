"""Which neurons of a population, and which edges of a projection, are recorded."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import suggestion
from circuitlab.spec.base import listed
from circuitlab.spec.probes import SLICE, WILD, ProbeSpec, indices
from circuitlab.spec.where import ENDS, Condition, condition, constant_of, name_of, place

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit, Population, Projection

Attributes = Mapping[str, Callable[[], NDArray]]
"""How to get each attribute of neurons or edges, shape [unit] or [edge]."""
AXES = ("x", "y", "z")


class SelectionError(ValueError):
    """A probe selects nothing, or something that is not there.

    Args:
        key: of the probe that is wrong, empty where it is the probe itself.
        absent: whether the population or projection has nothing of the kind (one of many is then passed over).
    """

    def __init__(self, key: str, text: str, absent: bool = False) -> None:
        super().__init__(text)
        self.key, self.absent = key, absent


def nothing(passed: list[SelectionError]) -> SelectionError:
    """What to say where a pattern selects nothing at all.

    Args:
        passed: why each of the populations or projections was passed over.
    """
    if not passed:
        return SelectionError("", "nothing is selected")
    told = next((error for error in passed if error.key == "where"), passed[0])
    return SelectionError(told.key, f"nothing is selected; for one, {told}" if len(passed) > 1 else str(told))


def neurons(spec: ProbeSpec, population: Population) -> list[int]:
    """The neurons that a probe selects in a population, each once.

    Raises:
        SelectionError: none, or some that are not there.
    """
    if spec.names is not None:
        found = _named(spec.names, population, "names")
    else:
        try:
            found = indices(spec.units, population.size, "neuron", f"'{population.name}'", "neurons of ")
        except ValueError as error:
            raise SelectionError("units", str(error)) from error
    if spec.where is None:
        return found
    kept = _holds(spec.where, node_attributes(population), population.size, f"neuron of '{population.name}'")
    found = [number for number in found if kept[number]]
    if not found:
        raise SelectionError(
            "where", f"no neuron of '{population.name}' is such that {spec.where}", absent=True
        )
    return found


def edges(spec: ProbeSpec, circuit: Circuit, projection: Projection) -> NDArray[np.int64]:
    """Rows of /edges of the edges that a probe selects in a projection, each once.

    Raises:
        SelectionError: none, or some that are not there.
    """
    name, size = f"'{projection.name}'", len(projection.edges)
    try:
        found = np.array(indices(spec.edges, size, "edge", name, "edges of "), dtype=np.int64)
    except ValueError as error:
        raise SelectionError("edges", str(error)) from error
    for end in ENDS:
        parts = getattr(spec, end)
        if parts is not None:
            population = circuit.populations[getattr(projection, end)]
            numbers = np.zeros(population.size, dtype=bool)
            numbers[_mixed(parts, population, end)] = True
            found = found[numbers[getattr(projection.edges, end)[found]]]
            if not len(found):
                way = "comes from" if end == "source" else "goes to"
                raise SelectionError(end, f"no edge of {name} {way} these neurons")
    if spec.where is not None:
        found = found[
            _holds(spec.where, edge_attributes(circuit, projection), size, f"edge of {name}")[found]
        ]
        if not len(found):
            raise SelectionError("where", f"no edge of {name} is such that {spec.where}", absent=True)
    return found


def node_attributes(population: Population) -> Attributes:
    """What can be asked of a population's neurons; the file's own columns before what the population says of all."""
    size = population.size
    found: dict[str, Callable[[], NDArray]] = {"index": lambda: np.arange(size)}
    for key in ("type", "layer", "sign", "activation"):
        value = getattr(population, key)
        if value is not None:
            found[key] = lambda value=value: np.full(size, value)
    found["population"] = lambda: np.full(size, population.name)
    if population.names is not None:
        names = population.names
        found["name"] = lambda: np.array(names)
    if population.positions is not None:
        for axis, values in zip(AXES, population.positions.T, strict=False):
            found[axis] = lambda values=values: values
    return {**found, **{key: lambda values=values: values for key, values in population.attributes.items()}}


def edge_attributes(circuit: Circuit, projection: Projection) -> Attributes:
    """What can be asked of a projection's edges: their own columns, and everything of their two neurons."""
    edges = projection.edges
    found: dict[str, Callable[[], NDArray]] = {
        "index": lambda: np.arange(len(edges)),
        "weight": lambda: edges.weight,
        "multiplicity": lambda: edges.multiplicity,
    }
    found |= {key: lambda values=values: values for key, values in edges.attributes.items()}
    for end in ENDS:
        found[end] = lambda end=end: getattr(edges, end)
        of = node_attributes(circuit.populations[getattr(projection, end)])
        for key, read in of.items():
            found[f"{end}.{key}"] = lambda end=end, read=read: read()[getattr(edges, end)]
    return found


def matching(names: Iterable[str], patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that each pattern (or name) stands for, each once, and the patterns that stand for none."""
    known, found, missing = list(names), dict[str, None](), []
    place = set(known)
    for pattern in patterns:
        exact = pattern in place or not WILD.search(pattern)
        fits = (
            [pattern] * (pattern in place)
            if exact
            else [name for name in known if fnmatchcase(name, pattern)]
        )
        found.update(dict.fromkeys(fits))
        if not fits:
            missing.append(pattern)
    return list(found), missing


def _named(patterns: Iterable[str], population: Population, key: str) -> list[int]:
    if population.names is None:
        other = "numbers" if key in ENDS else "units"
        raise SelectionError(key, f"the neurons of '{population.name}' have no names; select them by {other}")
    found, missing = matching(population.names, patterns)
    if missing:
        wild = WILD.search(missing[0]) is not None
        near = "" if wild else suggestion(missing[0], population.names)
        what = f"no neuron's name is like '{missing[0]}'" if wild else f"no neuron '{missing[0]}'"
        raise SelectionError(key, f"{what} in '{population.name}'{'.' if near else ''}{near}")
    if not found:
        raise SelectionError(key, "no neuron is selected")
    number = {name: index for index, name in enumerate(population.names)}
    return [number[name] for name in found]


def _mixed(parts: Iterable[int | str], population: Population, key: str) -> list[int]:
    """Neurons by numbers, slices, names and patterns together."""
    found: list[int] = []
    for part in parts:
        if isinstance(part, str) and not SLICE.fullmatch(part):
            found += _named((part,), population, key)
            continue
        try:
            found += indices((part,), population.size, "neuron", f"'{population.name}'", "neurons of ")
        except ValueError as error:
            raise SelectionError(key, str(error)) from error
    if not found:
        raise SelectionError(key, f"no neuron is selected; '{population.name}' has {population.size}")
    return found


def _holds(text: str, attributes: Attributes, size: int, what: str) -> NDArray[np.bool_]:
    """For which neurons or edges a condition holds.

    Raises:
        SelectionError: it asks for something that they do not have, or compares numbers with texts.
    """
    read: Condition = condition(text)
    for name in read.attributes:
        if name not in attributes:
            near = suggestion(name, attributes)
            raise SelectionError(
                "where",
                f"no {what} has '{name}'; there are {listed(attributes)}{'.' if near else ''}{near}",
                absent=True,
            )
    try:
        return _Evaluation({name: attributes[name]() for name in _asked(read, attributes)}, size).of(
            read.tree
        )
    except ValueError as error:
        raise SelectionError("where", str(error)) from error


def _asked(read: Condition, attributes: Attributes) -> list[str]:
    names = {name_of(node) for node in ast.walk(read.tree) if isinstance(node, ast.expr)}
    return [name for name in names if name is not None and name in attributes]


class _Evaluation:
    """A condition on arrays."""

    def __init__(self, arrays: Mapping[str, NDArray], size: int) -> None:
        self.arrays, self.size = arrays, size

    def of(self, node: ast.expr) -> NDArray[np.bool_]:
        """Where a part of the condition holds."""
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce([self.of(part) for part in node.values])
        if isinstance(node, ast.UnaryOp):
            return ~self.of(node.operand)
        if isinstance(node, ast.Compare):
            found, left = np.ones(self.size, dtype=bool), node.left
            for kind, right in zip(node.ops, node.comparators, strict=True):
                found &= self._compared(kind, left, right)
                left = right
            return found
        name = name_of(node)
        array = self.arrays.get(name or "")
        if array is None or array.dtype.kind != "b":
            raise ValueError(f"'{name}' is neither true nor false {place(node)}; compare it with something")
        return array.astype(bool)

    def _compared(self, kind: ast.cmpop, left: ast.expr, right: ast.expr) -> NDArray[np.bool_]:
        one = self._value(left)
        if isinstance(kind, ast.In | ast.NotIn):
            assert isinstance(right, ast.List | ast.Tuple | ast.Set)
            others = [np.asarray(constant_of(part)) for part in right.elts]
            for other, part in zip(others, right.elts, strict=True):
                _same_kind(one, other, left, part)
            inside = np.isin(one, np.array([other.item() for other in others]))
            return np.broadcast_to(~inside if isinstance(kind, ast.NotIn) else inside, (self.size,))
        other = self._value(right)
        word = _same_kind(one, other, left, right)
        if word != "a number" and not isinstance(kind, ast.Eq | ast.NotEq):
            raise ValueError(f"{word} has no order {place(right)}; it is compared by ==, != and in")
        compare = {
            ast.Eq: np.equal,
            ast.NotEq: np.not_equal,
            ast.Lt: np.less,
            ast.LtE: np.less_equal,
            ast.Gt: np.greater,
            ast.GtE: np.greater_equal,
        }[type(kind)]
        return np.broadcast_to(compare(one, other), (self.size,))

    def _value(self, node: ast.expr) -> NDArray:
        constant = constant_of(node)
        if constant is not None:
            return np.asarray(constant)
        array = self.arrays[name_of(node) or ""]
        return array.astype(np.str_) if array.dtype.kind == "O" else array


def _same_kind(one: NDArray, other: NDArray, left: ast.expr, right: ast.expr) -> str:
    words = {"U": "a text", "S": "a text", "b": "true or false"}
    first, second = (words.get(array.dtype.kind, "a number") for array in (one, other))
    if first != second:
        raise ValueError(
            f"'{ast.unparse(left)}' is {first} and {ast.unparse(right)} is {second} {place(right)}; they are never "
            "equal"
        )
    return first
