"""Conditions on neurons and edges: `layer == "L23" and x < 3`, read by Python's own parser and never executed.

A condition compares attributes with numbers, texts or each other by ==, !=, <, <=, >, >=, in and not in, and joins
comparisons by and, or and not. Of edges, `source` and `target` are the two neurons: `source.layer`, `target.name`.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 1000
"""Characters of a condition at most."""
ENDS = ("source", "target")
ALLOWED = (
    "allowed: attributes, numbers, 'texts', lists of these, ==, !=, <, <=, >, >=, in, not in, and, or, not"
)
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)


@dataclass(frozen=True)
class Condition:
    """A condition that was read.

    Args:
        text: as it was written. tree: what Python's parser made of it, with allowed parts only.
    """

    text: str
    tree: ast.expr

    @property
    def attributes(self) -> tuple[str, ...]:
        """What it asks of a neuron or an edge, such as `layer` or `source.layer`, each once."""
        return tuple(dict.fromkeys(name for node in ast.walk(self.tree) for name in _named(node)))


def condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: says what is wrong with it, and at which character.
    """
    if not text.strip():
        raise ValueError("an empty condition; write one such as 'layer == \"L23\"'")
    if len(text) > LONGEST:
        raise ValueError(f"a condition of {len(text)} characters; at most {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(" ".join(text.split("\n")).strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"no condition (character {error.offset or 1}); {ALLOWED}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"no condition: too deep, or not text; {ALLOWED}") from error
    try:
        _logical(tree)
    except RecursionError as error:
        raise ValueError(f"no condition: too deep; {ALLOWED}") from error
    return Condition(text, tree)


def name_of(node: ast.expr) -> str | None:
    """The attribute that a part of a condition stands for, None where it is no attribute."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ENDS:
        return f"{node.value.id}.{node.attr}"
    return None


def constant_of(node: ast.expr) -> str | float | bool | None:
    """The number, text or truth that a part of a condition says, None where it says none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = constant_of(node.operand)
        number = isinstance(inner, int | float) and not isinstance(inner, bool)
        return (-inner if isinstance(node.op, ast.USub) else inner) if number else None  # type: ignore[operator]
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return node.value
    return None


def place(node: ast.expr) -> str:
    """Where in the text a part stands, for messages."""
    return f"(character {node.col_offset + 1})"


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        name = name_of(node)
        if name is not None:
            yield name
    elif isinstance(node, ast.Name) and node.id not in ENDS:
        yield node.id


def _logical(node: ast.expr) -> None:
    """Check a part that is true or false."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _logical(part)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _logical(node.operand)
    elif isinstance(node, ast.Compare):
        _value(node.left)
        for kind, part in zip(node.ops, node.comparators, strict=True):
            if not isinstance(kind, COMPARISONS):
                raise ValueError(f"{_words(node)} is no comparison {place(part)}; {ALLOWED}")
            if isinstance(kind, ast.In | ast.NotIn):
                if not isinstance(part, ast.List | ast.Tuple | ast.Set):
                    raise ValueError(f"a list is wanted after 'in', such as ['a', 'b'] {place(part)}")
                if not part.elts:
                    raise ValueError(f"the list after 'in' is empty {place(part)}")
                for element in part.elts:
                    if constant_of(element) is None:
                        raise ValueError(f"a list holds numbers or texts {place(element)}; {ALLOWED}")
            else:
                _value(part)
    elif name_of(node) is None:
        raise ValueError(f"{_words(node)} is neither true nor false {place(node)}; {ALLOWED}")


def _value(node: ast.expr) -> None:
    if name_of(node) is None and constant_of(node) is None:
        raise ValueError(f"{_words(node)} is no attribute, number or text {place(node)}; {ALLOWED}")


def _words(node: ast.expr) -> str:
    text = ast.unparse(node)
    return f"'{text if len(text) <= 40 else text[:37] + '...'}'"
