"""Free and controlled equilibria of given inputs and targets, written so that numpy alone can check them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from circuitlab.compile.kernels.low_rank import LowRank
from circuitlab.data.arrays import read_arrays
from circuitlab.errors import CircuitError, DataError
from circuitlab.experiment.activity import VARIABLES, Activity, described
from circuitlab.experiment.assemble import (
    Assembled,
    assemble,
    begin_file,
    solver_reason,
    target_array,
    tensor,
)
from circuitlab.experiment.manipulate import clamps
from circuitlab.learn.base import Batch
from circuitlab.learn.rules import rule_of
from circuitlab.record.run_file import RunWriter
from circuitlab.solve.base import Solution
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.manipulations import ClampSpec

MEANING = {
    "soma": ("phi", "somatic potential"),
    "rate": ("sigma(phi)", "firing rate"),
    "basal": (
        "W sigma(phi) + U x + b",
        "what basal and somatic synapses, gap junctions and the bias predict",
    ),
    "apical": ("psi + W_apical sigma(phi)", "apical potential"),
    "control": ("psi", "control, the neuron's credit signal"),
}


@dataclass(frozen=True)
class Found:
    """Equilibria of a batch.

    Args:
        assembled: the circuit.
        batch: inputs, and targets (of shape [output unit, 0] where none were given).
        free, controlled: the equilibria; `controlled` is None without targets.
        updates: mean over converged samples of the rule's update, by parameter name.
    """

    assembled: Assembled
    batch: Batch
    free: Solution
    controlled: Solution | None
    updates: dict[str, torch.Tensor]

    @property
    def solver_reason(self) -> str:
        """Which solver the circuit gets, and why."""
        return solver_reason(self.assembled, self.batch.x.shape[1])


def arrays_for(path: Path, sizes: dict[str, int], what: str) -> dict[str, np.ndarray]:
    """One array per population from a file: an npz with an array of each name, or one array with their units in turn.

    Returns:
        Floats [sample, unit], or labels [sample] where there is one population.

    Raises:
        DataError: the file is unreadable or does not fit the populations.
    """
    arrays = read_arrays(path)
    if set(arrays) >= set(sizes):
        found = {name: arrays[name] for name in sizes}
    elif len(arrays) == 1:
        (array,) = arrays.values()
        total = sum(sizes.values())
        if array.ndim == 1 and len(sizes) == 1:
            return dict.fromkeys(sizes, array)
        if array.ndim == 1 or array.shape[1] != total:
            units = f"{array.shape[1]} values a sample" if array.ndim == 2 else "one whole number a sample"
            raise DataError(
                f"{path}: has {units}, but the {what} populations have {total} units "
                f"({', '.join(f'{name} {size}' for name, size in sizes.items())}); give an array [sample, {total}]"
            )
        stops = np.cumsum(list(sizes.values()))[:-1]
        found = dict(zip(sizes, np.split(array, stops, axis=1), strict=True))
    else:
        missing = next(name for name in sizes if name not in arrays)
        raise DataError(
            f"{path}: no array '{missing}'; it holds {', '.join(arrays)}; give one per {what} population"
        )
    for name, size in sizes.items():
        array = found[name]
        if array.ndim == 2 and array.shape[1] != size:
            raise DataError(
                f"{path}: {name}: has {array.shape[1]} values a sample, but {name} has {size} units"
            )
    return found


def find_equilibria(spec: ExperimentSpec, inputs: Path, targets: Path | None) -> Found:
    """Solve a circuit for the samples in a file.

    Raises:
        CircuitlabError: the files do not fit, or the circuit cannot be built.
    """
    if spec.solve.start in ("class_mean", "last"):
        raise CircuitError(
            f"solve.start: {spec.solve.start} comes from earlier updates, and here is none; allowed: free, zero"
        )
    if spec.solve.check_energy is not None:
        raise CircuitError(
            spec.located(
                "solve.check_energy: it checks samples during training, and nothing is trained here; leave it out "
                "(solve.method=levenberg descends the energy for every sample)"
            )
        )
    if spec.solve.preconditioner == "mean_response" and targets is None:
        raise CircuitError(
            "solve.preconditioner: mean_response serves the controlled equilibrium, and without a target only the "
            "free one is found; allowed here: auto, none"
        )
    for name, manipulation in spec.manipulations.items():
        if isinstance(manipulation, ClampSpec) and manipulation.during == "test":
            raise CircuitError(
                spec.located(
                    f"manipulations.{name}: equilibria are shown as learning finds them, and this clamp holds in tests "
                    "alone; allowed here: during training or both"
                )
            )
    populations = spec.circuit.populations
    given = arrays_for(inputs, {name: populations[name].size for name in spec.circuit.inputs}, "input")
    for name, array in given.items():
        if array.ndim == 1:
            raise DataError(f"{inputs}: {name}: holds whole numbers; an input needs floats [sample, unit]")
    wanted = None
    if targets is not None:
        wanted = arrays_for(
            targets, {name: populations[name].size for name in spec.circuit.outputs}, "output"
        )
        counts = {len(next(iter(arrays.values()))) for arrays in (given, wanted)}
        if len(counts) > 1:
            raise DataError(
                f"{targets}: has {len(next(iter(wanted.values())))} samples, {inputs} has "
                f"{len(next(iter(given.values())))}; every sample needs one target"
            )
        for name, array in wanted.items():
            wanted[name] = target_array(name, array, populations[name].size, spec.losses[name], str(targets))
    assembled = assemble(spec)
    compiled = assembled.compiled
    task = replace(assembled.task, settings=replace(assembled.task.settings, thorough=True))
    x = tensor(np.concatenate([given[name] for name in compiled.inputs], axis=1).T, compiled)
    if wanted is None:
        drive = task.system.drive(x)
        none = x.new_zeros(compiled.output_size, 0)
        return Found(assembled, Batch(x, none), task.free(drive), None, {})
    target = tensor(np.concatenate([wanted[name] for name in compiled.outputs], axis=1).T, compiled)
    batch = Batch(x, target)
    learn = spec.learn
    rule = rule_of(learn.rule, learn.presynaptic, learn.weighting, learn.beta, learn.energy)
    rule.check(task.system)
    outcome = rule.outcome(task, batch)
    controlled = outcome.credit
    if not rule.controls:
        controlled = task.controlled(task.system.drive(x), target, outcome.free, x)
    return Found(assembled, batch, outcome.free, controlled, outcome.updates)


def write(found: Found, path: Path, *, command: str, overwrite: bool) -> None:
    """Write the equilibria, the updates and everything they were computed from into a run file."""
    with begin_file(found.assembled, path, command=command, overwrite=overwrite) as writer:
        _samples(writer, found)
        writer.attributes("equilibria", solver_reason=found.solver_reason)
        _equilibrium(writer, found, "free", found.free)
        if found.controlled is not None:
            _equilibrium(writer, found, "controlled", found.controlled)
            _controller(writer, found, found.controlled)
            _updates(writer, found)


def _samples(writer: RunWriter, found: Found) -> None:
    compiled = found.assembled.compiled
    for kind, rows_of, array in (
        ("input", compiled.inputs, found.batch.x),
        ("target", compiled.outputs, found.batch.target),
    ):
        for name, rows in rows_of.items():
            if array.shape[1]:
                writer.put(
                    f"samples/{kind}/{name}",
                    array[rows].t().cpu().numpy(),
                    units="dimensionless",
                    description=f"[sample, unit] {kind} of population {name}",
                )


def _equilibrium(writer: RunWriter, found: Found, phase: str, solution: Solution) -> None:
    compiled = found.assembled.compiled
    activity = Activity(found.assembled.system, solution.fields, found.batch.x)
    group = f"equilibria/{phase}"
    for name in (*compiled.inputs, *compiled.units):
        for variable in VARIABLES:
            values = activity.values(name, variable)
            if values is not None:
                symbol, words = MEANING[variable]
                writer.put(
                    f"{group}/{name}/{variable}",
                    values,
                    units="dimensionless",
                    description=f"[sample, unit] {words} of population {name} at the {phase} equilibrium",
                    symbol="x" if name in compiled.inputs else symbol,
                )
    rows = (
        (
            "residual",
            solution.residual,
            "dimensionless",
            "largest block-wise relative residual of the equations",
        ),
        ("iterations", solution.iterations, "iterations", "evaluations of the equations"),
        (
            "products",
            solution.products,
            "products",
            "products with W or its transpose, verification included",
        ),
        ("converged", solution.converged, "none", "whether the residual is within the tolerance"),
        (
            "kinks",
            solution.kinks,
            "neurons",
            "neurons resting on the kink of their activation function, where psi may "
            "take any value between 0 and S psi",
        ),
    )
    for name, values, units, words in rows:
        writer.put(f"{group}/{name}", values.cpu().numpy(), units=units, description=f"[sample] {words}")
    settings = found.assembled.task.settings
    held = clamps(found.assembled.spec, "training")
    if held:
        writer.attributes(group, clamped=" ".join(held))
    writer.attributes(group, solver=solution.method, tolerance=settings.at(compiled.dtype))


def _controller(writer: RunWriter, found: Found, solution: Solution) -> None:
    compiled, task, spec = found.assembled.compiled, found.assembled.task, found.assembled.spec
    nudged, rest = None, "alpha u + dL/dy = 0"
    if spec.control.nudge is not None:
        drive = task.system.drive(found.batch.x)
        nudged = task.under_control(drive, found.batch.target, found.free).target
        rest = "alpha u + y - r* = 0"
        writer.attributes("equilibria/controlled", nudge=spec.control.nudge)
    for name, rows in compiled.outputs.items():
        writer.put(
            f"equilibria/controlled/controller/{name}",
            solution.fields.u[rows].t().cpu().numpy(),
            units="dimensionless",
            description=f"[sample, unit] output controller of population {name}: {rest}",
            symbol="u",
            loss=spec.losses[name].name,
        )
        if nudged is not None:
            writer.put(
                f"equilibria/controlled/target/{name}",
                nudged[rows].t().cpu().numpy(),
                units="dimensionless",
                description=f"[sample, unit] nudged target of population {name}: y - nudge dL/dy at the free state",
                symbol="r*",
            )
    writer.attributes(
        "equilibria/controlled",
        alpha=task.controller.alpha,
        pathway=spec.control.pathway,
        feedback=spec.control.feedback,
        controller=spec.control.controller.type,
    )
    for name, values in task.pathway.feedback_weights().items():
        axes, words = described(name)
        writer.put(
            f"feedback/{name}",
            values.cpu().numpy(),
            units="dimensionless",
            description=f"[{axes}] {words}",
            symbol=name.partition("/")[0],
        )


def _updates(writer: RunWriter, found: Found) -> None:
    compiled, learn = found.assembled.compiled, found.assembled.spec.learn
    rule = learn.rule
    writer.attributes("updates", rule=rule, presynaptic=learn.presynaptic, weighting=learn.weighting)
    for name, values in found.updates.items():
        link = compiled.links.get(name)
        shared = link is not None and link.projection.edges.parameters is not None
        axis = "unit" if link is None else "parameter" if shared else "edge"
        if link is not None and isinstance(link.kernel, LowRank):
            axis = "factor: target unit x rank, then source unit x rank"
            for end, factor in zip(("target", "source"), link.kernel.factors(), strict=True):
                writer.put(
                    f"factors/{name}/{end}",
                    factor.cpu().numpy(),
                    units="dimensionless",
                    description=f"[unit, rank] factor of the {end} units; the weights are target source^T",
                )
        writer.put(
            f"updates/{name}",
            values.cpu().numpy(),
            units="dimensionless",
            description=f"[{axis}] mean over the converged samples of the {rule} update, in the direction of descent",
        )
