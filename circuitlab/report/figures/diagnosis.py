"""What `circuitlab diagnose` measured: each condition of the theory, sample by sample."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import COLOURS, GREY, INK, Page, panels, refuse, short
from circuitlab.report.figures.synapses import bins_of

VERDICTS = {"holds": COLOURS[2], "roughly": COLOURS[4], "fails": COLOURS[1], "": COLOURS[0]}
"""Colours of what the theory says of a measure: green, orange, vermilion, and blue where it asks for nothing."""
PANELS = 12


def measures(run: Run) -> list[tuple[str, NDArray, dict]]:
    """Name, values [sample] (of one value: of all samples together), and attributes of each measure."""
    found = []
    for path, item in run.datasets.items():
        name = path.removeprefix("diagnosis/")
        if path.startswith("diagnosis/") and "mean" in item.attrs:
            found.append((name, np.atleast_1d(run.read(path)), dict(item.attrs)))
    order = list(VERDICTS)
    return sorted(
        found,
        key=lambda m: (
            order.index(str(m[2].get("verdict", ""))) if str(m[2].get("verdict", "")) in order else 9
        ),
    )


def draw(run: Run) -> Figure:
    """A histogram of each measure over samples, coloured by whether the theory's condition holds."""
    found = measures(run)
    if not found:
        raise refuse("overview", run, "holds no measures of a diagnosis")
    shown = found[:PANELS]
    rows = -(-len(shown) // 4)
    page = Page(f"Diagnosis: {run.path.stem}", 1.4 + 2.5 * rows)
    for axes, (name, values, said) in zip(panels(page.figure, len(shown), 4), shown, strict=True):
        _measure(axes, name, values, said)
    conclusion = str(run.file["diagnosis"].attrs.get("conclusion", ""))
    return page.caption(
        "Histograms over samples, line: mean. Green: the condition holds; orange: roughly; vermilion: it fails;"
        " blue: none is asked.",
        f"Drawn: {len(shown)} of {len(found)} measures." if len(shown) < len(found) else "",
        short(conclusion, 420),
    )


def _measure(axes: Axes, name: str, values: NDArray, said: dict) -> None:
    colour = VERDICTS.get(str(said.get("verdict", "")), COLOURS[0])
    known, mean = values[np.isfinite(values)], float(said["mean"])
    unit = str(said.get("units", ""))
    unit = "" if unit in ("", "none", "dimensionless", "share", "cosine") else f" {unit}"
    axes.set_title("\n".join(textwrap.wrap(name.replace("_", " "), 24)[:2]), fontsize=13.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if len(known) > 1:
        bins = bins_of(known, count=24)
        axes.stairs(np.histogram(known, bins)[0], bins, fill=True, color=colour, alpha=0.75)
        axes.axvline(mean, color=INK, linewidth=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}"))
        axes.tick_params(axis="x", labelsize=12, color=GREY)
    else:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.text(
            0.5, 0.5, f"{mean:.3g}{unit}", transform=axes.transAxes, fontsize=20, color=colour, ha="center"
        )
    asks = short(str(said.get("asks", "")), 26)
    axes.set_xlabel(f"mean {mean:.3g}{unit}" + (f"\nasked: {asks}" if asks else ""), fontsize=12.5)
