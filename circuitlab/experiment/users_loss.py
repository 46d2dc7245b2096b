"""Losses of an experiment: those built in, and functions in the user's Python files."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any, cast

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.function_loss import LossFunction, checked_function
from circuitlab.dynamics.loss import LOSSES, Loss
from circuitlab.errors import CircuitError, UsersCode
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.settings import LossSpec


def loss_of(spec: ExperimentSpec, name: str, compiled: CompiledCircuit) -> Loss:
    """The loss of an output population; a function's file is run.

    Raises:
        CircuitError: the file or the function fails, or is no loss.
    """
    loss = spec.losses[name]
    if loss.name != "function":
        return LOSSES[loss.name]
    assert loss.file is not None and loss.function is not None, "files are refused without them"
    where = "loss" if isinstance(spec.loss, LossSpec) else f"loss.{name}"
    module = ModuleType("users_loss")
    module.__file__ = str(spec.folder / loss.file)
    with UsersCode(f"{where}.file: '{loss.file}' cannot be run"):
        exec(compile(_text(spec, loss.file), loss.file, "exec"), module.__dict__)
    function: Any = getattr(module, loss.function, None)
    if not callable(function):
        raise CircuitError(f"{where}.function: '{loss.function}' in '{loss.file}' is no function")
    rows = compiled.outputs[name]
    return checked_function(
        cast(LossFunction, function), rows.stop - rows.start, compiled.tau, f"{where}.function", loss.function
    )


def loss_code(spec: ExperimentSpec) -> dict[str, tuple[str, dict[str, str]]]:
    """Python files of the losses for the run file: text and attributes, by `loss/<population>`."""
    found = {}
    for name, loss in spec.losses.items():
        if loss.file is not None and loss.function is not None:
            text = _text(spec, loss.file)
            about = {"file": loss.file, "function": loss.function, "sha256": digest(text)}
            about["description"] = f"the Python file with the loss of population {name}"
            found[f"loss/{name}"] = (text, about)
    return found


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _text(spec: ExperimentSpec, file: str) -> str:
    return spec.code[file] if file in spec.code else (spec.folder / file).read_text(encoding="utf-8")
