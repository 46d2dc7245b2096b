"""A training run from an experiment file: everything is checked before the run file is begun."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuitlab.data.datasets import Assignment, DataSet, assign, batches, load
from circuitlab.errors import CircuitError, DataError, RunFileError
from circuitlab.experiment.assemble import (
    Assembled,
    assemble,
    begin_file,
    solver_reason,
    target_array,
    tensor,
    told_of_failure,
    yaml_text,
)
from circuitlab.experiment.control import feedback_rule, interneuron_rule
from circuitlab.experiment.fingerprints import fingerprints
from circuitlab.experiment.recording import Recording
from circuitlab.experiment.settled import bounds, schedules
from circuitlab.experiment.size import size_of
from circuitlab.experiment.tensorboard import TensorBoard, check
from circuitlab.experiment.trajectories import with_time_steps
from circuitlab.experiment.users_loss import loss_code
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.streams import stream
from circuitlab.learn.base import LearningRule
from circuitlab.learn.evaluate import Split
from circuitlab.learn.feedback.base import FeedbackLearning
from circuitlab.learn.optimizer import make_optimizer, make_scheduler
from circuitlab.learn.parallel import ALONE, Group
from circuitlab.learn.penalty import JacobianPenalty
from circuitlab.learn.rules import rule_of
from circuitlab.learn.starts import CREDIT, FREE, Classes, Starts
from circuitlab.learn.train import EarlyStopping, Observer, Schedule, Stopped, Trainer
from circuitlab.record.plan import plan_probes
from circuitlab.record.probes import Probe
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.record.space import NOTHING, Size, require_space
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.probe_checks import absent

STOPPING_METRIC = {
    "loss": "validation_loss",
    "accuracy": "validation_accuracy",
    "control_cost": "control_cost",
}


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check.

    Args:
        assembled: the circuit and its task.
        trainer: ready for its first step; observers are added when the run begins.
        splits, labels: samples and classes by split.
        probes: what will be recorded.
        dataset: where the samples come from.
        notes: what the user should know before the run, a sentence each.
        solver_reason: which solver the circuit gets, and why.
        size: what will be written.
    """

    assembled: Assembled
    trainer: Trainer
    splits: dict[str, Split]
    labels: dict[str, np.ndarray]
    probes: list[Probe]
    dataset: DataSet
    notes: tuple[str, ...] = ()
    solver_reason: str = ""
    size: Size = NOTHING


def prepare(spec: ExperimentSpec, group: Group = ALONE, circuit: Circuit | None = None) -> Prepared:
    """Load the data, build the circuit and make the trainer of an experiment.

    Args:
        group: the processes that share the run; every one of them prepares all of it.
        circuit: the circuit as it was drawn and manipulated, where it is not to be drawn anew.

    Raises:
        CircuitlabError: whatever is wrong with the experiment, its data or its circuit.
    """
    try:
        return _prepare(spec, group, circuit)
    except (CircuitError, DataError) as error:
        raise type(error)(spec.located(str(error))) from error


