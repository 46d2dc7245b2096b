"""The picture of a run: how it learned, how much control it still needs, and what its neurons do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.report.readings import Probe, Reading

RUNS = ("#0072B2", "#D55E00")
SPLITS: dict[str, tuple[Literal["-", "--", ":"], float]] = {
    "test": ("-", 2.2),
    "validation": ("--", 1.5),
    "train": (":", 1.5),
}
SPLIT_WORDS = {"test": "test", "validation": "validation", "train": "training"}
SAMPLE_COLOURS = ("#0072B2", "#D55E00", "#009E73")
INK, GREY = "#222222", "#6b6b6b"
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.titlesize": 12.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 11, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 10,
    "svg.fonttype": "none", "svg.hashsalt": "circuitlab",
}  # fmt: skip
SUFFIXES = (".png", ".svg", ".pdf")

Panel = tuple[float, Callable[[SubFigure], None]]
"""A panel's share of its row's width, and the function that draws it."""


def plot_run(run: Reading, path: str | Path, compare: Reading | None = None) -> None:
    """Draw a run into a file of 1600 x 1000 points, beside another run of the circuit where one is given.

    Panels: accuracy, loss, control cost with unconverged samples; rates before and after learning; one
    neuron's soma and what its basal synapses predict. What was not recorded is left out.

    Raises:
        RunFileError: there is nothing to draw yet, or the file cannot be written.
    """
    figure = picture(run, compare)
    if figure is None:
        raise RunFileError(f"{run.title}: holds no training metrics and no recorded neurons; nothing to draw")
    save(figure, Path(path))


@mpl.rc_context(STYLE)
def save(figure: Figure, path: Path) -> None:
    """Write a picture; its suffix says the kind.

    Raises:
        RunFileError: the suffix is none of a picture, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RunFileError(f"{path}: a picture is a file ending in {', '.join(SUFFIXES)}")
    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None


@mpl.rc_context(STYLE)
def picture(run: Reading, compare: Reading | None = None) -> Figure | None:
    """The picture as a matplotlib figure; None where there is nothing to show."""
    runs = [run] if compare is None else [run, compare]
    rows = [row for row in (_curve_panels(runs), _neuron_panels(run)) if row]
    if not rows:
        return None
    height = 10 if len(rows) == 2 else 5.6
    figure = Figure(figsize=(16, height), facecolor="white")
    FigureCanvasAgg(figure)
    heights = [0.5, *[(height - 0.5) / len(rows)] * len(rows)]
    head, *bands = np.ravel(np.asarray(figure.subfigures(len(rows) + 1, 1, height_ratios=heights)))
    head.text(0.02, 0.36, run.title, fontsize=16, fontweight="bold", va="center")
    lines = [Line2D([], [], color=c, linewidth=2.6, label=r.label) for r, c in zip(runs, RUNS, strict=False)]
    head.legend(handles=lines, loc="center right", ncols=2, fontsize=12, bbox_to_anchor=(0.985, 0.36))
    for band, row in zip(bands, rows, strict=True):
        places = np.atleast_1d(band.subfigures(1, len(row), width_ratios=[share for share, _ in row]))
        for place, (_, draw) in zip(places, row, strict=True):
            draw(place)
    return figure


def _curve_panels(runs: list[Reading]) -> list[Panel]:
    panels: list[Panel] = []
    for metric, title in (("accuracy", "Accuracy"), ("loss", "Loss")):
        if any(run.curve(f"{split}_{metric}") for run in runs for split in SPLITS):
            panels.append((1.0, lambda sub, metric=metric, title=title: _learning(sub, runs, metric, title)))
    if any(run.curve("control_cost") for run in runs):
        panels.append((1.0, lambda sub: _control(sub, runs)))
    return panels


def _neuron_panels(run: Reading) -> list[Panel]:
    panels: list[Panel] = []
    rates = next((p for p in run.probes.values() if p.variable == "rate" and p.shape[1] > 1), None)
    if rates is not None:
        panels.append((2.0, lambda sub: _rates(sub, rates)))
    trio = _same_neurons(run)
    if trio is not None and "soma" in trio:
        panels.append((1.0 if rates is not None else 2.0, lambda sub: _neuron(sub, trio)))
    return panels


