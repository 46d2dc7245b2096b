"""One neuron's compartments side by side: over training, samples, time, or the way to its equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.activity import by_class, mark_classes
from circuitlab.report.figures.base import (
    COLOURS,
    GREY,
    INK,
    Choice,
    Page,
    axis_label,
    capital,
    same_height,
    sample_columns,
    whole_numbers,
)
from circuitlab.report.figures.compartments import (
    RIGHT,
    Group,
    Traces,
    group_of,
    rows_of,
    strength_of,
)
from circuitlab.report.figures.recorded import FRAMES, SAMPLES, Recorded, evenly, with_ends


def draw(run: Run, choice: Choice) -> Figure:
    """Soma and basal potential with the gap between them, and beside it what acts at the apical site."""
    group, column = group_of("neuron", run, choice)
    one = group.one
    page = Page(f"{capital(one.neuron_word(column))} of {group.population}: {run.path.stem}", 8.4)
    if "point" in one.dims:
        said = _settling(page.figure, group, column, choice)
    elif "frame" in one.dims and one.sizes["frame"] > 1:
        said = _over_frames(page.figure, group, column, choice)
    else:
        said = _over_samples(page.figure, group, column, choice)
    if not choice.neurons:
        said.append("The neuron is the one that its control drives most; --neuron shows another.")
    return page.caption(*said)


def _over_frames(figure: Figure, group: Group, column: int, choice: Choice) -> list[str]:
    """Over training, or over the time of a simulation; below, all samples at the end of training."""
    one = group.one
    frames = with_ends(one.sizes["frame"], FRAMES)
    samples = evenly(one.sizes["sample"], SAMPLES)
    if choice.samples:
        samples = np.array(sample_columns(one, choice.samples))
    values = {v: r.read(frame=frames, sample=samples, unit=column) for v, r in group.parts.items()}
    name, at = one.frames
    traces = Traces(axis_label(name), at[frames], values)
    said = [
        f"Drawn: {len(frames):,} of {one.sizes['frame']:,} frames."
        if len(frames) < one.sizes["frame"]
        else ""
    ]
    if not one.fixed:
        means = {v: np.nanmean(x, axis=1, keepdims=True) for v, x in values.items()}
        spread = {v: np.nanstd(x, axis=1) for v, x in values.items()}
        axes = np.asarray(figure.subplots(1, 2, squeeze=False))
        pair(axes[0], Traces(traces.name, traces.at, means), 0, COLOURS[0], "", spread)
        titles(axes[0], group)
        return [
            *said,
            "The samples differ from frame to frame: mean over samples, bands: standard deviation.",
        ]
    strength = strength_of(group, values)
    rows = rows_of(one, samples, choice, strength)
    below = one.phase != "real time" and len(samples) >= 6 and not choice.samples
    share = [1.0] * len(rows) + ([1.4] if below else [])
    axes = np.asarray(figure.subplots(len(share), 2, squeeze=False, height_ratios=share))
    for row, (sample, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        pair(axes[row], traces, sample, colour, _sample_word(one, samples[sample]))
        for ax in axes[row]:
            if row < len(rows) - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if name in ("epoch", "update"):
                whole_numbers(ax)
    for column_ in (0, 1):
        same_height(axes[: len(rows), column_])
    titles(axes[0], group)
    if below:
        dots(axes[-1], one, {v: x[-1] for v, x in values.items()}, samples)
        axes[-1, 0].set_title(f"Every sample, {one.frame_word(one.sizes['frame'] - 1)}")
    return [*said, gap_sentence(group, traces.gap, values)]


def _sample_word(one: Recorded, column: int) -> str:
    words = f"sample {int(one.sample_ids[column])}"
    return words if one.labels is None else f"{words}\nclass {one.labels[column]}"


def pair(
    axes: Sequence[Axes] | NDArray,
    traces: Traces,
    sample: int,
    colour: str,
    word: str,
    spread: dict[str, NDArray] | None = None,
) -> None:
    """Soma and basal with the shaded gap at the left; apical or control, with the gap as dots, at the right."""
    left, right = axes
    at, values = traces.at, {v: x[:, sample] for v, x in traces.values.items()}
    potentials(left, traces, sample, colour)
    gap = traces.gap
    if gap is not None:
        few = with_ends(len(at), 24)
        right.plot(
            at[few], gap[few, sample], linestyle="none", marker="o", markersize=6, color="none",
            markeredgecolor=INK, markeredgewidth=1.2, label="soma - basal", zorder=3,
        )  # fmt: skip
    for variable, dashes in zip((v for v in RIGHT if v in values), ("-", ":"), strict=False):
        right.plot(at, values[variable], color=colour, linewidth=2.6, linestyle=dashes, label=variable)
    for v, sd in (spread or {}).items():
        place = right if v in RIGHT else left
        if v in ("soma", *RIGHT):
            place.fill_between(at, values[v] - sd, values[v] + sd, color=colour, alpha=0.12, linewidth=0)
    right.axhline(0, color=GREY, linewidth=0.8)
    for ax in (left, right):
        ax.set_xlabel(traces.name)
        ax.margins(x=0.02)
    if word:
        right.text(
            1.02,
            0.5,
            word,
            transform=right.transAxes,
            color=colour,
            fontweight="bold",
            va="center",
            fontsize=14,
        )


def potentials(axes: Axes, traces: Traces, sample: int, colour: str) -> None:
    """Soma as a line, basal dashed, the gap between them shaded; the rate where there is no soma."""
    at, values = traces.at, {v: x[:, sample] for v, x in traces.values.items()}
    marker = "o" if len(at) == 1 else None
    first = "soma" if "soma" in values else "rate"
    if first in values:
        axes.plot(at, values[first], color=colour, linewidth=2.6, label=first, marker=marker)
    if "basal" in values:
        axes.plot(
            at, values["basal"], color=colour, linewidth=1.8, linestyle="--", label="basal", marker=marker
        )
    if traces.gap is not None:
        axes.fill_between(at, values["basal"], values["soma"], color=colour, alpha=0.22, linewidth=0)


def titles(axes: Sequence[Axes] | NDArray, group: Group, as_dots: bool = False) -> None:
    """What each column shows, with its lines' meaning, or its dots'."""
    left, right = axes
    parts = group.parts
    if as_dots:
        _dot_titles(left, right, parts)
        return
    handles = []
    if "soma" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=2.6, label="soma"))
    elif "rate" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=2.6, label="rate"))
    if "basal" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=1.8, linestyle="--", label="basal"))
    if "soma" in parts and "basal" in parts:
        handles.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="gap"))
    left.set_title("Soma, basal" if "soma" in parts or "basal" in parts else "Firing rate")
    left.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=3, handlelength=1.3,
                columnspacing=1.0)  # fmt: skip
    found = [v for v in RIGHT if v in parts]
    handles = [
        Line2D([], [], color=GREY, linewidth=2.6, linestyle=dashes, label=v)
        for v, dashes in zip(found, ("-", ":"), strict=False)
    ]
    if "soma" in parts and "basal" in parts:
        handles.append(
            Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", markeredgecolor=INK,
                   label="soma - basal")
        )  # fmt: skip
    if found:
        right.set_title({"apical": "Apical", "control": "Control"}.get(found[0], "Controller"))
    elif handles:
        right.set_title("Their gap: the control")
    else:
        right.set_axis_off()
    if handles:
        right.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=3, handlelength=1.3,
                     columnspacing=1.0)  # fmt: skip


def _dot_titles(left: Axes, right: Axes, parts: dict[str, Recorded]) -> None:
    look = {"linestyle": "none", "marker": "o", "markersize": 8, "markeredgecolor": GREY}
    handles = [
        Line2D([], [], markerfacecolor=GREY if word != "basal" else "white", label=word, **look)
        for word in ("soma", "basal", "rate")
        if word in parts and (word != "rate" or "soma" not in parts)
    ]
    left.set_title("Soma, basal" if {"soma", "basal"} & set(parts) else "Firing rate")
    left.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=2, columnspacing=1.0)
    found = [v for v in RIGHT if v in parts]
    if found:
        right.set_title({"apical": "Apical", "control": "Control"}.get(found[0], "Controller"))
    elif {"soma", "basal"} <= set(parts):
        right.set_title("Their gap: the control")
    else:
        right.set_axis_off()


def gap_sentence(group: Group, gap: NDArray | None, values: dict[str, NDArray]) -> str:
    """How the gap and what teaches go together, as the numbers say."""
    if gap is None:
        return ""
    one = group.one
    if "point" in one.dims or one.phase == "real time":
        what = "apical potential" if "apical" in group.parts else "control"
        return f"At rest the gap between soma and basal potential is the {what}; on the way the soma lags behind."
    for variable in ("control", "apical"):
        if variable in values:
            apart = float(np.nanmax(np.abs(gap - values[variable]), initial=0.0))
            scale = float(np.nanmax(np.abs(gap), initial=0.0))
            if apart <= 0.02 * scale + 1e-6:
                name = "control" if variable == "control" else "apical potential"
                return f"The gap between soma and basal potential is the {name}, which teaches its basal synapses."
    return (
        "The gap between soma and basal potential (shaded) is the control, which teaches its basal synapses."
    )


def _over_samples(figure: Figure, group: Group, column: int, choice: Choice) -> list[str]:
    """One state, sample by sample: an equilibrium, or a single frame."""
    one = group.one
    samples = evenly(one.sizes["sample"], SAMPLES)
    if choice.samples:
        samples = np.array(sample_columns(one, choice.samples))
    at: dict = {"sample": samples, "unit": column}
    if "frame" in one.dims:
        at["frame"] = one.sizes["frame"] - 1
    values = {v: r.read(**at) for v, r in group.parts.items()}
    axes = np.asarray(figure.subplots(1, 2, squeeze=False))[0]
    dots(axes, one, values, samples)
    titles(axes, group, as_dots=True)
    gap = values["soma"] - values["basal"] if {"soma", "basal"} <= set(values) else None
    where = f"At the {one.phase} equilibrium." if one.phase in ("free", "controlled") else ""
    return [where, gap_sentence(group, gap, values)]


def dots(axes: Sequence[Axes] | NDArray, one: Recorded, values: dict[str, NDArray], samples: NDArray) -> None:
    """A dot for every sample, by class: at the left its potentials, at the right what drives them."""
    left, right = axes
    states(left, one, values, samples)
    driver = next((v for v in RIGHT if v in values), None)
    if driver is not None:
        states(right, one, {driver: values[driver]}, samples)
    elif {"soma", "basal"} <= set(values):
        states(right, one, {"control": values["soma"] - values["basal"]}, samples)
    right.axhline(0, color=GREY, linewidth=0.8)


def states(axes: Axes, one: Recorded, values: dict[str, NDArray], samples: NDArray) -> None:
    """A dot for every sample, classes in turns of two colours: soma full, basal open, a line between them; of another
    variable a line from zero.

    Args:
        values: by variable, [sample].
    """
    labels = None if one.labels is None else one.labels[samples]
    order, edges, names = by_class(labels, len(samples))
    x = np.arange(len(samples))
    colours = [COLOURS[0]] * len(samples)
    for number, (a, b) in enumerate(pairwise(edges)):
        colours[a:b] = [COLOURS[number % 2]] * (b - a)
    found = {v: value[order] for v, value in values.items()}
    size = float(np.clip(2200 / max(1, len(x)), 6, 60))
    full = next((v for v in ("soma", "rate", *RIGHT) if v in found), None)
    if full is not None and ("basal" in found or full in RIGHT):
        low = found.get("basal", np.zeros(len(x)))
        axes.vlines(x, low, found[full], colors=colours, linewidth=1.4, alpha=0.5)
    if "basal" in found:
        axes.scatter(x, found["basal"], s=size, facecolors="white", edgecolors=colours, linewidth=1.4)
    if full is not None:
        axes.scatter(x, found[full], s=size, c=colours)
    axes.set_xlabel("samples, by class" if names else "samples")
    mark_classes(axes, edges, names)
    axes.margins(x=0.02)


def _settling(figure: Figure, group: Group, column: int, choice: Choice) -> list[str]:
    """Along the way to the equilibrium: before learning and after it."""
    one = group.one
    assert one.points is not None
    name, at = one.points
    kept = with_ends(len(at), FRAMES)
    last = one.sizes.get("frame", 1) - 1
    samples = (
        np.array(sample_columns(one, choice.samples)) if choice.samples else evenly(one.sizes["sample"], 200)
    )
    index: dict = {"point": kept, "sample": samples, "unit": column}
    if "frame" in one.dims:
        index["frame"] = last
    values = {v: r.read(**index) for v, r in group.parts.items()}
    traces = Traces(axis_label(name), at[kept], values)
    driver = group.driver
    strength = np.abs(values[driver] if driver else next(iter(values.values())))[-1]
    rows = rows_of(one, samples, choice, np.nan_to_num(strength))
    axes = np.asarray(figure.subplots(len(rows), 2, sharex=True, squeeze=False))
    for row, (sample, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        pair(axes[row], traces, sample, colour, _sample_word(one, samples[sample]))
        if row < len(rows) - 1:
            for ax in axes[row]:
                ax.set_xlabel("")
    for column_ in (0, 1):
        same_height(axes[:, column_])
    titles(axes[0], group)
    when = f"Along the way to the {one.phase or 'controlled'} equilibrium, {one.frame_word(last)}."
    return [when, gap_sentence(group, traces.gap, values)]


def gaps(place: SubFigure, group: Group, column: int, title: str) -> list[str]:
    """Soma, basal and their gap alone, for a page of many panels: three samples over training, or all at one time.

    Returns:
        Sentences of the caption.
    """
    one, left = group.one, [v for v in ("soma", "basal") if v in group.parts]
    if "frame" not in one.dims or one.sizes["frame"] == 1:
        samples = evenly(one.sizes["sample"], SAMPLES)
        at: dict = {"sample": samples, "unit": column} | ({"frame": 0} if "frame" in one.dims else {})
        axes = place.subplots()
        states(axes, one, {v: group.parts[v].read(**at) for v in left}, samples)
        axes.set_title(title)
        axes.set_ylabel("potential")
        return (
            ["Neuron: soma full, basal open; the line between them is the control."] if len(left) == 2 else []
        )
    frames, samples = with_ends(one.sizes["frame"], FRAMES), evenly(one.sizes["sample"], 50)
    values = {v: r.read(frame=frames, sample=samples, unit=column) for v, r in group.parts.items()}
    rows = rows_of(one, samples, Choice(), strength_of(group, values))
    traces = Traces(axis_label(one.frames[0]), one.frames[1][frames], values)
    panels = np.ravel(np.asarray(place.subplots(len(rows), 1, sharex=True, squeeze=False)))
    for axes, sample, colour in zip(panels, rows, COLOURS, strict=False):
        potentials(axes, traces, sample, colour)
        word = (
            f"class {one.labels[samples[sample]]}"
            if one.labels is not None
            else _sample_word(one, samples[sample])
        )
        axes.text(
            1.02,
            0.5,
            word,
            transform=axes.transAxes,
            color=colour,
            fontweight="bold",
            va="center",
            fontsize=13,
        )
        axes.yaxis.set_major_locator(MaxNLocator(3))
        whole_numbers(axes)
    same_height(panels)
    panels[len(panels) // 2].set_ylabel(f"potential, {group.population}")
    panels[-1].set_xlabel(traces.name)
    panels[0].set_title(title)
    if len(left) < 2:
        return []
    return ["Neuron: soma full, basal dashed; the gap between them is its control."]
