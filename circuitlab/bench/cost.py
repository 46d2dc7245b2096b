"""What a controlled equilibrium costs beside recurrent backpropagation: same circuits, same batches, same tolerance."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuitlab.bench.nets import Trained, Weights, experiment, learn, put
from circuitlab.bench.oracle import Oracle, Truth, check, descend
from circuitlab.bench.results import Cell, Table
from circuitlab.bench.timing import Spread, least_of_each, paired_ratio
from circuitlab.control.output import leaky_integral
from circuitlab.errors import CircuitError
from circuitlab.experiment.assemble import DTYPES, assemble
from circuitlab.experiment.training import Prepared
from circuitlab.learn.base import Batch, LearningRule, Task
from circuitlab.learn.rules import RULES
from circuitlab.solve.base import default_tolerance
from circuitlab.spec.experiment import ExperimentSpec

BACKPROP = "recurrent backprop"
PLAIN, FAST = "recurrent backprop, plain steps", "recurrent backprop, same acceleration"
COUNTED = ("circuit", "alpha", "LC", "RBP", "RBP acc.", "LC/RBP", "LC/RBP acc.", "missed")
TIMED = ("circuit", "alpha", "LC", "RBP", "RBP acc.", "LC/RBP", "LC/RBP acc.", "spread, %", "with update")
ITERATED = ("circuit", "alpha", "LC free", "LC", "RBP free", "RBP", "RBP acc. free", "RBP acc.")
PUBLISHED = {"dynamic inversion": 35_280.0, BACKPROP: 1_683.0}
"""Seconds of the least-control paper's table S8: dynamic inversion, and recurrent backpropagation."""
REPEATS = 4


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        path: the experiment.
        alphas: leaks of the controller, per sample.
        dtypes: precisions.
        batches: measured on each net.
        step: number of updates after which training is looked at, besides the start and the end.
        steps: at most so many updates of training, or None for a whole epoch.
        oracle: samples whose updates are checked on each net, 0 for none.
        threads: of the CPU. seed: of weights and batches.
    """

    path: Path
    alphas: tuple[float, ...] = (6.4, 0.1)
    dtypes: tuple[str, ...] = ("float32", "float64")
    batches: int = 10
    step: int = 300
    steps: int | None = None
    oracle: int = 128
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Contender:
    """A way to find the credit of a batch: a rule with the settings of its task."""

    rule: LearningRule
    task: Task


@dataclass
class Readings:
    """What one contender needed on one net: a number per batch, times one per batch and repeat.

    Attributes:
        products: with W or its transpose per sample, builds and verification included.
        free, credit: iterations per sample in the free and in the second phase.
        unconverged: samples.
        solve: seconds until both equilibria of a batch are found. whole: the update's outer products included.
    """

    products: list[float]
    free: list[float]
    credit: list[float]
    unconverged: list[int]
    solve: list[float]
    whole: list[float]

    @classmethod
    def none(cls) -> Readings:
        """No reading yet."""
        return cls([], [], [], [], [], [])


@contextmanager
def updates_timed(task: Task) -> Iterator[list[float]]:
    """A list of the seconds that each call of the system's `update` takes meanwhile."""
    system, seconds = task.system, []
    update = system.update

    def timed(*args: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        found = update(*args, **options)
        seconds.append(time.perf_counter() - begun)
        return found

    vars(system)["update"] = timed
    try:
        yield seconds
    finally:
        del vars(system)["update"]


@torch.no_grad()
def mark_changed(task: Task) -> None:
    """Tell the circuit that its weights changed, as after an update: what is built from them must be built anew."""
    for value in task.system.compiled.parameters_by_name().values():  # type: ignore[attr-defined]
        value.add_(0)


def measure(
    contenders: Mapping[str, Contender], batches: Sequence[Batch], repeats: int = REPEATS
) -> dict[str, Readings]:
    """Run every contender on every batch in turn, each time as after a change of the weights."""
    found = {name: Readings.none() for name in contenders}
    for contender in contenders.values():
        contender.rule.outcome(contender.task, batches[0])
    for batch in batches:
        for repeat in range(repeats):
            for name, contender in contenders.items():
                _read(found[name], contender, batch, counts=repeat == 0)
    return found


def _read(readings: Readings, contender: Contender, batch: Batch, counts: bool) -> None:
    mark_changed(contender.task)
    with updates_timed(contender.task) as updating:
        begun = time.perf_counter()
        outcome = contender.rule.outcome(contender.task, batch)
        whole = time.perf_counter() - begun
    readings.whole.append(whole)
    readings.solve.append(whole - sum(updating))
    if counts:
        samples = len(outcome.used)
        products = outcome.free.products.sum() + outcome.credit.products.sum()
        readings.products.append(float(products) / samples)
        readings.free.append(float(outcome.free.iterations.double().mean()))
        readings.credit.append(float(outcome.credit.iterations.double().mean()))
        readings.unconverged.append(int((~outcome.used).sum()))


def control_name(alpha: float) -> str:
    """A contender's name: least control at a leak."""
    return f"least control {alpha:g}"


def contenders(task: Task, alphas: Sequence[float]) -> dict[str, Contender]:
    """Least control at every leak, and recurrent backprop by plain steps and with the same acceleration."""
    control = RULES["least_control"]
    plain = replace(task, settings=replace(task.settings, method="fixed_point", damping=1.0))
    found = {control_name(a): Contender(control, with_alpha(task, a)) for a in alphas}
    return found | {
        PLAIN: Contender(RULES["recurrent_backprop"], plain),
        FAST: Contender(RULES["recurrent_backprop"], task),
    }


def with_alpha(task: Task, alpha: float) -> Task:
    """The task with another leak."""
    return replace(task, controller=leaky_integral(alpha, task.controller.tau_ms))


@dataclass(frozen=True)
class Net:
    """A circuit at one moment of one training.

    Args:
        trained: by which rule (a contender's name), empty before any training.
        updates: made until then.
    """

    trained: str
    updates: int

    @property
    def label(self) -> str:
        """How tables call it: the updates made, by least control (LC) or recurrent backprop (RBP)."""
        if not self.trained:
            return "start"
        return f"{self.updates:,} by {'RBP' if self.trained == BACKPROP else 'LC'}"

    def shows(self, alpha: float) -> bool:
        """Whether control at this leak is measured on it: not on what control at another leak has learned."""
        return self.trained in ("", BACKPROP, control_name(alpha))


def trainings(settings: Settings) -> dict[str, Trained]:
    """Least control at every leak and recurrent backprop, each over (at most) an epoch of the experiment."""
    options = {control_name(a): _options("least_control", a) for a in settings.alphas}
    options[BACKPROP] = _options("recurrent_backprop", settings.alphas[0])
    return {
        name: learn(
            experiment(settings.path, [*given, f"seed={settings.seed}"], settings.threads),
            epochs=1,
            steps=settings.steps,
            moments=(settings.step,),
        )
        for name, given in options.items()
    }


def _options(rule: str, alpha: float) -> list[str]:
    return [
        f"learn.rule={rule}",
        "control.pathway=dynamic_inversion",
        "control.controller.type=leaky_integral",
        f"control.controller.alpha={alpha:g}",
    ]


@dataclass(frozen=True)
class Measured:
    """Readings and updates' errors by precision and net."""

    readings: dict[str, dict[Net, dict[str, Readings]]]
    errors: dict[str, dict[Net, dict[float, Oracle]]]


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Train, then measure every net in every precision; tables and raw numbers."""
    trained = trainings(settings)
    nets = {Net("", 0): next(iter(trained.values())).weights[0]}
    for name, one in trained.items():
        nets |= {Net(name, at): one.weights[at] for at in sorted(one.weights) if at}
    prepared = next(iter(trained.values())).prepared
    spec = prepared.assembled.spec
    measured = _measure(settings, prepared, nets)
    tables = [
        *_cost_tables(spec, measured, settings.alphas),
        *_check_tables(measured),
        _training_table(trained, spec),
    ]
    return [*tables, published()], _numbers(measured, trained)


def _measure(settings: Settings, prepared: Prepared, nets: Mapping[Net, Weights]) -> Measured:
    """Every contender on the next epoch's first batches, on every net, and the check of the updates."""
    split, spec = prepared.splits["train"], prepared.assembled.spec
    order = prepared.trainer.schedule.order(2)
    order = [ids for ids in order if len(ids) == len(order[0])][: settings.batches]
    checked = split.batch(np.concatenate(order)[: settings.oracle])
    double = assemble(spec.model_copy(update={"dtype": "float64"}))
    truths: dict[tuple[Net, float], Truth] = {}
    measured = Measured({}, {})
    for dtype in settings.dtypes:
        one, kind = assemble(spec.model_copy(update={"dtype": dtype})), DTYPES[dtype]
        batches = [Batch(b.x.to(kind), b.target.to(kind)) for b in (split.batch(ids) for ids in order)]
        measured.readings[dtype], measured.errors[dtype] = {}, {}
        for net, weights in nets.items():
            alphas = [alpha for alpha in settings.alphas if net.shows(alpha)]
            all_ = contenders(one.task, alphas)
            put(weights, one.compiled.parameters_by_name())
            measured.readings[dtype][net] = measure(all_, batches)
            put(weights, double.compiled.parameters_by_name())
            measured.errors[dtype][net] = errors = {}
            for alpha in alphas if settings.oracle else ():
                if (net, alpha) not in truths:
                    truths[net, alpha] = _descended(with_alpha(double.task, alpha), checked)
                contender = all_[control_name(alpha)]
                errors[alpha] = check(contender.rule, contender.task, truths[net, alpha], double.system)
    return measured


def _descended(task: Task, batch: Batch) -> Truth:
    try:
        return descend(task, batch)
    except CircuitError as error:
        raise CircuitError(f"{error}; --oracle 0 leaves the check of the updates out") from error


def _cost_tables(spec: ExperimentSpec, measured: Measured, alphas: Sequence[float]) -> list[Table]:
    tables = []
    for dtype, nets in measured.readings.items():
        tolerance = spec.solve.tolerance or default_tolerance(DTYPES[dtype])
        where, batch = f"{dtype}, tolerance {tolerance:g}", spec.learn.batch_size
        shown = [(net, alpha, nets[net]) for alpha in alphas for net in nets if net.shows(alpha)]
        for title, columns, row in (
            (f"Products with W per sample, {where}", COUNTED, _products_row),
            (f"Milliseconds to the equilibria of a batch of {batch}, {where}", TIMED, _times_row),
            (f"Iterations per sample, free and second phase, {where}", ITERATED, _iterations_row),
        ):
            tables.append(Table(title, columns, [row(*one) for one in shown]))
    return tables


def _three(readings: Mapping[str, Readings], alpha: float) -> tuple[Readings, Readings, Readings]:
    return readings[control_name(alpha)], readings[PLAIN], readings[FAST]


def _products_row(net: Net, alpha: float, readings: Mapping[str, Readings]) -> list[Cell]:
    three = _three(readings, alpha)
    control, plain, fast = three
    medians = [Spread.of(r.products).median for r in three]
    ratios = [paired_ratio(control.products, other.products) for other in (plain, fast)]
    missed = " / ".join(str(sum(r.unconverged)) for r in three)
    return [net.label, alpha, *medians, *ratios, missed]


def _times_row(net: Net, alpha: float, readings: Mapping[str, Readings]) -> list[Cell]:
    """Every batch counts with the least of its repeats, and ratios are of the same batch."""
    solves = [least_of_each(r.solve, REPEATS) for r in _three(readings, alpha)]
    wholes = [least_of_each(r.whole, REPEATS) for r in _three(readings, alpha)]
    medians = [1e3 * Spread.of(times).median for times in solves]
    ratios = [paired_ratio(solves[0], other) for other in solves[1:]]
    apart = Spread.of([a / b for a, b in zip(solves[0], solves[1], strict=True)]).spread
    return [net.label, alpha, *medians, *ratios, 100 * apart, paired_ratio(wholes[0], wholes[1])]


def _iterations_row(net: Net, alpha: float, readings: Mapping[str, Readings]) -> list[Cell]:
    counts = [(Spread.of(r.free).median, Spread.of(r.credit).median) for r in _three(readings, alpha)]
    return [net.label, alpha, *(count for pair in counts for count in pair)]


def _check_tables(measured: Measured) -> list[Table]:
    rows: list[list[Cell]] = []
    for dtype, nets in measured.errors.items():
        for net, by_alpha in nets.items():
            for alpha, found in by_alpha.items():
                rows.append([net.label, alpha, dtype, *found.cells()])
    return [Oracle.table(rows)] if rows else []


def _training_table(trained: Mapping[str, Trained], spec: ExperimentSpec) -> Table:
    rows: list[list[Cell]] = []
    for name, one in trained.items():
        watch = one.watch
        rows.append(
            [
                name,
                one.last,
                watch.samples,
                watch.unconverged,
                100 * watch.unconverged / watch.samples,
                watch.products / watch.samples,
                watch.seconds,
                100 * one.accuracy,
            ]
        )
    epochs = spec.learn.epochs
    return Table(
        f"Training by each rule, {spec.dtype}: the first epoch of the experiment's {epochs}, evaluation not timed",
        ("rule", "updates", "samples", "missed", "missed, %", "products", "seconds", "test, %"),
        rows,
    )


def published() -> Table:
    """The paper's own times."""
    control, backprop = PUBLISHED["dynamic inversion"], PUBLISHED[BACKPROP]
    return Table(
        "Published, not measured here: the least-control paper's table S8, recurrent network on MNIST",
        ("rule", "seconds", "ratio"),
        [["dynamic inversion", control, control / backprop], [BACKPROP, backprop, 1.0]],
        "Times of the authors' code and machine; only the ratio compares.",
    )


def _numbers(measured: Measured, trained: Mapping[str, Trained]) -> dict[str, Any]:
    nets = [
        {
            "dtype": dtype,
            "trained_by": net.trained,
            "updates": net.updates,
            "contenders": {name: vars(readings) for name, readings in by_name.items()},
            "updates_checked": {
                f"{alpha:g}": found.data() for alpha, found in measured.errors[dtype].get(net, {}).items()
            },
        }
        for dtype, by_net in measured.readings.items()
        for net, by_name in by_net.items()
    ]
    rules = {
        name: {
            "updates": one.last,
            "samples": one.watch.samples,
            "unconverged": one.watch.unconverged,
            "products_per_sample": one.watch.products / one.watch.samples,
            "seconds": one.watch.seconds,
            "test_accuracy": one.accuracy,
        }
        for name, one in trained.items()
    }
    return {"nets": nets, "training": rules, "published_seconds": PUBLISHED}