def _learning(sub: SubFigure, runs: list[Reading], metric: str, title: str) -> None:
    axes = _axes(
        sub, title, "epoch", "samples answered correctly" if metric == "accuracy" else "loss per sample"
    )
    shown = set()
    for run, colour in zip(runs, RUNS, strict=False):
        for split, (dashes, width) in SPLITS.items():
            if curve := run.curve(f"{split}_{metric}"):
                shown.add(split)
                marker = "o" if len(curve[0]) == 1 else None
                axes.plot(*curve, color=colour, linestyle=dashes, linewidth=width, marker=marker)
    handles = [
        Line2D([], [], color=GREY, linestyle=SPLITS[s][0], linewidth=SPLITS[s][1], label=SPLIT_WORDS[s])
        for s in SPLITS if s in shown
    ]  # fmt: skip
    axes.legend(handles=handles, loc="lower right" if metric == "accuracy" else "upper right")
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        curves = [c for run in runs for split in SPLITS if (c := run.curve(f"{split}_accuracy"))]
        learned = [values[at > 0] for at, values in curves if (at > 0).any()]
        if learned:
            # Chance level, before learning, would squeeze everything that follows into one line.
            lowest = min(float(values.min()) for values in learned)
            axes.set_ylim(max(0.0, lowest - 0.1 * (1 - lowest)), 1.005)
        ends = [c[1][-1] for run in runs if (c := run.curve("test_accuracy"))]
        if ends:
            words = " and ".join(f"{100 * value:.1f}%" for value in ends)
            axes.set_title(
                f"test at the end: {words}", loc="right", fontsize=10, fontweight="normal", color=GREY
            )
    else:
        axes.set_ylim(bottom=0)


def _control(sub: SubFigure, runs: list[Reading]) -> None:
    counted = [run for run in runs if run.curve("unconverged")]
    heights = [3.2, 1.0] if counted else [1.0]
    grid = sub.add_gridspec(
        len(heights), 1, height_ratios=heights, left=0.16, right=0.95, bottom=0.14, top=0.86, hspace=0.18
    )
    axes = sub.add_subplot(grid[0])
    axes.set_title("Control the circuit still needs")
    axes.set_ylabel("control cost per sample")
    axes.set_yscale("log")
    for run, colour in zip(runs, RUNS, strict=False):
        if (curve := run.curve("control_cost")) and (curve[1] > 0).any():
            axes.plot(*curve, color=colour, linewidth=2.2, marker="o" if len(curve[0]) == 1 else None)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    _epochs(axes)
    if not counted:
        axes.set_xlabel("epoch")
        return
    axes.tick_params(labelbottom=False)
    strip = sub.add_subplot(grid[1], sharex=axes)
    strip.set(xlabel="epoch", ylabel="unconverged\nsamples")
    highest = 0.0
    for run, colour in zip(runs, RUNS, strict=False):
        if curve := run.curve("unconverged"):
            strip.plot(*curve, color=colour, linewidth=2.0, clip_on=False)
            highest = max(highest, float(curve[1].max()))
    strip.set_ylim(0, max(0.01, 1.2 * highest))
    strip.yaxis.set_major_locator(MaxNLocator(2))
    strip.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if highest > 0.02 else 1))
    if highest == 0:
        strip.text(0.98, 0.6, "none", transform=strip.transAxes, ha="right", color=GREY)