def _prepare(spec: ExperimentSpec, group: Group, circuit: Circuit | None) -> Prepared:
    assert spec.data is not None, "experiment files are refused without data"
    dataset = load(spec.data, spec.folder, generator=stream(spec.seed, "validation"), dtype=spec.dtype)
    assignment = assign(dataset, spec.circuit.populations, spec.data.inputs, spec.data.targets)
    assembled = assemble(spec, group.device(spec.device), circuit)
    compiled, learn = assembled.compiled, spec.learn
    parts = {name: dataset.split(name) for name in ("train", "validation", "test")}
    splits = {name: _split(assembled, part.arrays, assignment) for name, part in parts.items() if len(part)}
    labels = {
        name: part.arrays[array]
        for name, part in parts.items()
        for array in [next(iter(assignment.targets.values()))]
        if len(part) and part.arrays[array].ndim == 1
    }
    steps = -(-len(splits["train"]) // learn.batch_size)
    if not compiled.plastic():
        raise CircuitError(
            "circuit: nothing in it is plastic: every projection and bias is frozen, so nothing can learn"
        )
    feedback = _feedback_learning(assembled)
    for learning in feedback:
        if learning.rule.noisy and group.size > 1:
            raise CircuitError(
                f"learn.feedback.rule: {learning.rule.name} draws noise, which several processes cannot share yet; "
                "run it in one process"
            )
    pathway = assembled.task.pathway
    shared = [p for f in feedback if f.optimizer is None for p in f.taught(pathway).values()]
    optimizer = make_optimizer(
        [*compiled.plastic().values(), *shared],
        learn.optimizer.name,
        {"lr": learn.optimizer.lr, **learn.optimizer.options},
    )
    scheduler = make_scheduler(
        optimizer,
        learn.scheduler.name,
        learn.scheduler.options,
        learn.scheduler.per,
        steps * learn.epochs,
        learn.epochs,
    )
    followers = pathway.companions() if feedback else {}
    bound = bounds(learn.constrain, compiled, followers)
    alpha, check = schedules(assembled, steps * learn.epochs)
    gamma = learn.penalty.jacobian
    stopping = learn.early_stopping and EarlyStopping(
        STOPPING_METRIC[learn.early_stopping.metric],
        learn.early_stopping.patience,
        learn.early_stopping.minimum_change,
    )
    if stopping and stopping.metric == "validation_accuracy" and not splits["train"].classes:
        raise DataError(
            "learn.early_stopping.metric: accuracy needs class labels; allowed here: loss, control_cost"
        )

    def order(epoch: int) -> list[np.ndarray]:
        return list(batches(len(splits["train"]), learn.batch_size, spec.seed, epoch))

    rule = rule_of(learn.rule, learn.presynaptic, learn.weighting, learn.beta, learn.energy)
    rule.check(assembled.system)
    trainer = Trainer(
        compiled,
        assembled.task,
        rule,
        splits,
        Schedule(learn.epochs, order, learn.clip, stopping, alpha, check),
        optimizer,
        scheduler,
        bound,
        penalty=JacobianPenalty(assembled.system, gamma, followers, spec.control.feedback == "apical")
        if gamma is not None
        else None,
        starts=_starts(assembled, splits["train"], group, rule),
        group=group,
        feedback=feedback,
        testing=assembled.testing,
    )
    sizes = {name: len(split) for name, split in splits.items()}
    probes = plan_probes(
        spec.record,
        assembled.circuit,
        batch_size=min(learn.batch_size, sizes["train"]),
        sizes=sizes,
        steps=steps * learn.epochs,
        epochs=learn.epochs,
        most_iterations=spec.solve.max_iterations,
        lacks=lambda probe: absent(probe, spec.circuit, spec),
    )
    probes = with_time_steps(probes, assembled.task)
    size = size_of(assembled, trainer, probes, steps * learn.epochs)
    notes = tuple(bound.left) if bound else ()
    each = -(-min(learn.batch_size, sizes["train"]) // group.size)
    reason = solver_reason(assembled, each)
    return Prepared(assembled, trainer, splits, labels, probes, dataset, notes, reason, size)


def _split(assembled: Assembled, arrays: Any, assignment: Assignment) -> Split:
    compiled, losses = assembled.compiled, assembled.spec.losses
    x = np.concatenate([arrays[assignment.inputs[name]] for name in compiled.inputs], axis=1)
    targets, classes = [], []
    for name, rows in compiled.outputs.items():
        array = arrays[assignment.targets[name]]
        targets.append(target_array(name, array, rows.stop - rows.start, losses[name]))
        if array.ndim == 1:
            classes.append(rows)
    return Split(tensor(x, compiled), tensor(np.concatenate(targets, axis=1), compiled), tuple(classes))


def _starts(assembled: Assembled, train: Split, group: Group, rule: LearningRule) -> Starts | None:
    """Warm starts for the training samples, where the experiment asks for them."""
    spec, task, compiled = assembled.spec, assembled.task, assembled.compiled
    solve = spec.solve
    if solve.start not in ("class_mean", "last"):
        return None
    if group.size > 1:
        raise CircuitError(
            f"solve.start: {solve.start} remembers samples, which move from process to process; "
            "allowed with several processes: free, zero"
        )
    rows = {FREE: compiled.size, CREDIT: rule.credit_rows(task)}
    classes = None
    if train.classes:
        first = train.classes[0]
        classes = Classes(train.target[:, first].argmax(1), first.stop - first.start)
    return Starts(solve.start, rows, len(train), classes, solve.start_memory, compiled.dtype, compiled.device)


def train(
    prepared: Prepared,
    path: str | Path,
    *,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
    observers: Sequence[Observer] = (),
    tensorboard: str | Path | None = None,
) -> Trainer:
    """Run a prepared experiment into a run file.

    Args:
        tensorboard: a folder for TensorBoard's logs of the run; none are written unless given.
        command: the command line, for the file's provenance.
        resume: go on from the file's last checkpoint; a file that is not there is begun.
        overwrite: replace a file that is there.

    Raises:
        RunFileError: the file cannot be written, or is of another experiment.
    """
    spec, trainer = prepared.assembled.spec, prepared.trainer
    group = trainer.group
    texts = _texts(spec)
    group.verify(
        {name: torch.tensor(zlib.crc32(text.encode())) for name, text in texts.items()}, "the files of"
    )
    restored: dict[str, Any] = {}
    writer: RunWriter | None = None
    log: TensorBoard | None = None
    if tensorboard is not None and group.leads:
        check(Path(tensorboard), resume=resume, overwrite=overwrite)
    if group.leads:
        restored, writer = _open(prepared, path, command=command, resume=resume, overwrite=overwrite)
    with writer or nullcontext():
        restored = group.from_first(lambda: restored)
        if restored:
            try:
                trainer.restore(restored)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
                raise RunFileError(
                    f"{path}: its checkpoint does not fit this run; start the run anew"
                ) from error
        if writer is not None:
            writer.attributes(
                "training",
                solver=spec.solve.method,
                solver_reason=prepared.solver_reason,
                data=prepared.dataset.name,
                processes=group.size,
                **fingerprints(prepared.dataset, spec),
                epochs=trainer.schedule.epochs,
                steps_per_epoch=len(trainer.schedule.order(1)),
                samples=len(prepared.splits["train"]),
            )
            writer.attributes(
                "/",
                session_began=datetime.now(UTC).isoformat(timespec="milliseconds"),
                session_began_at_step=trainer.at.step,
            )
            snapshots = 1 + -(-spec.learn.epochs // spec.learn.snapshots_every)
            for kept in ("weights", "feedback/Q", "feedback/S", "feedback/I"):
                writer.expect(kept, snapshots)
            if tensorboard is not None:
                log = TensorBoard(
                    Path(tensorboard),
                    texts,
                    spec.resolved(),
                    step=trainer.at.step,
                    resumed=bool(restored),
                    snapshots_every=spec.learn.snapshots_every,
                )
            recording = Recording(
                writer if log is None else log.mirrored(writer, trainer),
                trainer.task,
                prepared.splits,
                prepared.labels,
                prepared.probes,
                spec.learn.snapshots_every,
            )
            trainer.observers = (recording, *([] if log is None else [log]), *observers)
        try:
            with told_of_failure(writer):
                trainer.run()
        except Stopped:
            if writer is not None:
                writer.checkpoint(trainer.state())
            raise
        finally:
            if log is not None:
                log.close()
        if writer is not None:
            writer.checkpoint(trainer.state())
    return trainer


def _feedback_learning(assembled: Assembled) -> tuple[FeedbackLearning, ...]:
    """How the pathway's own weights learn, each rule with its optimizer (none: the circuit's own)."""
    learn, pathway = assembled.spec.learn, assembled.task.pathway
    found = []
    for rule, spec, where in (
        (
            feedback_rule(assembled.spec, assembled.system, pathway),
            learn.feedback,
            "learn.feedback.optimizer",
        ),
        (interneuron_rule(pathway), learn.interneurons, "learn.interneurons.optimizer"),
    ):
        if rule is None:
            continue
        chosen, optimizer = None if spec is None else spec.optimizer, None
        if chosen is not None:
            options = {"lr": chosen.lr, **chosen.options}
            parameters = FeedbackLearning(rule).taught(pathway).values()
            optimizer = make_optimizer(parameters, chosen.name, options, where)
        found.append(FeedbackLearning(rule, optimizer))
    return tuple(found)


def _open(
    prepared: Prepared, path: str | Path, *, command: str, resume: bool, overwrite: bool
) -> tuple[dict[str, Any], RunWriter]:
    """The state to go on from (empty for a new run), and the run file."""
    spec = prepared.assembled.spec
    if resume and Path(path).exists():
        restored, failed = _checkpoint_of(path, spec)
        require_space(path, prepared.size.total, Path(path).stat().st_size)
        writer = RunWriter.resume(path)
        if failed:
            writer.attributes("/", failure="")
        return restored, writer
    require_space(path, prepared.size.total + prepared.size.early)
    return {}, begin_file(prepared.assembled, path, command=command, overwrite=overwrite)


def _texts(spec: ExperimentSpec) -> dict[str, str]:
    code = {name: text for name, (text, _) in loss_code(spec).items()}
    return {"circuit": yaml_text(spec.circuit.resolved()), "experiment": yaml_text(spec.resolved()), **code}


def _checkpoint_of(path: str | Path, spec: ExperimentSpec) -> tuple[dict[str, Any], bool]:
    """The state to go on from, and whether the run has failed before."""
    with open_run(path) as run:
        for name, text in _texts(spec).items():
            if run.read(f"spec/{name}") != text:
                raise RunFileError(
                    f"{path}: was made by another {name} (a key or an override differs); resume with the same files "
                    "and --set options, or give another -o"
                )
        return run.checkpoint(), bool(run.attributes.get("failure"))
