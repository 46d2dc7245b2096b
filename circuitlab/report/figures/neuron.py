"""One neuron's compartments side by side: over training, samples, time, or the way to its equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.activity import mark_classes
from circuitlab.report.figures.base import (
    COLOURS,
    GREY,
    INK,
    Choice,
    Page,
    axis_label,
    chosen_population,
    columns_of,
    example,
    neuron_ids,
    refuse,
    sample_columns,
    whole_numbers,
)
from circuitlab.report.figures.recorded import (
    FRAMES,
    SAMPLES,
    UNITS,
    Recorded,
    evenly,
    names_of,
    of_neurons,
    with_ends,
)

LEFT, RIGHT = ("soma", "basal", "rate"), ("apical", "control", "controller")
ROWS = 3
"""Samples with a row of their own, at most."""


@dataclass(frozen=True, eq=False)
class Group:
    """Recordings of the same neurons, samples and frames: the compartments of a population, by variable."""

    population: str
    parts: dict[str, Recorded]

    @property
    def one(self) -> Recorded:
        """Any of them: they share everything but the values."""
        return next(iter(self.parts.values()))

    @property
    def driver(self) -> str | None:
        """The variable at the right: what teaches."""
        return next((v for v in RIGHT if v in self.parts), None)


@dataclass(frozen=True, eq=False)
class Traces:
    """What is drawn of one neuron.

    Args:
        at: along the lower axis, [point]. values: by variable, [point, sample]. name: of the lower axis.
    """

    name: str
    at: NDArray
    values: dict[str, NDArray]

    @property
    def gap(self) -> NDArray | None:
        """soma - basal, [point, sample]: the control."""
        if "soma" in self.values and "basal" in self.values:
            return self.values["soma"] - self.values["basal"]
        return None


def groups(run: Run, population: str | None = None) -> list[Group]:
    """What was recorded together, those first that hold most compartments over most frames."""
    found: dict[tuple, dict[str, Recorded]] = {}
    for r in of_neurons(run):
        if r.variable not in (*LEFT, *RIGHT) or (population is not None and r.population != population):
            continue
        key = (
            r.population,
            r.phase,
            r.dims,
            tuple(r.sizes.values()),
            r.unit_ids.tobytes(),
            r.sample_ids.tobytes(),
            r.frames[1].tobytes(),
        )
        found.setdefault(key, {}).setdefault(r.variable, r)
    made = [Group(key[0], parts) for key, parts in found.items()]

    def rank(group: Group) -> tuple:
        one = group.one
        three = "soma" in group.parts and "basal" in group.parts
        teaches = bool({"control", "apical"} & set(group.parts))
        return (
            not (three and teaches),
            -len(group.parts),
            "point" in one.dims,
            one.phase == "free",
            not one.fixed,
            -one.sizes.get("frame", 1),
        )

    return sorted(made, key=rank)


def draw(run: Run, choice: Choice) -> Figure:
    """Soma and basal potential with the gap between them, and beside it what acts at the apical site."""
    population = chosen_population("neuron", run, choice)
    found = groups(run, population)
    if not found:
        of = f" of '{population}'" if population else " of single neurons"
        wanted = f"record soma, basal and apical or control, such as {example(run, 'soma', ', samples: [0, 1, 2], of: test', population)}"
        raise refuse("neuron", run, f"has no recorded potentials{of}", wanted)
    group = found[0]
    if choice.neurons:
        (number, *_) = numbers = neuron_ids(run, group.population, choice.neurons)
        if len(numbers) > 1:
            raise refuse("neuron", run, "is asked for several neurons", "give --neuron once")
        holding = [g for g in found if number in g.one.unit_ids] or [group]
        group = holding[0]
        column = columns_of(group.one, group.population, [number])[0]
    else:
        column = most_driven(group)
    one = group.one
    page = Page(f"{_called(run, one, column)} of {group.population}", 8.4)
    if "point" in one.dims:
        said = _settling(page.figure, group, column, choice)
    elif "frame" in one.dims and one.sizes["frame"] > 1:
        said = _over_frames(page.figure, group, column, choice)
    else:
        said = _over_samples(page.figure, group, column, choice)
    if not choice.neurons:
        said.append("The neuron is the one that its control drives most; --neuron shows another.")
    return page.caption(*said)


def _called(run: Run, one: Recorded, column: int) -> str:
    word = one.neuron_word(column)
    return f"{run.path.stem}: {word}"


def most_driven(group: Group) -> int:
    """Column of the neuron with the largest mean control early on; of the soma's movement where none was recorded."""
    one = group.one
    at: dict = {
        "unit": evenly(one.sizes["unit"], UNITS),
        "sample": evenly(one.sizes["sample"], 50),
    }
    if "frame" in one.dims:
        count = one.sizes["frame"]
        at["frame"] = np.arange(0, max(1, count // 4), max(1, count // 80)) if "point" not in one.dims else 0
        if one.phase == "real time":
            at["frame"] = with_ends(count, 40)
    if "point" in one.dims:
        at["point"] = with_ends(one.sizes["point"], 20)
    if group.driver is not None:
        values = np.abs(group.parts[group.driver].read(**at))
    elif "basal" in group.parts and "soma" in group.parts:
        values = np.abs(group.parts["soma"].read(**at) - group.parts["basal"].read(**at))
    else:
        values = np.abs(one.read(**at))
    strength = np.nan_to_num(values).reshape(-1, values.shape[-1]).mean(0)
    return int(at["unit"][strength.argmax()])


def pick_samples(one: Recorded, choice: Choice, strength: NDArray) -> list[int]:
    """Columns of the samples that have a row: those asked for, or the most driven ones of different classes.

    Args:
        strength: mean size of what drives the neuron, [sample].
    """
    if choice.samples:
        return sample_columns(one, choice.samples)[:ROWS]
    candidates = np.arange(len(strength))
    if one.labels is not None:
        candidates = np.unique(one.labels, return_index=True)[1]
    strongest = candidates[np.argsort(-np.nan_to_num(strength)[candidates], kind="stable")[:ROWS]]
    return sorted(strongest.tolist())


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
        return [*said, "The samples differ from frame to frame: mean over samples, bands: standard deviation."]
    strength = _strength(group, values)
    rows = _rows(one, samples, choice, strength)
    below = one.phase != "real time" and len(samples) >= 6 and not choice.samples
    share = [1.0] * len(rows) + ([1.5] if below else [])
    bands = figure.subfigures(2, 1, height_ratios=[sum(share[: len(rows)]), 1.5]) if below else None
    top = figure if bands is None else bands[0]
    axes = np.asarray(top.subplots(len(rows), 2, sharex=True, sharey="col", squeeze=False))
    for row, (sample, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        pair(axes[row], traces, sample, colour, _sample_word(one, samples[sample]))
        for ax in axes[row]:
            if row < len(rows) - 1:
                ax.set_xlabel("")
            if name in ("epoch", "update"):
                whole_numbers(ax)
    titles(axes[0], group)
    if bands is not None:
        last = {v: x[-1] for v, x in values.items()}
        at_end = np.asarray(bands[1].subplots(1, 2, squeeze=False))[0]
        dots(at_end, one, last, samples)
        at_end[0].set_title(f"All samples, {one.frame_word(one.sizes['frame'] - 1)}")
    return [*said, gap_sentence(group, traces.gap, values)]


def _strength(group: Group, values: dict[str, NDArray]) -> NDArray:
    driver = group.driver
    if driver is not None:
        early = values[driver]
    elif "soma" in values and "basal" in values:
        early = values["soma"] - values["basal"]
    else:
        early = next(iter(values.values()))
    count = len(early) if group.one.phase == "real time" else max(1, len(early) // 4)
    return np.abs(np.nan_to_num(early[:count])).mean(0)


def _rows(one: Recorded, samples: NDArray, choice: Choice, strength: NDArray) -> list[int]:
    """Which of the samples read have a row."""
    if choice.samples:
        return list(range(min(ROWS, len(samples))))
    labels = None if one.labels is None else one.labels[samples]
    candidates = np.arange(len(samples)) if labels is None else np.unique(labels, return_index=True)[1]
    strongest = candidates[np.argsort(-strength[candidates], kind="stable")[:ROWS]]
    return sorted(strongest.tolist())


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
    marker = "o" if len(at) == 1 else None
    if "soma" in values:
        left.plot(at, values["soma"], color=colour, linewidth=2.6, label="soma", marker=marker)
    elif "rate" in values:
        left.plot(at, values["rate"], color=colour, linewidth=2.6, label="rate", marker=marker)
    if "basal" in values:
        left.plot(at, values["basal"], color=colour, linewidth=1.8, linestyle="--", label="basal", marker=marker)
    gap = traces.gap
    if gap is not None:
        left.fill_between(at, values["basal"], values["soma"], color=colour, alpha=0.22, linewidth=0)
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
            1.02, 0.5, word, transform=right.transAxes, color=colour, fontweight="bold", va="center", fontsize=14
        )


def titles(axes: Sequence[Axes] | NDArray, group: Group) -> None:
    """What each column shows, with its lines' meaning."""
    left, right = axes
    parts = group.parts
    handles = []
    if "soma" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=2.6, label="soma"))
    elif "rate" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=2.6, label="rate"))
    if "basal" in parts:
        handles.append(Line2D([], [], color=GREY, linewidth=1.8, linestyle="--", label="basal"))
    if "soma" in parts and "basal" in parts:
        handles.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="gap"))
    left.set_title("Soma and basal potential" if "soma" in parts or "basal" in parts else "Firing rate")
    left.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=3, handlelength=1.3,
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
        right.set_title({"apical": "Apical potential", "control": "Control"}.get(found[0], "Controller"))
    elif handles:
        right.set_title("Their gap: the control")
    else:
        right.set_axis_off()
    if handles:
        right.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=3, handlelength=1.3,
                     columnspacing=1.0)  # fmt: skip


