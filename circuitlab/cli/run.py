"""`circuitlab run`: an experiment file becomes a run file."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import AllowOutside, AsJson, console, print_json, say, sound

if TYPE_CHECKING:
    from circuitlab.experiment.repeat import Repeat
    from circuitlab.experiment.training import Prepared
    from circuitlab.learn.parallel import Group
    from circuitlab.learn.train import Trainer
    from circuitlab.spec.experiment import ExperimentSpec

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the experiment, such as learn.epochs=3."
    ),
]

SAME_SIGNAL = 2.0
"""Seconds within which a signal that comes again is the same one, forwarded."""


def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="[EXPERIMENT]", help="The experiment's YAML file.")
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN.h5", help="Repeat the run of this file, from what the file holds."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="RUN.h5", help="The run file; runs/<experiment>.h5 unless given."
        ),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run file's last checkpoint, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run file that is there.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Train a circuit as an experiment file says, and keep everything asked for in a run file.

    Ctrl-C stops after the present step and leaves a run that --resume continues, to the same numbers.
    """
    from circuitlab.errors import RunFileError

    if (file is None) == (from_ is None):
        raise typer.BadParameter("give an EXPERIMENT, or --from RUN.h5")
    for given in (from_, output if resume else None):
        if given is not None and (given == from_ or given.exists()):
            sound(given, state=given != from_)
    from circuitlab.learn.parallel import joined
    from circuitlab.spec.experiment import load_experiment

    with joined() as group:
        if resume and overwrite:
            raise RunFileError("--resume continues a run file and --overwrite replaces it; give one of them")
        again = None
        if file is not None:
            spec = load_experiment(file, overrides or (), allow_outside=allow_outside)
        else:
            from circuitlab.experiment.repeat import repeat

            assert from_ is not None
            again = repeat(from_, overrides or (), allow_outside=allow_outside)
            spec = again.spec
        path = output if output is not None else _default(spec.experiment, resume)
        if from_ is not None and path.exists() and path.samefile(from_):
            raise RunFileError(f"{path}: is the run to repeat; give another -o")
        _train(spec, path, group, again, resume=resume, overwrite=overwrite, as_json=as_json, quiet=quiet)


