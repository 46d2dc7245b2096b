"""Training from Python: `circuitlab.run("experiment.yaml")`, as the command of that name does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from circuitlab.errors import CircuitError, RunFileError
from circuitlab.experiment.epochs import EpochLines
from circuitlab.experiment.tensorboard import check
from circuitlab.experiment.training import prepare, train
from circuitlab.learn.train import Observer
from circuitlab.record.place import refuse_existing
from circuitlab.record.reader import Run, open_run
from circuitlab.spec.experiment import ExperimentSpec, load_experiment


def next_path(experiment: str, resume: bool = False) -> Path:
    """runs/<experiment>.h5, or the next name with a number; with `resume` the latest that is there."""
    base = Path("runs") / f"{experiment.replace('/', '_')}.h5"
    names = [base, *(base.with_stem(f"{base.stem}-{number}") for number in range(2, 10_000))]
    free = next(number for number, name in enumerate(names) if not name.exists())
    return names[max(free - 1, 0)] if resume else names[free]


def run(
    experiment: str | Path | ExperimentSpec,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    observers: Sequence[Observer] = (),
    tensorboard: str | Path | None = None,
    allow_outside: bool = False,
) -> Run:
    """Train a circuit from Python: `circuitlab.run("experiment.yaml", overrides=["learn.epochs=3"])`.

    An interrupt leaves a run that `resume=True` continues from its last checkpoint, to the same numbers.

    Args:
        experiment: its file, or the file read.
        output: the run file; runs/<experiment>.h5, or the next name with a number, unless given.
        overrides: changes such as "learn.epochs=3" or "seed=3".
        resume: go on from the run file's last checkpoint, if there is one.
        overwrite: replace a run file that is there.
        progress: whether to print a line for each epoch.
        observers: told of every step and epoch.
        tensorboard: a folder for TensorBoard's logs; none are written unless given.
        allow_outside: let the experiment name files outside its own folder.

    Returns:
        The run file, opened for reading; its `path` says where it is.

    Raises:
        CircuitlabError: something is wrong with the experiment, its data or its circuit, or the file cannot be written.
    """
    if isinstance(experiment, ExperimentSpec):
        if overrides:
            raise CircuitError("overrides: the experiment was read already; give them to load_experiment")
        spec = experiment
    else:
        spec = load_experiment(Path(experiment), overrides, allow_outside=allow_outside)
    if resume and overwrite:
        raise RunFileError("resume continues a run file and overwrite replaces it; give one of them")
    path = next_path(spec.experiment, resume) if output is None else Path(output)
    if not resume:
        refuse_existing(path, str(path), overwrite)
    if tensorboard is not None:
        check(Path(tensorboard), resume=resume, overwrite=overwrite)
    lines = [EpochLines(print)] if progress else []
    train(
        prepare(spec),
        path,
        command=f"circuitlab.run({spec.experiment!r}, overrides={list(overrides)!r})",
        resume=resume,
        overwrite=overwrite,
        observers=[*lines, *observers],
        tensorboard=tensorboard,
    )
    return open_run(path)