def gap_sentence(group: Group, gap: NDArray | None, values: dict[str, NDArray]) -> str:
    """How the gap and what teaches go together, as the numbers say."""
    if gap is None:
        return ""
    for variable in ("control", "apical"):
        if variable in values:
            apart = float(np.nanmax(np.abs(gap - values[variable]), initial=0.0))
            scale = float(np.nanmax(np.abs(gap), initial=0.0))
            if apart <= 0.02 * scale + 1e-6:
                name = "control" if variable == "control" else "apical potential"
                return f"The gap between soma and basal potential is the {name}: what teaches the neuron's basal synapses."
    return "The gap between soma and basal potential (shaded) is the control: what teaches the neuron's basal synapses."


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
    titles(axes, group)
    gap = values["soma"] - values["basal"] if {"soma", "basal"} <= set(values) else None
    where = f"At the {one.phase} equilibrium." if one.phase in ("free", "controlled") else ""
    return [where, gap_sentence(group, gap, values)]


def dots(axes: Sequence[Axes] | NDArray, one: Recorded, values: dict[str, NDArray], samples: NDArray) -> None:
    """A dot for every sample, by class: soma full, basal open, a line between them; at the right what drives it."""
    from circuitlab.report.figures.activity import by_class

    left, right = axes
    labels = None if one.labels is None else one.labels[samples]
    order, edges, names = by_class(labels, len(samples))
    x = np.arange(len(samples))
    colours = np.array([COLOURS[0]] * len(samples), dtype=object)
    for number, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        colours[a:b] = COLOURS[number % 2]
    values = {v: found[order] for v, found in values.items()}
    size = float(np.clip(2200 / max(1, len(x)), 6, 60))
    if "soma" in values and "basal" in values:
        left.vlines(x, values["basal"], values["soma"], colors=list(colours), linewidth=1.4, alpha=0.5)
    if "basal" in values:
        left.scatter(x, values["basal"], s=size, facecolors="white", edgecolors=list(colours), linewidth=1.4)
    first = "soma" if "soma" in values else "rate" if "rate" in values else None
    if first is not None:
        left.scatter(x, values[first], s=size, c=list(colours))
    driver = next((v for v in RIGHT if v in values), None)
    shown = values[driver] if driver else values["soma"] - values["basal"] if "basal" in values and "soma" in values else None
    if shown is not None:
        right.vlines(x, 0, shown, colors=list(colours), linewidth=1.4, alpha=0.5)
        right.scatter(x, shown, s=size, c=list(colours))
    right.axhline(0, color=GREY, linewidth=0.8)
    for ax in (left, right):
        ax.set_xlabel("samples, by class" if names else "samples")
        mark_classes(ax, edges, names)
        ax.margins(x=0.02)