def _train(
    spec: ExperimentSpec,
    path: Path,
    group: Group,
    again: Repeat | None,
    *,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train, and tell of it where this process leads the group."""
    from circuitlab.experiment.training import prepare, train
    from circuitlab.record.place import refuse_existing

    if group.leads and not resume:
        refuse_existing(path, str(path), overwrite)
    prepared = prepare(spec, group) if again is None else again.prepare(group)
    report = Report(prepared, silent=as_json or not group.leads, bars=group.leads and not (quiet or as_json))
    started = time.monotonic()
    try:
        with stopping(prepared.trainer), report:
            train(
                prepared,
                path,
                command=shlex.join(["circuitlab", *sys.argv[1:]]),
                resume=resume,
                overwrite=overwrite,
                observers=[report.observer],
            )
    except KeyboardInterrupt:
        if group.leads:
            print(f"stopped; the same command with --resume goes on from {path}", file=sys.stderr)
        raise
    if not group.leads:
        return
    summary = _summary(path, prepared, time.monotonic() - started)
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _default(experiment: str, resume: bool) -> Path:
    """runs/<experiment>.h5, or the next name with a number; with --resume the latest that is there."""
    base = Path("runs") / f"{experiment.replace('/', '_')}.h5"
    names = [base, *(base.with_stem(f"{base.stem}-{number}") for number in range(2, 10_000))]
    free = next(number for number, name in enumerate(names) if not name.exists())
    return names[max(free - 1, 0)] if resume else names[free]


@contextmanager
def stopping(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, as clusters send it) stops after the present step; a second one at once.

    Of many processes each may get the same signal twice, from the cluster and from torchrun; that counts as one.
    """
    asked = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if trainer.stop_requested:
            if trainer.group.size > 1 and time.monotonic() - asked < SAME_SIGNAL:
                return
            raise KeyboardInterrupt
        trainer.stop_requested, asked = True, time.monotonic()
        if trainer.group.leads:
            print("stopping after this step (once more to stop at once)", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Report:
    """What the terminal shows of a run: a bar for the epoch's steps, a line per epoch, a summary."""

    def __init__(self, prepared: Prepared, *, silent: bool, bars: bool) -> None:
        from circuitlab.cli.progress import TrainingProgress

        self.prepared, self.silent = prepared, silent
        self.observer = TrainingProgress(console(), lines=not silent, bars=bars)

    def __enter__(self) -> Report:
        if not self.silent:
            prepared = self.prepared
            spec, circuit = prepared.assembled.spec, prepared.assembled.circuit
            units = sum(circuit.populations[name].size for name in circuit.units)
            split = ", ".join(f"{len(part):,} {name}" for name, part in prepared.splits.items())
            say(
                f"{spec.experiment}: {spec.learn.rule.replace('_', ' ')} on {circuit.name} ({units:,} units, "
                f"{circuit.synapses:,} synapses), {prepared.dataset.name} ({split} samples), seed {spec.seed}"
            )
            say(f"solver: {prepared.solver_reason}")
            say(_recording(prepared))
            for note in prepared.notes:
                say(f"note: {note}")
        return self

    def __exit__(self, *_: object) -> None:
        self.observer.close()


def _recording(prepared: Prepared) -> str:
    """How much will be written, in a line."""
    from circuitlab.record.space import bytes_text

    count = len(prepared.probes)
    probes = f"{count} probe{'' if count == 1 else 's'}" if count else "no probes"
    return f"recording about {bytes_text(prepared.size.total)} ({probes})"


def _summary(path: Path, prepared: Prepared, seconds: float) -> dict[str, Any]:
    """What the run came to, read from its file, so that a resumed run tells of all of it."""
    from circuitlab.record.reader import open_run

    spec, trainer = prepared.assembled.spec, prepared.trainer
    with open_run(path) as run:
        curves = {name: run.metric(name)[1] for name in run.metrics() if not name.startswith("step_")}
        unconverged = run.metric("step_unconverged")[1]
    samples = trainer.at.epoch * len(prepared.splits["train"]) + trainer.at.sums.samples
    return {
        "run": str(path),
        "experiment": spec.experiment,
        "rule": spec.learn.rule,
        "seed": spec.seed,
        "epochs": trainer.at.epoch,
        "updates": trainer.at.step,
        "seconds": seconds,
        "solver": spec.solve.method,
        "solver_reason": prepared.solver_reason,
        "first": {name: float(values[0]) for name, values in curves.items()},
        "last": {name: float(values[-1]) for name, values in curves.items()},
        "unconverged_samples": int(unconverged.sum()),
        "samples": samples,
        "notes": list(prepared.notes),
        "recording_bytes": prepared.size.total,
        "probes": prepared.size.probes,
    }


def _print(summary: dict[str, Any]) -> None:
    first, last = summary["first"], summary["last"]
    for split in ("test", "validation"):
        if f"{split}_accuracy" in last:
            say(
                f"{split} accuracy {last[f'{split}_accuracy']:.4f} (before learning {first[f'{split}_accuracy']:.4f})"
            )
        elif f"{split}_loss" in last:
            say(f"{split} loss {last[f'{split}_loss']:.5g} (before learning {first[f'{split}_loss']:.5g})")
    say(f"control cost {last['control_cost']:.4g} (before learning {first['control_cost']:.4g})")
    samples, missing = summary["samples"], summary["unconverged_samples"]
    if samples:
        say(f"unconverged samples {missing:,} of {samples:,} ({100 * missing / samples:.3f}%)")
    if samples and missing > 0.005 * samples:
        real_time = summary["rule"] == "deep_feedback_control"
        say(
            "hint: the circuit does not settle on these samples; "
            + ("more time (solve.max_time), " if real_time else "")
            + "a tighter bound such as "
            "learn.constrain.largest_singular_value=0.5, a weaker control or a lower rate helps"
        )
    say(f"{summary['updates']:,} updates in {summary['seconds']:.1f} s; run file {summary['run']}")
