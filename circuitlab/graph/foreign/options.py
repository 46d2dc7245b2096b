"""What a user may ask of an import, and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.circuit import Circuit

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
TAKEN = frozenset({"residual", "iterations", "converged", "controller", "kinks", "target", "input"})
"""Names that populations cannot have, because the run file uses them."""


@dataclass(frozen=True)
class Options:
    """Options of an import.

    Args:
        name: of the circuit; the file's or folder's own unless given.
        types: population -> type, such as {v1: pyramidal}.
        split: SONATA node population -> column, whose values part it into several populations.
        weight_scale: multiplies every weight; export divides by it again.
        allow_outside: whether a config may name files outside its folder.
        without_types: whether SONATA files may go without type tables.
    """

    name: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, str] = field(default_factory=dict)
    weight_scale: float = 1.0
    allow_outside: bool = False
    without_types: bool = False


@dataclass(frozen=True, eq=False)
class Imported:
    """An imported circuit.

    Args:
        circuit: it. notes: what a user should know, one line each. source: what was read, in a few words.
    """

    circuit: Circuit
    notes: tuple[str, ...]
    source: str


def safe_name(text: str, taken: Iterable[str] = ()) -> str:
    """A name that circuit files take, made from any text, and none of those taken."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(text)).strip("_") or "unnamed"
    if not NAME.fullmatch(name) or name in TAKEN:
        name = f"_{name}"
    taken, candidate, number = set(taken), name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def check_asked(what: str, asked: Iterable[str], there: Iterable[str], where: str) -> None:
    """Refuse an option that names a population the files do not have."""
    known = list(there)
    for name in asked:
        if name not in known:
            raise FormatError(
                f"{where}: {what}: no population '{name}'; there are {', '.join(known)}.{suggestion(name, known)}"
            )


def refuse_split(path: Path, options: Options) -> None:
    """Refuse to split the populations of a file that already says all of a circuit."""
    if options.split:
        raise FormatError(
            f"{path}: --split: its populations are a circuit's; only other programs' files are split"
        )


def stem(path: Path) -> str:
    """A circuit's name from a path."""
    path = path.resolve()
    return (path.parent.name if path.name == "network" else path.stem) or "circuit"
