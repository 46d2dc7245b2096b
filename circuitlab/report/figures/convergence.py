"""Whether samples settle: over training, sample by sample, and which never do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import (
    COLOURS,
    GREY,
    INK,
    PERCENT,
    Page,
    log_axis,
    note,
    panels,
    ranges,
    refuse,
    whole_numbers,
)
from circuitlab.report.figures.settled import Settled, settled
from circuitlab.report.readings import Reading

SHARES = {
    "unconverged": "while learning",
    "free_unconverged": "free state",
    "test_unconverged": "test samples",
}
MEANS = {"iterations": "iterations", "products": "products with W"}
PROBE = "record: {settled: {variable: converged, samples: [0, 1, 2, 3], of: test}}"
LISTED = 12
"""Samples that never settled which are named."""


def draw(run: Run, reading: Reading) -> Figure:
    """Share of samples that did not settle, iterations and residuals, over training and of single samples."""
    found = settled(run)
    wanted: list[Callable[[Axes], None]] = []
    if any(reading.curve(name) for name in SHARES):
        wanted.append(lambda axes: _shares(axes, reading))
    if any(reading.curve(name) for name in MEANS):
        wanted.append(lambda axes: _work(axes, reading))
    if reading.curve("residual"):
        wanted.append(lambda axes: _residuals(axes, reading))
    if any(s.iterations is not None for s in found):
        wanted.append(lambda axes: iterations(axes, found))
    if any(s.residual is not None for s in found):
        wanted.append(lambda axes: residuals(axes, found, _tolerance(run)))
    if any(s.unsettled is not None for s in found):
        wanted.append(lambda axes: who(axes, found))
    if not wanted:
        raise refuse(
            "convergence",
            run,
            "says nothing of how its samples settled",
            f"files of run and equilibrium do, and probes such as {PROBE}",
        )
    page = Page(f"Convergence: {run.path.stem}", 4.9 if len(wanted) <= 3 else 8.2)
    for axes, work in zip(panels(page.figure, len(wanted)), wanted, strict=True):
        work(axes)
    return page.caption(*_sentences(run, found))


def _sentences(run: Run, found: Sequence[Settled]) -> list[str]:
    if not found:
        return [f"For single samples add probes such as {PROBE}."]
    said = []
    for one in found:
        if one.unsettled is not None:
            said.append(f"{one.name[0].upper() + one.name[1:]}: {never_words(one)}.")
        if one.read < one.frames:
            said.append(f"Drawn: {one.read:,} of {one.frames:,} frames.")
    return said


def never_words(one: Settled) -> str:
    """Which samples never settled, in words, with their classes."""
    never, classes = one.never, one.classes(one.never)
    if not len(never):
        few = len(one.sometimes)
        return f"all {len(one.samples):,} samples settled" + (
            f" at some time, {few:,} of them not always" if few else ""
        )
    if classes is None:
        listed = ranges(never)
    else:
        listed = ", ".join(f"{n} (class {c})" for n, c in list(zip(never, classes, strict=True))[:LISTED])
        listed += " and more" if len(never) > LISTED else ""
    return f"{len(never):,} of {len(one.samples):,} samples never settled: {listed}"


def _shares(axes: Axes, reading: Reading) -> None:
    highest = 0.0
    for (name, word), colour in zip(SHARES.items(), COLOURS, strict=False):
        if curve := reading.curve(name):
            axes.plot(
                *curve, color=colour, linewidth=2.6, label=word, marker="o" if len(curve[0]) == 1 else None
            )
            highest = max(highest, float(curve[1].max()))
    axes.set_title("Did not settle")
    axes.set_ylabel("share of samples")
    axes.set_ylim(0 if highest else -0.0005, max(0.01, 1.2 * highest))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if highest == 0:
        axes.text(0.5, 0.25, "none at any time", transform=axes.transAxes, ha="center", color=GREY)
    axes.legend(loc="upper right")
    axes.set_xlabel("epochs finished")
    whole_numbers(axes)


def _work(axes: Axes, reading: Reading) -> None:
    for (name, word), colour in zip(MEANS.items(), COLOURS, strict=False):
        if curve := reading.curve(name):
            axes.plot(
                *curve, color=colour, linewidth=2.6, label=word, marker="o" if len(curve[0]) == 1 else None
            )
    axes.set_title("Work for an equilibrium")
    axes.set_ylabel("mean per sample")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    axes.set_xlabel("epochs finished")
    whole_numbers(axes)


def _residuals(axes: Axes, reading: Reading) -> None:
    curve = reading.curve("residual")
    assert curve is not None
    axes.plot(*curve, color=COLOURS[0], linewidth=2.6, marker="o" if len(curve[0]) == 1 else None)
    if (curve[1] > 0).all():
        axes.set_yscale("log")
        low, high = float(curve[1].min()) / 3, float(curve[1].max()) * 3
        axes.set_ylim(low, high)
        log_axis(axes.yaxis, np.array([low, high]))
    axes.set_title("Largest residual")
    axes.set_ylabel("relative residual")
    axes.set_xlabel("epochs finished")
    whole_numbers(axes)


def iterations(axes: Axes, found: Sequence[Settled]) -> None:
    """Histogram of the iterations of single samples."""
    shown = [s for s in found if s.iterations is not None and len(s.iterations)]
    most = int(max((float(np.max(s.iterations)) for s in shown if s.iterations is not None), default=1))
    width = max(1, -(-(most + 1) // 40))
    bins = np.arange(0, most + width + 1, width) - 0.5
    for one, colour in zip(shown, COLOURS, strict=False):
        assert one.iterations is not None
        axes.stairs(
            np.histogram(one.iterations, bins)[0], bins, color=colour, linewidth=2.2, label=_short(one)
        )
        axes.stairs(np.histogram(one.iterations, bins)[0], bins, fill=True, color=colour, alpha=0.2)
    axes.set_title("Iterations, each sample")
    axes.set_xlabel("iterations to the equilibrium")
    axes.set_ylabel("samples" if all(s.frames == 1 for s in shown) else "samples and times")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    whole_numbers(axes)
    axes.legend(loc="upper right", ncols=2, columnspacing=1.0, handlelength=1.2)


def residuals(axes: Axes, found: Sequence[Settled], tolerance: float | None) -> None:
    """Histogram of the residuals of single samples, in decades."""
    shown = [
        (s, s.residual[s.residual > 0]) for s in found if s.residual is not None and (s.residual > 0).any()
    ]
    axes.set_title("Residual, each sample")
    axes.set_xlabel("relative residual")
    axes.set_ylabel("samples" if all(s.frames == 1 for s in found) else "samples and times")
    if not shown:
        note(axes, "all exactly zero")
        return
    every = np.concatenate([values for _, values in shown])
    bins = np.geomspace(every.min() / 1.3, every.max() * 1.3, 31)
    for (one, values), colour in zip(shown, COLOURS, strict=False):
        axes.stairs(np.histogram(values, bins)[0], bins, color=colour, linewidth=2.2, label=_short(one))
        axes.stairs(np.histogram(values, bins)[0], bins, fill=True, color=colour, alpha=0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0,) if every.max() > 30 * every.min() else (1.0, 3.0), numticks=6)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if tolerance is not None:
        axes.axvline(tolerance, color=INK, linewidth=1.2, linestyle="--")
        axes.text(
            tolerance, 0.98, " tolerance", transform=axes.get_xaxis_transform(), fontsize=12.5, va="top"
        )
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.legend(loc="upper left", ncols=2, columnspacing=1.0, handlelength=1.2)


def _short(one: Settled) -> str:
    return one.phase or one.name


def who(axes: Axes, found: Sequence[Settled]) -> None:
    """Share of each class that did not settle; of samples without classes, of each phase."""
    shown = [s for s in found if s.unsettled is not None]
    classes = sorted({str(c) for s in shown if s.labels is not None for c in s.labels}, key=_number)
    axes.set_title("Which did not settle")
    axes.set_ylabel("share of samples")
    bars: list[tuple[str, NDArray]] = []
    for one in shown:
        assert one.unsettled is not None
        if classes and one.labels is not None:
            labels = np.array([str(c) for c in one.labels])
            values = [one.unsettled[labels == c].sum() / max(1, one.seen[labels == c].sum()) for c in classes]
            bars.append((_short(one), np.array(values)))
        elif not classes:
            bars.append((_short(one), np.array([one.unsettled.sum() / max(1, one.seen.sum())])))
    names = classes or ["all samples"]
    width = 0.8 / max(1, len(bars))
    for number, ((word, values), colour) in enumerate(zip(bars, COLOURS, strict=False)):
        at = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * width
        axes.bar(at, values, width * 0.92, color=colour, label=word)
    highest = max((float(v.max(initial=0.0)) for _, v in bars), default=0.0)
    axes.set_ylim(0, max(0.01, 1.25 * highest))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("class" if classes else "")
    if highest == 0:
        axes.text(0.5, 0.5, "none: all settled", transform=axes.transAxes, ha="center", color=GREY)
    elif len(bars) > 1:
        axes.legend(loc="upper right")
    axes.axhline(0, color=GREY, linewidth=0.8)


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _tolerance(run: Run) -> float | None:
    for phase in ("controlled", "free"):
        if f"equilibria/{phase}/residual" in run.datasets:
            value = run.file[f"equilibria/{phase}"].attrs.get("tolerance")
            if value is not None:
                return float(value)
    return None
