"""From the words of an experiment file to the objects that run it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import Tensor

from circuitlab import native
from circuitlab.compile.clamp import clamped
from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import OutputLoss
from circuitlab.errors import CircuitError, DataError
from circuitlab.experiment.control import controller, pathway
from circuitlab.experiment.manipulate import as_learned, clamps, manipulated
from circuitlab.experiment.users_loss import loss_code, loss_of
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Task
from circuitlab.learn.feedback_alignment import DirectFeedbackAlignment, FeedbackAlignment
from circuitlab.learn.rules import RULES
from circuitlab.record.run_file import RunWriter
from circuitlab.solve.choose import SolveSettings
from circuitlab.solve.explain import Asked, explain
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.settings import LossSpec
from circuitlab.spec.solve_checks import group_problem

OWN_WAY_BACK = (FeedbackAlignment.name, DirectFeedbackAlignment.name)
"""Baselines whose second phase does not go by the transpose of W."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Assembled:
    """A circuit ready to run.

    Args:
        spec: the experiment.
        circuit: the graph. compiled: its kernels. system: its dynamics.
        task: how its equilibria are found while it learns.
        testing: how they are found when it is evaluated; another system where a clamp holds in one window only.
    """

    spec: ExperimentSpec
    circuit: Circuit
    compiled: CompiledCircuit
    system: CircuitSystem
    task: Task
    testing: Task


def assemble(
    spec: ExperimentSpec, device_name: str | None = None, circuit: Circuit | None = None
) -> Assembled:
    """Build, compile and control the circuit of an experiment.

    Args:
        device_name: the device of this process, where it is another than the experiment's.
        circuit: the circuit as it was drawn and manipulated, where it is not to be drawn anew.

    Raises:
        CircuitlabError: the circuit cannot be built, does not fit into memory, or the device is not there.
    """
    device = torch_device(device_name or spec.device, spec.dtype)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    if circuit is None:
        circuit = manipulated(build(spec.circuit, spec.seed), spec)
    compiled = CompiledCircuit(circuit, DTYPES[spec.dtype]).to(device)
    plain = CircuitSystem(compiled)
    system, tested = (
        CircuitSystem(clamped(compiled, held)) if held else plain
        for held in (clamps(spec, "training"), clamps(spec, "test"))
    )
    losses = OutputLoss([(loss_of(spec, name, compiled), rows) for name, rows in compiled.outputs.items()])
    solve = spec.solve
    if solve.preconditioner == "mean_response":
        graph = as_learned(circuit, spec)
        problem = group_problem(graph.strongly_connected(), graph.populations, graph.projections)
        if problem is not None:
            raise CircuitError(
                f"solve.preconditioner: mean_response cannot be had: {problem[0]}; {problem[1]}"
            )
    settings = SolveSettings(
        method=solve.method,
        tolerance=solve.tolerance,
        max_iterations=solve.max_iterations,
        depth=solve.memory,
        damping=solve.damping,
        dt_ms=solve.dt_ms,
        max_time_ms=solve.max_time_ms,
        free_tolerance=solve.free_tolerance,
        preconditioner=solve.preconditioner,
    )
    task = Task(
        system,
        losses,
        pathway(spec, plain),
        controller(spec.control.controller),
        settings,
        start="zero" if solve.start == "zero" else "free",
        on_unconverged=solve.on_unconverged,
    )
    return Assembled(spec, circuit, compiled, system, task, replace(task, system=tested))


def solver_reason(assembled: Assembled, samples: int) -> str:
    """Which solver an experiment's circuit gets, and why, a sentence or two without a full stop.

    Args:
        samples: solved together.
    """
    spec, task = assembled.spec, assembled.task
    rule = RULES[spec.learn.rule]
    hopfield = spec.learn.rule == "equilibrium_propagation" and spec.learn.energy == "hopfield"
    asked = Asked(
        samples,
        assembled.compiled.dtype,
        controls=rule.controls or rule.contrasts,
        pathway="the circuit itself" if hopfield else spec.control.pathway,
        feedback=spec.control.feedback,
        leak=task.controller.alpha,
        warm=spec.solve.start in ("class_mean", "last"),
        transposed=spec.learn.rule not in OWN_WAY_BACK,
    )
    return explain(as_learned(assembled.circuit, spec), task.settings, asked)


