"""How fast each method learns MNIST: samples a second, and time to a test accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitlab.bench.nets import Watch, experiment, learn
from circuitlab.bench.results import Cell, Table


@dataclass(frozen=True)
class Method:
    """A way to learn.

    Args:
        name: in tables.
        path: the experiment. options: changes of it.
    """

    name: str
    path: Path
    options: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        methods: compared.
        seeds: each method learns once from each.
        epochs: of a whole training, whose schedule ends with the last.
        steps: at most so many updates an epoch, or None for all.
        targets: test accuracies, shares of 1, whose times are told.
        every: updates between two looks at the test samples until the highest target is reached.
        threads: of the CPU.
    """

    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 5
    steps: int | None = None
    targets: tuple[float, ...] = (0.93, 0.95)
    every: int = 50
    threads: int = 1


def methods(recurrent: Path, feedforward: Path, alphas: Sequence[float]) -> tuple[Method, ...]:
    """Least control at every leak and recurrent backprop on one experiment, backprop on a feedforward one."""
    found = [
        Method(
            f"least control, alpha {alpha:g}",
            recurrent,
            ("learn.rule=least_control", f"control.controller.alpha={alpha:g}"),
        )
        for alpha in alphas
    ]
    found.append(Method("recurrent backprop", recurrent, ("learn.rule=recurrent_backprop",)))
    found.append(Method("feedforward, backprop", feedforward, ("learn.rule=backprop",)))
    return tuple(found)


def time_to(curve: Sequence[tuple[int, float, float]], target: float) -> float | None:
    """Seconds of learning at the first look with at least this accuracy, None where there is none."""
    return next((seconds for _, seconds, accuracy in curve if accuracy >= target), None)


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Train every method from every seed, one after the other; the table and every look.

    The methods take turns within a seed, so that a busy hour does not fall on one of them alone.
    """
    watches: dict[str, list[Watch]] = {method.name: [] for method in settings.methods}
    for seed in settings.seeds:
        for method in settings.methods:
            options = [*method.options, f"seed={seed}", f"learn.epochs={settings.epochs}"]
            trained = learn(
                experiment(method.path, options, settings.threads),
                epochs=settings.epochs,
                steps=settings.steps,
                every=settings.every,
                until=max(settings.targets),
            )
            watches[method.name].append(trained.watch)
    heads = tuple(f"s to {100 * target:g}%" for target in settings.targets)
    epochs = f"{settings.epochs} epoch{'s' if settings.epochs > 1 else ''}"
    seeds = f"{len(settings.seeds)} seed{'s' if len(settings.seeds) > 1 else ''}"
    table = Table(
        f"Learning, {seeds}: medians; test accuracy after {epochs}, mean and deviation",
        ("method", "samples/s", *heads, "test, %", "±", "missed, %", "products"),
        [_row(name, found, settings.targets) for name, found in watches.items()],
        "Evaluation is not timed.",
    )
    raw = {
        name: [
            {
                "seed": seed,
                "samples": watch.samples,
                "seconds": watch.seconds,
                "unconverged": watch.unconverged,
                "products_per_sample": watch.products / watch.samples,
                "looks": [list(look) for look in watch.curve],
            }
            for seed, watch in zip(settings.seeds, found, strict=True)
        ]
        for name, found in watches.items()
    }
    return [table], {"training": raw, "targets": list(settings.targets)}


def _row(name: str, watches: Sequence[Watch], targets: Sequence[float]) -> list[Cell]:
    last = [100 * watch.curve[-1][2] for watch in watches]
    samples = sum(watch.samples for watch in watches)
    return [
        name,
        statistics.median(watch.samples / watch.seconds for watch in watches),
        *(_median([time_to(watch.curve, target) for watch in watches]) for target in targets),
        statistics.mean(last),
        statistics.stdev(last) if len(last) > 1 else None,
        100 * sum(watch.unconverged for watch in watches) / samples,
        sum(watch.products for watch in watches) / samples,
    ]


def _median(times: Sequence[float | None]) -> float | None:
    """Median over the seeds, of which those that never came there count as the slowest; None if that is the median."""
    found = sorted(float("inf") if t is None else t for t in times)
    middle = statistics.median_high(found)
    return None if middle == float("inf") else middle