def _settling(figure: Figure, group: Group, column: int, choice: Choice) -> list[str]:
    """Along the way to the equilibrium: before learning and after it."""
    one = group.one
    assert one.points is not None
    name, at = one.points
    kept = with_ends(len(at), FRAMES)
    last = one.sizes.get("frame", 1) - 1
    samples = np.array(sample_columns(one, choice.samples)) if choice.samples else evenly(one.sizes["sample"], 200)
    index: dict = {"point": kept, "sample": samples, "unit": column}
    if "frame" in one.dims:
        index["frame"] = last
    values = {v: r.read(**index) for v, r in group.parts.items()}
    traces = Traces(axis_label(name), at[kept], values)
    driver = group.driver
    strength = np.abs(values[driver] if driver else next(iter(values.values())))[-1]
    rows = _rows(one, samples, choice, np.nan_to_num(strength))
    axes = np.asarray(figure.subplots(len(rows), 2, sharex=True, sharey="col", squeeze=False))
    for row, (sample, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        pair(axes[row], traces, sample, colour, _sample_word(one, samples[sample]))
        if row < len(rows) - 1:
            for ax in axes[row]:
                ax.set_xlabel("")
    titles(axes[0], group)
    when = f"Along the way to the {one.phase or 'controlled'} equilibrium, {one.frame_word(last)}."
    return [when, gap_sentence(group, traces.gap, values)]


__all__ = ["Group", "Traces", "draw", "groups", "most_driven", "names_of"]
