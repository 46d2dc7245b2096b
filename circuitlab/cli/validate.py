"""`circuitlab validate`: every mistake of every file, each with its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from circuitlab.cli.common import AllowOutside, AsJson, Scale, print_json, say
from circuitlab.errors import CircuitlabError, SpecError


def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Circuit and experiment files (YAML).")
    ],
    as_json: AsJson = False,
    scale: Scale = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Check circuit and experiment files: every mistake in one go, with its line and what is allowed.

    The circuit is also built, and an experiment's data read, so that nothing is left to be found in the run.
    """
    reports = [_check(file, allow_outside, scale) for file in files]
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            for problem in report["problems"]:
                print(problem, file=sys.stderr)
            for warning in report["warnings"]:
                say(f"{report['file']}: warning: {warning}")
            if report["ok"]:
                say(f"{report['file']}: ok ({report['what']})")
    if not all(report["ok"] for report in reports):
        raise typer.Exit(1)


def _check(file: Path, allow_outside: bool, scale: float | None) -> dict[str, Any]:
    """What is in a file, or what is wrong with it."""
    from circuitlab.experiment.training import prepare
    from circuitlab.graph.build import build
    from circuitlab.spec.advice import warnings
    from circuitlab.spec.circuit import load_circuit
    from circuitlab.spec.experiment import load_experiment
    from circuitlab.spec.kinds import kind_of

    report: dict[str, Any] = {"file": str(file), "ok": True, "what": "", "problems": [], "warnings": []}
    try:
        kind = kind_of(file)
        if kind == "circuit":
            experiment, circuit = None, load_circuit(file, allow_outside=allow_outside, scale=scale)
        else:
            scaled = () if scale is None else (f"circuit.scale={scale}",)
            experiment = load_experiment(file, scaled, allow_outside=allow_outside)
            circuit = experiment.circuit
        report["warnings"] = warnings(experiment or circuit)
        if experiment is None:
            build(circuit)
        else:
            prepare(experiment)
    except SpecError as error:
        report |= {"ok": False, "problems": [str(problem) for problem in error.problems]}
        return report
    except CircuitlabError as error:
        report |= {"ok": False, "problems": str(error).splitlines()}
        return report
    size = f"{_count(circuit.populations, 'population')}, {_count(circuit.projections, 'projection')}"
    report["what"] = f"{kind}; {size}" if experiment is None else f"{kind}; circuit {circuit.circuit}, {size}"
    return report


def _count(things: Any, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
