"""YAML 1.2 text read with the line and column of every key and value, to show every mistake where it is.

One document per file, keys are text and stand once; anchors, aliases and `<<` merges are read, tags not.
Aliases are expanded, so their size and depth are bounded: a small file cannot fill the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from circuitlab.errors import Problem, SpecError
from circuitlab.spec.reading import MAX_DEPTH, MAX_NODES, TAG, Alias, compose, decode, read_bytes

Place = tuple["str | int", ...]
"""The way from the top of a file to a value: keys and list positions."""

NOT_A_CHARACTER = re.compile("[\\x00\ud800-\udfff]")


def dotted(path: Sequence[str | int]) -> str:
    """A path as the user reads it: `projections.l4_l23.connect.kernel[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _options(path: Sequence[str | int]) -> tuple[str, str]:
    """What the command line may call a key: `--set scale` and `--scale`."""
    return f"--set {dotted(path)}", f"--{dotted(path)}"


def printable(text: str) -> str:
    """A text in one line, line breaks and control characters written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass
class Source:
    """A file's plain data, where each part of it stands, and the mistakes found in it so far.

    Args:
        name: the file as the user named it.
        data: what the file says, as dict, list, str, int, float, bool and None.
        values, keys: 1-based (line, column) of every value, and of the key it stands under.
        overridden: parts replaced from the command line, and what to call them in messages.
    """

    name: str
    data: Any = None
    values: dict[Place, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Place, tuple[int, int]] = field(default_factory=dict)
    overridden: dict[Place, str] = field(default_factory=dict)
    found: list[tuple[tuple[int, int, int], Problem]] = field(default_factory=list)

    def report(self, path: Sequence[str | int], message: str, *, at_key: bool = False) -> None:
        """Keep a mistake; it is shown at the value, or at the key for a key that is wrong itself."""
        path = tuple(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.overridden:
                name = self.overridden[path[:length]]
                self._keep(
                    (-1, list(self.overridden).index(path[:length]), 0),
                    Problem(name, "" if name in _options(path) else dotted(path), message),
                )
                return
        place = self.keys.get(path) if at_key else None
        for length in range(len(path), -1, -1):
            place = place or self.values.get(path[:length])
        line, column = place or (0, 0)
        where = f"{self.name}:{line}:{column}" if place else self.name
        self._keep((0, line, column), Problem(where, dotted(path), message))

    def refuse(self, problem: Problem) -> None:
        """Keep a mistake of the command line."""
        self._keep((-1, len(self.overridden), 0), problem)

    def override(self, path: Place, name: str) -> None:
        """Note that a part of the data comes from the command line, under this name."""
        for known in [place for place in self.values if place[: len(path)] == path]:
            del self.values[known]
        self.overridden[path] = name
        self.values[path] = (0, 0)

    def _keep(self, order: tuple[int, int, int], problem: Problem) -> None:
        problem = Problem(problem.where, printable(problem.path), printable(problem.message))
        if all(problem != other for _, other in self.found[-20:]):
            self.found.append((order, problem))

    @property
    def problems(self) -> list[Problem]:
        """Every mistake, in file order, what came from the command line first."""
        return [problem for _, problem in sorted(self.found, key=lambda entry: entry[0])]

    def located(self, text: str) -> str:
        """A message such as `projections.a_b: what is wrong`, line by line, with the place where that key stands."""
        return "\n".join(self._located(line) for line in text.split("\n"))

    def _located(self, line: str) -> str:
        dotted_path, colon, message = line.partition(": ")
        path: list[str] = []
        for part in dotted_path.split("."):
            if (*path, part) not in self.values:
                break
            path.append(part)
        if not path or not colon:
            return line
        found = Source(self.name, self.data, self.values, self.keys, self.overridden)
        found.report(path, message)
        (problem,) = found.problems
        plain = problem.where in (f"--set {dotted_path}", f"--{dotted_path}")
        return str(Problem(problem.where, "" if plain else dotted_path, message))

    def knows(self, path: Sequence[str | int]) -> bool:
        """Whether the file, or the command line, holds this path."""
        return tuple(path) in self.values


def read(path: str | Path, text: str | None = None) -> Source:
    """Read a YAML file, or a text under the name `path`.

    Raises:
        SpecError: the file cannot be read at all. Mistakes that leave the rest readable (keys that stand
            twice, keys that are no text, tags) are kept in the source's problems, for the caller to add to.
    """
    name = str(path)
    text = decode(read_bytes(Path(path), name), name) if text is None else text
    source = Source(name)
    root = compose(text, name)
    if root is None or (isinstance(root, ScalarNode) and str(root.tag) == TAG + "null"):
        raise SpecError([Problem(name, "", "an empty file; a mapping (key: value) is wanted")])
    source.data = _Builder(source).build(root, (), ())
    return source


def parse_value(text: str, name: str) -> Any:
    """One YAML value, as given on the command line."""
    root = compose(text, name)
    if root is None:
        return None
    source = Source(name)
    value = _Builder(source).build(root, (), ())
    if source.found:
        raise SpecError([Problem(name, problem.path, problem.message) for problem in source.problems])
    return value


class _Builder:
    """Plain data from the node graph, with positions."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.nodes = 0
        self.expanding: Any = None

    def build(self, node: Any, path: Place, inside: tuple[int, ...]) -> Any:
        """The value of a node; `inside` holds the nodes around it, to see an alias that contains itself."""
        mark = node.start_mark
        self.source.values[path] = (mark.line + 1, mark.column + 1)
        if isinstance(node, Alias) and self.expanding is None:
            self.expanding = mark
            value = self.build(node, path, inside)
            self.expanding = None
            return value
        node = node.node if isinstance(node, Alias) else node
        self._enter(node, mark, inside)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        inside = (*inside, id(node))
        if str(node.tag) not in (TAG + "map", TAG + "seq"):
            self.source.report(path, f"tag '{_tag(node)}'; tags are not allowed in this file")
        if isinstance(node, SequenceNode):
            return [self.build(child, (*path, index), inside) for index, child in enumerate(node.value)]
        return self._mapping(node, path, inside)

    def _enter(self, node: Any, mark: Any, inside: tuple[int, ...]) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._stop(self.expanding or mark, f"more than {MAX_NODES} values once its aliases are expanded")
        if id(node) in inside:
            self._stop(mark, "an alias that contains itself")
        if len(inside) > MAX_DEPTH:
            self._stop(self.expanding or mark, f"nested more than {MAX_DEPTH} deep")

    def _stop(self, mark: Any, message: str) -> None:
        where = f"{self.source.name}:{mark.line + 1}:{mark.column + 1}"
        raise SpecError([Problem(where, "", message)])

    def _mapping(self, node: MappingNode, path: Place, inside: tuple[int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[Any] = []
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            key_node = key_node.node if isinstance(key_node, Alias) else key_node
            if str(key_node.tag) == TAG + "merge":
                merged.append(value_node)
                continue
            key = key_node.value if isinstance(key_node, ScalarNode) else "?"
            place, here = (mark.line + 1, mark.column + 1), (*path, key)
            if not isinstance(key_node, ScalarNode) or str(key_node.tag) not in (
                TAG + "str",
                TAG + "timestamp",
            ):
                self.source.keys[here] = place
                what = {TAG + "null": "empty", TAG + "bool": "true or false"}.get(
                    str(key_node.tag), "a number"
                )
                what = what if isinstance(key_node, ScalarNode) else "a list or mapping"
                self.source.report(
                    here, f"a key that is {what}; keys are text (put it in quotes)", at_key=True
                )
                if not isinstance(key_node, ScalarNode):
                    continue
            if key in data:
                first = self.source.keys[here][0]
                self.source.keys[here] = place
                self.source.report(
                    here, f"the key stands twice (first in line {first}); once is allowed", at_key=True
                )
                continue
            self.source.keys[here] = place
            data[key] = self.build(value_node, here, inside)
        for value_node in merged:
            outermost = self.expanding is None
            self.expanding = self.expanding or value_node.start_mark
            for part in self._merged(value_node, path):
                self._enter(part, value_node.start_mark, inside)
                data = {**self._mapping(part, path, (*inside, id(part))), **data}
            self.expanding = None if outermost else self.expanding
        return data

    def _merged(self, node: Any, path: Place) -> Iterator[MappingNode]:
        inner = node.node if isinstance(node, Alias) else node
        parts = inner.value if isinstance(inner, SequenceNode) else [inner]
        for part in parts:
            part = part.node if isinstance(part, Alias) else part
            if isinstance(part, MappingNode):
                yield part
            else:
                mark = node.start_mark
                self.source.values[(*path, "<<")] = (mark.line + 1, mark.column + 1)
                self.source.report((*path, "<<"), "only a mapping can be merged")

    def _scalar(self, node: ScalarNode, path: Place) -> Any:
        tag, value = str(node.tag), str(node.value)
        if tag in (TAG + "str", TAG + "timestamp", TAG + "merge"):
            if NOT_A_CHARACTER.search(value):
                self.source.report(path, "a character that no text holds (NUL or half a surrogate pair)")
            return value
        if tag == TAG + "null":
            return None
        if tag == TAG + "bool":
            return value.lower() == "true"
        try:
            if tag == TAG + "int":
                return _integer(value)
            if tag == TAG + "float":
                return float(
                    value.replace("_", "")
                    .replace(".inf", "inf")
                    .replace(".nan", "nan")
                    .replace(".Inf", "inf")
                    .replace(".INF", "inf")
                    .replace(".NaN", "nan")
                    .replace(".NAN", "nan")
                )
        except ValueError:
            self.source.report(path, "a number that cannot be read")
            return None
        self.source.report(path, f"tag '{_tag(node)}'; tags are not allowed in this file")
        return value


def _integer(value: str) -> int:
    digits = value.replace("_", "")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2].lower(), 10)
    return int(digits, base)


def _tag(node: Any) -> str:
    return str(node.tag).replace(TAG, "!!")


def lookup(data: Any, path: Sequence[str | int]) -> Any:
    """The part of plain data at a path, or None where there is none."""
    for part in path:
        if isinstance(part, str) and isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(part, int) and isinstance(data, list) and part < len(data):
            data = data[part]
        else:
            return None
    return data
