"""Weights before and after learning, and how synapses moved."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import (
    AFTER,
    BEFORE,
    COLOURS,
    GREY,
    INK,
    Choice,
    Page,
    axis_label,
    panels,
    refuse,
    short,
    subset,
    whole_numbers,
)
from circuitlab.report.figures.recorded import Recorded, recordings, with_ends
from circuitlab.report.figures.synapses import Synapses, bins_of, by_interest, chosen_projection, synapses

PANELS = 6
MOVERS, OTHERS, SNAPSHOTS = 5, 40, 60
"""Synapses drawn in colour and in grey, and snapshots of them, at most."""
DOTS = 4000
"""Synapses beyond which a density stands for the dots."""


def draw(run: Run, choice: Choice) -> Figure:
    """Histograms of every projection; of a chosen one also how each synapse moved."""
    name = chosen_projection(run, choice.projection)
    if name is not None:
        return _one(run, synapses(run, name))
    found = [s for s in by_interest(run) if s.count]
    if not found:
        raise refuse("weights", run, "has no synapses", "its circuit has no projections")
    shown = found[:PANELS]
    page = Page(f"Weights: {run.path.stem}", 5.2 if len(shown) <= 3 else 7.5)
    for axes, one in zip(panels(page.figure, len(shown)), shown, strict=True):
        histogram(axes, one)
        axes.set_title(short(one.name, 30))
    learned = any(s.snapshots > 1 for s in shown)
    if learned:
        handles = [
            Patch(color=BEFORE, alpha=0.55, linewidth=0, label="before learning"),
            Line2D([], [], color=AFTER, linewidth=2.6, label="after learning"),
        ]
        page.legend(handles)
    parts = [s for s in shown if s.read < s.count]
    return page.caption(
        "" if learned else "The weights that the file holds; nothing was learned in it.",
        f"Drawn: {len(shown)} of {len(found)} projections; --projection shows another."
        if len(shown) < len(found)
        else "--projection NAME shows how the synapses of one moved.",
        *(f"{s.name}: {s.read:,} of its {s.count:,} synapses." for s in parts),
    )


def histogram(axes: Axes, one: Synapses) -> None:
    """Weights before learning filled, after it as a line."""
    before = one.at(0)
    after = one.at(-1) if one.snapshots > 1 else None
    bins = bins_of(before, *([] if after is None else [after]))
    counts = np.histogram(before[np.isfinite(before)], bins)[0]
    axes.stairs(counts, bins, fill=True, color=BEFORE if after is not None else AFTER, alpha=0.55)
    if after is not None:
        axes.stairs(np.histogram(after[np.isfinite(after)], bins)[0], bins, color=AFTER, linewidth=2.4)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"{one.word} ({one.count:,} {'shared weights' if one.shared else 'synapses'})")
    axes.set_ylabel("synapses")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:g}k" if v >= 1000 else f"{v:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _one(run: Run, one: Synapses) -> Figure:
    page = Page(f"Weights of {one.name}: {run.path.stem}", 6.4)
    moved = one.snapshots > 1
    axes = np.ravel(np.asarray(page.figure.subplots(1, 3 if moved else 1, squeeze=False)))
    histogram(axes[0], one)
    axes[0].set_title(f"{one.source} to {one.target}")
    if not moved:
        return page.caption(
            "The weights that the file holds; nothing was learned in it.",
            subset("synapses", one.read, one.count),
        )
    handles = [
        Patch(color=BEFORE, alpha=0.55, linewidth=0, label="before learning"),
        Line2D([], [], color=AFTER, linewidth=2.6, label="after learning"),
    ]
    page.legend(handles)
    before, after = one.at(0), one.at(-1)
    against(axes[1], before, after, one.word)
    said = paths(axes[2], one, after - before)
    change, size = np.abs(after - before), np.abs(before)
    return page.caption(
        f"Mean change {np.mean(change):.3g}, mean {one.word} before learning {np.mean(size):.3g} (magnitudes).",
        said,
        f"Drawn: {one.read:,} of {one.count:,} synapses, in blocks at equal distances."
        if one.read < one.count
        else "",
    )


def against(axes: Axes, before: NDArray, after: NDArray, word: str) -> None:
    """Every synapse: after learning against before it."""
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    if len(before) > DOTS:
        axes.hexbin(before, after, gridsize=55, bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
    else:
        axes.plot(before, after, ".", color=AFTER, markersize=5, alpha=0.5)
    axes.plot([low, high], [low, high], color=INK, linewidth=1.0, linestyle=":")
    axes.set_title("Each synapse")
    axes.set_xlabel(f"{word} before learning")
    axes.set_ylabel(f"{word} after learning")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def paths(axes: Axes, one: Synapses, change: NDArray) -> str:
    """The synapses that moved most over training, and others in grey; from a probe where there is a finer one.

    Returns:
        What the caption says of it.
    """
    probe = _probe(one)
    if probe is not None:
        name, at = probe.frames
        kept = with_ends(len(at), 500)
        edges = probe.beside("edge_ids")
        edges = np.arange(probe.sizes["edge"]) if edges is None else edges
        few = np.arange(0, len(edges), max(1, len(edges) // 2000))
        values, at, ids = probe.read(frame=kept, edge=few), at[kept], edges[few]
        change = values[-1] - values[0]
        where = f"Right: as the probe '{probe.name}' recorded."
    else:
        order = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")
        some = np.unique(
            np.concatenate([order[:MOVERS], np.arange(0, len(order), max(1, len(order) // OTHERS))])
        )
        kept = with_ends(one.snapshots, SNAPSHOTS)
        values = np.stack([one.at(int(s))[some] for s in kept])
        ids, change = one.places()[some], change[some]
        steps = (
            one.run.read("weights/step") if "weights/step" in one.run.datasets else np.arange(one.snapshots)
        )
        name, at = "update", np.asarray(steps)[: one.snapshots][kept]
        where = "Right: at the snapshots of the weights."
    order = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")
    others = order[MOVERS:]
    for i in others[:: max(1, len(others) // OTHERS)]:
        axes.plot(at, values[:, i], color="#b0b0b0", linewidth=0.8)
    for i, colour in zip(order[:MOVERS], COLOURS, strict=False):
        axes.plot(at, values[:, i], color=colour, linewidth=2.4, label=one.ends(int(ids[i])))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_title("Over training")
    axes.set_xlabel(axis_label(name))
    axes.set_ylabel(one.word)
    whole_numbers(axes, 5)
    axes.margins(x=0)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=12, handlelength=1.0, title="moved most",
        title_fontsize=12, borderpad=0.2, alignment="left",
    )  # fmt: skip
    return where + " Coloured: the synapses that moved most, from source to target; grey: some others."


def _probe(one: Synapses) -> Recorded | None:
    wanted = ("weights", one.name, ("frame", "edge"))
    found = [r for r in recordings(one.run) if (r.variable, r.projection, r.dims) == wanted]
    return next((r for r in found if r.sizes["frame"] > one.snapshots), None)
