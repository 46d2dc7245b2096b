"""Learning curves: every seed, their mean and spread, conditions by colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import GREY, PERCENT, Page, log_axis, note, panels, refuse, whole_numbers
from circuitlab.report.figures.conditions import (
    Condition,
    conditions,
    learned_range,
    lines,
    seeds_sentence,
)
from circuitlab.report.plots import SPLIT_WORDS, SPLITS
from circuitlab.report.readings import Reading


def draw(run: Run, readings: Sequence[Reading]) -> Figure:
    """Accuracy, loss and control cost over training, of one run or several."""
    found = conditions(readings)
    metrics = [m for m in ("accuracy", "loss") if any(_splits(c, m) for c in found)]
    wanted = [*metrics, *(["control_cost"] if any(c.curves("control_cost") for c in found) else [])]
    if not wanted:
        raise refuse(
            "curves",
            run,
            "holds no learning curves",
            "they are in the file of every training (circuitlab run)",
        )
    page = Page(_title(readings), 6.6 if len(wanted) < 4 else 7.5)
    for axes, metric in zip(panels(page.figure, len(wanted)), wanted, strict=True):
        if metric == "control_cost":
            control_cost(axes, found)
        else:
            learning(axes, found, metric)
    if len(found) > 1:
        handles = [Line2D([], [], color=c.colour, linewidth=3.2, label=c.label) for c in found]
        page.legend(handles)
    cost = (
        "Control cost: half the squared control at the controlled equilibrium, per sample."
        if "control_cost" in wanted
        else ""
    )
    return page.caption(seeds_sentence(found), cost)


def _title(readings: Sequence[Reading]) -> str:
    names = list(dict.fromkeys(r.title for r in readings))
    return f"Learning: {', '.join(names)}"


def _splits(condition: Condition, metric: str) -> list[str]:
    return [split for split in SPLITS if condition.curves(f"{split}_{metric}")]


def learning(axes: Axes, found: Sequence[Condition], metric: str) -> None:
    """Accuracy or loss over epochs: of every split where there is one condition, else of the test samples."""
    splits = [s for s in SPLITS if any(s in _splits(c, metric) for c in found)]
    if len(found) > 1:
        splits = splits[:1]
    for split in splits:
        dashes, width = SPLITS[split]
        for condition in found:
            lines(axes, condition, f"{split}_{metric}", dashes, 1.25 * width if len(found) == 1 else 2.8)
    axes.set_title(metric.capitalize())
    axes.set_xlabel("epochs finished")
    axes.set_ylabel("samples answered correctly" if metric == "accuracy" else "loss per sample")
    whole_numbers(axes)
    if len(splits) > 1:
        handles = [
            Line2D([], [], color=GREY, linestyle=SPLITS[s][0], linewidth=SPLITS[s][1], label=SPLIT_WORDS[s])
            for s in splits
        ]
        axes.legend(handles=handles, loc="lower right" if metric == "accuracy" else "upper right")
    elif splits:
        note(axes, f"{SPLIT_WORDS[splits[0]]} samples")
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(PERCENT)
        limits = learned_range([c for one in found for s in splits for c in one.curves(f"{s}_accuracy")])
        if limits is not None:
            axes.set_ylim(*limits)
    else:
        axes.set_ylim(bottom=0)


def control_cost(axes: Axes, found: Sequence[Condition]) -> None:
    """What control the circuit still needs, on a logarithmic axis."""
    axes.set_title("Control still needed")
    axes.set_xlabel("epochs finished")
    axes.set_ylabel("control cost")
    whole_numbers(axes)
    all_ = [values for c in found for _, values in c.curves("control_cost")]
    together = np.concatenate(all_) if all_ else np.ones(1)
    if (together > 0).all():
        axes.set_yscale("log")
        log_axis(axes.yaxis, together)
    for condition in found:
        lines(axes, condition, "control_cost")