def torch_device(name: str, dtype: str) -> torch.device:
    """The device of a name.

    Raises:
        CircuitError: this machine or this build of torch has none.
    """
    kind, _, number = name.partition(":")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[kind]:
        allowed = ", ".join(k for k, v in there.items() if v)
        raise CircuitError(
            f"device: {name} is not available to torch on this machine; allowed here: {allowed}"
        )
    if kind == "mps" and dtype == "float64":
        raise CircuitError("dtype: mps devices compute in float32 only; use dtype: float32, or device: cpu")
    return torch.device(name)


def target_array(name: str, array: np.ndarray, size: int, loss: LossSpec, where: str = "data") -> np.ndarray:
    """Targets [sample, unit] of one output population, from labels [sample] or from targets already in that form.

    Soft targets put 1 - epsilon on the right class and epsilon / (classes - 1) on each other one.

    Raises:
        DataError: a label beyond the classes, or targets that a cross-entropy cannot have.
    """
    if array.ndim == 1 and array.dtype.kind in "iu":
        if array.max() >= size:
            sample = int(np.argmax(array >= size))
            raise DataError(
                f"{where}: target of {name}: sample {sample} has the label {array[sample]}, but {name} has "
                f"{size} units; labels count from 0 to {size - 1}"
            )
        if size == 1 and loss.name == "cross_entropy":
            raise DataError(
                f"{where}: target of {name}: a cross-entropy over one unit is always zero; use two or more"
            )
        target = np.full((len(array), size), loss.soft_targets / max(size - 1, 1))
        target[np.arange(len(array)), array] = 1 - loss.soft_targets
        return target
    if loss.soft_targets:
        raise DataError(f"loss: soft_targets spread one-hot classes, but the targets of {name} are no labels")
    if loss.name == "cross_entropy":
        wrong = (array < 0).any(1) | (np.abs(array.sum(1) - 1) > 1e-4)
        if wrong.any():
            sample = int(np.argmax(wrong))
            raise DataError(
                f"{where}: target of {name}: sample {sample} is no distribution over the {size} units (values "
                "of at least 0 that sum to 1), as cross_entropy needs; use loss: squared_error"
            )
    return array


def tensor(array: np.ndarray, like: CompiledCircuit) -> Tensor:
    """An array in the circuit's precision and on its device."""
    return torch.as_tensor(np.ascontiguousarray(array), dtype=like.dtype, device=like.device)


def begin_file(assembled: Assembled, path: str | Path, *, command: str, overwrite: bool) -> RunWriter:
    """A new run file of an assembled circuit, with the specification and the kernels that were chosen.

    Raises:
        RunFileError: the path cannot be written, or holds something that must stay.
    """
    spec, used, graph = assembled.spec, assembled.compiled.kernels_used(), assembled.circuit
    projections = {name: replace(p, kernel=used[name]) for name, p in graph.projections.items()}
    return RunWriter.create(
        path,
        circuit=replace(graph, projections=projections),
        circuit_yaml=yaml_text(spec.circuit.resolved()),
        experiment_yaml=yaml_text(spec.resolved()),
        code=loss_code(spec),
        attributes={
            "command": command,
            "seed": spec.seed,
            "device": spec.device,
            "native": native.about(),
            "threads": torch.get_num_threads(),
            "folder": str(spec.folder.absolute()),
        },
        overwrite=overwrite,
    )


def yaml_text(data: dict[str, Any]) -> str:
    """A resolved file as YAML text."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    page = io.StringIO()
    yaml.dump(data, page)
    return page.getvalue()
