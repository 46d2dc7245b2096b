"""Which kind of file this is: circuit, experiment or hypothesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from circuitlab.errors import Problem, SpecError
from circuitlab.spec.source import Source, read

Kind = Literal["circuit", "experiment", "hypothesis"]
CIRCUIT_KEYS = {"populations", "projections", "layers"}
EXPERIMENT_KEYS = {"data", "control", "learn", "solve", "record", "loss", "manipulations"}


def kind_of_data(data: Any) -> Kind | None:
    """The kind that the keys at the top speak for, or None."""
    if not isinstance(data, dict):
        return None
    keys = set(data)
    if "hypothesis" in keys:
        return "hypothesis"
    if "experiment" in keys:
        return "experiment"
    if keys & CIRCUIT_KEYS:
        return "circuit"
    if keys & EXPERIMENT_KEYS:
        return "experiment"
    return "circuit" if "circuit" in keys else None


def kind_of(path: str | Path) -> Kind:
    """The kind of a file.

    Raises:
        SpecError: the file cannot be read, or is none of the three.
    """
    source = read(path)
    kind = kind_of_data(source.data)
    if kind is None:
        raise SpecError(
            [
                Problem(
                    source.name,
                    "",
                    "neither a circuit nor an experiment; a circuit file has the keys 'circuit',"
                    " 'populations' and 'projections', an experiment file 'experiment', 'circuit'"
                    " and 'data'",
                )
            ]
        )
    return kind


def expect(source: Source, wanted: Kind) -> None:
    """Refuse a file of another kind in one line.

    Raises:
        SpecError: not a mapping, or a file of another kind.
    """
    if not isinstance(source.data, dict):
        raise SpecError(
            [Problem(source.name, "", f"not {article(wanted)} file; a mapping (key: value) is wanted")]
        )
    kind = kind_of_data(source.data)
    if kind == "hypothesis":
        raise SpecError(
            [
                Problem(
                    source.name,
                    "",
                    "hypothesis files are not built yet; allowed: circuit and experiment files",
                )
            ]
        )
    if kind is not None and kind != wanted:
        raise SpecError(
            [Problem(source.name, "", f"this is {article(kind)} file; {article(wanted)} file is wanted")]
        )


def article(kind: str) -> str:
    """`a circuit`, `an experiment`."""
    return f"{'an' if kind == 'experiment' else 'a'} {kind}"