def _rates(sub: SubFigure, probe: Probe) -> None:
    """Heat maps of the first and last frame; samples sorted by class, neurons by preferred class."""
    order, edges, names = _by_class(probe.labels, probe.shape[1])
    before, after = probe.data[0][order].T, probe.data[-1][order].T
    neurons = _by_preference(after, edges)
    both = np.concatenate([before, after], axis=1)
    shown = both[np.isfinite(both)]
    signed = bool((shown < 0).any())
    limit = max(float(np.abs(shown).max(initial=0.0)), 1e-12)
    scale = (
        {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        if signed
        else {"cmap": "viridis", "vmin": 0, "vmax": limit}
    )
    frames = [("before learning" if probe.time[0] == 0 else f"{probe.time_name} {probe.time[0]:g}", before)]
    if len(probe.data) > 1:
        frames.append((f"after {probe.time[-1]:g} {probe.time_name}s", after))
    grid = sub.add_gridspec(
        1,
        len(frames) + 1,
        width_ratios=[*[1.0] * len(frames), 0.03],
        left=0.08,
        right=0.93,
        bottom=0.14,
        top=0.86,
        wspace=0.08,
    )
    for index, (when, rates) in enumerate(frames):
        axes = sub.add_subplot(grid[index])
        image = axes.imshow(rates[neurons], aspect="auto", interpolation="nearest", rasterized=True, **scale)
        axes.set_title(f"Rates of {probe.population}, {when}" if index == 0 else when[0].upper() + when[1:])
        axes.set_xlabel("samples, sorted by class" if names else "samples")
        if names:
            for edge in edges[1:-1]:
                axes.axvline(edge - 0.5, color=INK, linewidth=0.7)
            axes.set_xticks([(a + b - 1) / 2 for a, b in pairwise(edges)], names)
            axes.tick_params(axis="x", length=0)
        axes.set_yticks([])
        if index == 0:
            axes.set_ylabel(f"{len(neurons)} neurons" + (", sorted by preferred class" if names else ""))
        if index == len(frames) - 1:
            bar = sub.colorbar(image, cax=sub.add_subplot(grid[-1]))
            bar.set_label("firing rate")
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _by_class(labels: NDArray | None, count: int) -> tuple[NDArray, list[int], list[str]]:
    """Order of the samples, where each class begins (and the end), and the classes' names if known."""
    if labels is None or len(labels) != count or len(set(labels.tolist())) > 40:
        return np.arange(count), [0, count], []
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    return order, [*starts.tolist(), count], [str(name) for name in classes]


def _by_preference(rates: NDArray, edges: list[int]) -> NDArray:
    """Order of the neurons, by the class they prefer, then by how strongly; rates [unit, sample]."""
    means = np.stack([rates[:, a:b].mean(1) for a, b in pairwise(edges)], axis=1)
    means = means - means.mean(1, keepdims=True)
    return np.lexsort((-means.max(1), means.argmax(1)))


def _same_neurons(run: Reading) -> dict[str, Probe] | None:
    """Probes of soma, basal and control (or apical) that saw the same neurons, samples and frames."""
    somas = [p for p in run.probes.values() if p.variable == "soma" and p.shape[0] > 1 and p.fixed]
    for soma in somas:
        found = {"soma": soma}
        for variable in ("basal", "control", "apical"):
            for p in run.probes.values():
                same = p.population == soma.population and p.phase == soma.phase and p.shape == soma.shape
                if (
                    p.variable == variable
                    and same
                    and np.array_equal(p.units, soma.units)
                    and np.array_equal(p.time, soma.time)
                ):
                    found[variable] = p
        if len(found) > 1:
            return found
    return {"soma": somas[0]} if somas else None


def _neuron(sub: SubFigure, probes: dict[str, Probe]) -> None:
    """One neuron over training, samples of different classes: soma and basal are apart by its control."""
    soma, basal = probes["soma"], probes.get("basal")
    driver = probes.get("control") or probes.get("apical")
    apart = soma.data if basal is None else soma.data - basal.data
    strength = np.abs(apart if driver is None else driver.data)
    samples, unit = _most_controlled(strength[: max(1, len(strength) // 4)].mean(0), soma.labels)
    grid = sub.add_gridspec(len(samples), 1, left=0.15, right=0.83, bottom=0.14, top=0.82, hspace=0.2)
    rows = [sub.add_subplot(place) for place in grid]
    for axes, sample, colour in zip(rows, samples, SAMPLE_COLOURS, strict=False):
        trace = soma.data[:, sample, unit]
        axes.plot(soma.time, trace, color=colour, linewidth=2.2)
        if basal is not None:
            predicted = basal.data[:, sample, unit]
            axes.plot(soma.time, predicted, color=colour, linewidth=1.4, linestyle="--")
            axes.fill_between(soma.time, predicted, trace, color=colour, alpha=0.22, linewidth=0)
        elif driver is not None:
            axes.plot(soma.time, driver.data[:, sample, unit], color=colour, linewidth=1.2, linestyle=":")
        what = f"class {soma.labels[sample]}" if soma.labels is not None else f"sample {sample}"
        axes.text(1.02, 0.5, what, transform=axes.transAxes, color=colour, fontweight="bold", va="center")
        axes.tick_params(labelbottom=axes is rows[-1])
        _epochs(axes)
    tall = max(high - low for low, high in (axes.get_ylim() for axes in rows))
    for axes in rows:
        middle = sum(axes.get_ylim()) / 2
        axes.set_ylim(middle - tall / 2, middle + tall / 2)
        axes.yaxis.set_major_locator(MaxNLocator(3))
    rows[len(rows) // 2].set_ylabel("potential")
    rows[-1].set_xlabel(soma.time_name)
    handles: list[Line2D] = [Line2D([], [], color=GREY, linewidth=2.2, label="soma")]
    if basal is not None:
        control = probes.get("control")
        gap = "control" if control is not None and np.allclose(apart, control.data, atol=1e-3) else "apical"
        handles.append(Line2D([], [], color=GREY, linewidth=1.4, linestyle="--", label="basal"))
        handles.append(Line2D([], [], color=GREY, linewidth=8, alpha=0.3, label=f"their gap: {gap}"))
    elif driver is not None:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=":", label=driver.variable))
    title = f"Neuron {int(soma.units[unit])} of {soma.population}"
    sub.text(0.15, 0.895, title, fontsize=12.5, fontweight="bold", va="center")
    sub.legend(handles=handles, loc="center left", bbox_to_anchor=(0.13, 0.846), ncols=3, handlelength=1.4)


def _most_controlled(strength: NDArray, labels: NDArray | None) -> tuple[list[int], int]:
    """Up to three samples, of different classes where known, and the neuron that their control drives most.

    Args:
        strength: mean size of the control, [sample, unit].
    """
    candidates = np.arange(min(3, len(strength)))
    if labels is not None and len(labels) == len(strength):
        candidates = np.unique(labels, return_index=True)[1]
    unit = int(strength[candidates].mean(0).argmax())
    strongest = np.argsort(-strength[candidates, unit], kind="stable")[:3]
    return candidates[np.sort(strongest)].tolist(), unit


def _axes(sub: SubFigure, title: str, across: str, up: str) -> Axes:
    axes = sub.subplots(gridspec_kw={"left": 0.15, "right": 0.95, "bottom": 0.14, "top": 0.86})
    axes.set(title=title, xlabel=across, ylabel=up)
    _epochs(axes)
    return axes


def _epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
