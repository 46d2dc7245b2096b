"""Trains circuits and measures the theory's conditions on the way."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from circuitlab.experiment.training import prepare
from circuitlab.learn.rules import rule_of
from circuitlab.learn.train import Observer, Trainer
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.theory.diagnosis import measures
from circuitlab.theory.examine import examine
from circuitlab.theory.known import one_sample
from circuitlab.theory.references import flat
from circuitlab.theory.updates import angle, cosine
from figures.drawing import COLOURS, panels, show


class Watch(Observer):
    """Measures the circuit before learning, every so many updates, and after the last; and after the first update where
    feedback weights have learned in a phase before it.

    Each row has the means over samples of every measure, by its key, of the rule's angles with its references as
    `angle_NAME`, in degrees, and of each the standard deviation over samples, with `_deviation` behind its name.

    Args:
        every: updates. samples: training samples looked at.
        steady: also the angle with the updates of this rule, by name, as `angle_steady`.
    """

    def __init__(self, every: int, samples: int, steady: str | None = None) -> None:
        self.every, self.samples, self.steady = every, samples, steady
        self.rows: list[dict[str, float]] = []

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        last = trainer.at.epoch == trainer.schedule.epochs
        if trainer.at.step == 0 or (last and self.rows[-1]["step"] != trainer.at.step):
            self._measure(trainer)

    def step(self, trainer: Trainer, sample_ids: Any, batch: Any, outcome: Any) -> None:
        begun = trainer.at.step == 1 and bool(trainer.feedback)
        if begun or trainer.at.step % self.every == 0:
            self._measure(trainer)

    def _measure(self, trainer: Trainer) -> None:
        train = trainer.splits["train"]
        batch = train.batch(np.arange(min(self.samples, len(train))))
        found = examine(trainer.task, trainer.rule, batch)
        row: dict[str, float] = {"step": trainer.at.step}
        for measure in measures(found):
            if not measure.inapplicable:
                row[measure.key], row[f"{measure.key}_error"] = measure.mean, measure.error
                if measure.values is not None:
                    row[f"{measure.key}_deviation"] = moments(measure.values)[1]
        angles = {name: angle(np.array(some)) for name, some in found.rule_updates.cosines.items()}
        if self.steady is not None:
            angles["steady"] = self._angles_with_steady(trainer, batch)
        for name, values in angles.items():
            row[f"angle_{name}"], row[f"angle_{name}_deviation"] = moments(values)
        self.rows.append(row)

    def _angles_with_steady(self, trainer: Trainer, batch: Any) -> np.ndarray:
        other, angles = rule_of(str(self.steady)), []
        for sample in range(batch.x.shape[1]):
            one = one_sample(batch, sample)
            pair = [rule.outcome(trainer.task, one) for rule in (trainer.rule, other)]
            if all(bool(outcome.used.all()) for outcome in pair):
                angles.append(float(angle(cosine(*(flat(outcome.updates) for outcome in pair)))))
        return np.array(angles)


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of those that are finite; NaN where none is."""
    some = values[np.isfinite(values)]
    return (float(some.mean()), float(some.std())) if len(some) else (float("nan"), float("nan"))


def follow(
    spec: ExperimentSpec, every: int, samples: int, steady: str | None = None
) -> list[dict[str, float]]:
    """Train, and measure on the way."""
    trainer, watch = prepare(spec).trainer, Watch(every, samples, steady)
    trainer.observers = (watch,)
    trainer.run()
    return watch.rows


def windows(steps: list[dict[str, float]], key: str, width: int) -> np.ndarray:
    """A measure over windows of measurements that follow each other: [window, 3], the updates in the middle, the mean,
    and the standard deviation over all samples and measurements of the window.

    Args:
        width: measurements in a window, about; the windows divide the whole evenly.
    """
    known = [row for row in steps if np.isfinite(row.get(key, np.nan))]
    rows = []
    for part in np.array_split(np.arange(len(known)), max(1, round(len(known) / width))):
        some = [known[number] for number in part]
        if some:
            means = np.array([row[key] for row in some])
            inside = np.mean([row.get(f"{key}_deviation", 0.0) ** 2 for row in some])
            rows.append((np.mean([row["step"] for row in some]), means.mean(), np.sqrt(inside + means.var())))
    return np.array(rows).reshape(-1, 3)


def learning(steps: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows from the first update on, where one was measured just after it: before, Q had not been pretrained."""
    return steps[1:] if len(steps) > 1 and steps[1]["step"] == 1 else steps


def curve(axis: Any, steps: list[dict[str, float]], key: str, width: int, **style: Any) -> None:
    """Draw a measure against updates, window means with their standard deviation shaded."""
    found = windows(learning(steps), key, width)
    if len(found):
        step, mean, deviation = found.T
        (line,) = axis.plot(step, mean, marker="o", markersize=3, **style)
        axis.fill_between(step, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.13, lw=0)


def follow_all(
    specs: dict[str, ExperimentSpec], given: argparse.Namespace, steady: str | None = None
) -> dict[str, list[dict[str, float]]]:
    """Follow several experiments, in as many processes as the command line says."""
    if given.processes == 1:
        return {name: follow(spec, given.every, given.samples, steady) for name, spec in specs.items()}
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        tasks = {
            name: pool.submit(follow, spec, given.every, given.samples, steady)
            for name, spec in specs.items()
        }
        return {name: task.result() for name, task in tasks.items()}


def table(
    found: dict[str, list[dict[str, float]]], keys: dict[str, str], width: int
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, shown as well: the measures in the first window of learning, halfway, and in the last."""
    shown = []
    for name, steps in found.items():
        parts = {key: windows(learning(steps), key, width) for key in keys}
        longest = max(parts.values(), key=len)
        for number in sorted({0, len(longest) // 2, len(longest) - 1}):
            values = [
                part[number, 1] if len(part) == len(longest) else float("nan") for part in parts.values()
            ]
            shown.append([name, round(longest[number, 0]), *(float(value) for value in values)])
    columns = ["", "updates", *keys.values()]
    show(columns, shown)
    return columns, shown


def compare(found: dict[str, list[dict[str, float]]], keys: dict[str, str], width: int) -> dict[str, Any]:
    """Show and draw some measures of experiments that were followed, a panel for each measure.

    Args:
        keys: titles of measures, whose axis says what follows the last comma.
        width: measurements in a window.
    """
    columns, shown = table(found, keys, width)
    across = 3 if len(keys) > 4 else 2
    figure, axes = panels(across, rows=-(-len(keys) // across))
    for axis, (key, title) in zip(axes, keys.items(), strict=True):
        for number, (name, steps) in enumerate(found.items()):
            style = "--" if name.startswith("fixed") or name.endswith(("(fixed)", "(random)")) else "-"
            curve(axis, steps, key, width, color=COLOURS[number % len(COLOURS)], linestyle=style, label=name)
        name, _, unit = title.rpartition(", ")
        axis.set(xlabel="updates", title=name or title, ylabel=unit if name else "")
    legend(figure, axes[0])
    return {"columns": columns, "rows": shown, "steps": found, "figure": figure}


def legend(figure: Figure, axis: Any) -> None:
    """One legend under all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
