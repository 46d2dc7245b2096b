"""Pictures of what the benchmarks found, drawn from their raw numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from circuitlab.bench.cost import PLAIN, REPEATS, Net, control_name
from circuitlab.bench.results import Results
from circuitlab.bench.timing import Spread, least_of_each, paired_ratio
from circuitlab.report.plots import GREY, INK, STYLE, check_suffix, save

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
UNITS = {"M": 1e6, "k": 1e3}
HELD = 2.5
"""The least time over the bound that sparse kernels are held to."""


@mpl.rc_context(STYLE)
def draw(results: Results, path: Path) -> None:
    """Draw a benchmark's result into a file.

    Raises:
        RunFileError: the suffix is none of a picture, or the file cannot be written.
    """
    check_suffix(path)
    figure = DRAWINGS[results.benchmark](results.numbers)
    figure.text(0.01, 0.008, results.headline(), fontsize=8.5, color=GREY, va="bottom")
    save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))  # type: ignore[union-attr]
    FigureCanvasAgg(figure)
    return figure


def _plain_log(axis: Any, values: list[float]) -> None:
    """Whole, readable numbers on a logarithmic axis."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _readable(value)))
    axis.set_minor_locator(NullLocator())


def _readable(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / UNITS[unit]:.3g}{unit}"
    return f"{value:g}"


def _cost(numbers: dict[str, Any]) -> Figure:
    """Ratios of products and of time, least control over plain recurrent backprop, by circuit."""
    cases, sparse = numbers.get("nets", []), numbers.get("sparse", [])
    panels: list[Callable[[Axes], None]] = []
    if cases:
        panels.append(lambda axes: _ratios(axes, cases, "products", "Products with W"))
        panels.append(lambda axes: _ratios(axes, cases, "solve", "Time to the equilibria"))
    if sparse:
        panels.append(lambda axes: _sparse_ratios(axes, sparse))
    figure = _figure(5.6 * len(panels) + 1, 5.6)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        panel(axes)
        axes.axhline(1, color=GREY, linewidth=1, zorder=0)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), max(1.6, high * 1.1))
    return figure


def _ratios(axes: Axes, cases: list[dict[str, Any]], reading: str, title: str) -> None:
    labels: list[str] = []
    marks: dict[str, Line2D] = {}
    alphas = sorted(
        {n.rsplit(" ", 1)[1] for c in cases for n in c["contenders"] if n.startswith("least")}, key=float
    )
    for case in cases:
        net = Net(case["trained_by"], case["updates"])
        for alpha in (a for a in alphas if control_name(float(a)) in case["contenders"]):
            if net.label not in labels:
                labels.append(net.label)
            colour, single = COLOURS[alphas.index(alpha)], case["dtype"] == "float32"
            readings = case["contenders"]
            ratio = paired_ratio(
                *(_by_batch(readings[n][reading], reading) for n in (control_name(float(alpha)), PLAIN))
            )
            shift = 0.18 * (alphas.index(alpha) - (len(alphas) - 1) / 2) + (0.05 if single else -0.05)
            axes.plot(
                labels.index(net.label) + shift, ratio, "o", color=colour, markersize=8,
                markerfacecolor=colour if single else "white", markeredgewidth=1.8,
            )  # fmt: skip
            name = f"alpha {alpha}, {case['dtype']}"
            marks[name] = Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=colour,
                markerfacecolor=colour if single else "white",
                label=name,
            )
    axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_title(title)
    axes.set_ylabel("least control / plain recurrent backprop")
    axes.legend(handles=list(marks.values()), loc="lower left")


def _by_batch(values: list[float], reading: str) -> list[float]:
    return least_of_each(values, REPEATS) if reading == "solve" else values


def _sparse_ratios(axes: Axes, cases: list[dict[str, Any]]) -> None:
    for index, alpha in enumerate(sorted({case["alpha"] for case in cases})):
        for place, case in enumerate([c for c in cases if c["alpha"] == alpha]):
            control = control_name(alpha)
            both = [
                a and b for a, b in zip(case["converged"][control], case["converged"][PLAIN], strict=True)
            ]
            label = f"alpha {alpha:g}" if place == 0 else None
            if any(both):
                sums = [
                    sum(p for p, b in zip(case["products"][n], both, strict=True) if b)
                    for n in (control, PLAIN)
                ]
                axes.plot(place, sums[0] / sums[1], "s", color=COLOURS[index], markersize=8, label=label)
            else:
                axes.text(place, 0.06 + 0.09 * index, "none", ha="center", color=COLOURS[index], fontsize=9)
    first = [c for c in cases if c["alpha"] == cases[0]["alpha"]]
    axes.set_xticks(
        range(len(first)), [f"{c['radius']:g}, {c['deviation']:g}" for c in first], rotation=20, ha="right"
    )
    axes.set_xlim(-0.5, len(first) - 0.5)
    axes.set(title="Products with W, sparse E/I", xlabel="spectral radius, input sd")
    axes.set_ylabel("least control / plain recurrent backprop")
    axes.legend(loc="lower left")


def _kernels(numbers: dict[str, Any]) -> Figure:
    """Least time over the bound, by kernel and operation."""
    names = list(dict.fromkeys(one["case"] for one in numbers["kernels"]))
    operations = list(dict.fromkeys(one["operation"] for one in numbers["kernels"]))
    figure = _figure(10, 1.8 + 0.62 * len(names))
    axes = figure.subplots()
    for one in numbers["kernels"]:
        at = operations.index(one["operation"])
        place = names.index(one["case"]) + 0.26 * (at - 1)
        for who, filled in (("own", True), ("torch", False)):
            if who in one["seconds"]:
                ratio = min(one["seconds"][who]) / one["bound"]
                axes.plot(
                    ratio, place, "o" if filled else "|", color=COLOURS[at], markersize=8 if filled else 17,
                    markeredgewidth=2,
                )  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    _plain_log(axes.xaxis, [v for v in (0.5, 1, 2, 5, 10, 20, 50) if low * 0.9 <= v <= high * 1.1] or [1.0])
    axes.axvline(1, color=INK, linewidth=1, zorder=0)
    axes.axvline(HELD, color=GREY, linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="Kernels beside what the machine could do at best", xlabel="least time / bound")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=c, label=o)
        for o, c in zip(operations, COLOURS, strict=False)
    ]
    handles.append(Line2D([], [], color=GREY, linestyle=":", label=f"{HELD:g} times the bound"))
    handles.append(Line2D([], [], marker="|", linestyle="", color=INK, markersize=12, label="torch's own"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _scale(numbers: dict[str, Any]) -> Figure:
    """Time of a controlled solve against each axis, with the line through the logarithms."""
    axes_names = list(numbers["slopes"])
    figure = _figure(4.2 * len(axes_names), 4.6)
    for axes, name, colour in zip(
        np.atleast_1d(figure.subplots(1, len(axes_names))), axes_names, COLOURS, strict=False
    ):
        points = [p for p in numbers["points"] if p["axis"] == name]
        at = np.array([p["value"] for p in points], dtype=float)
        times = 1e3 * np.array([min(p["seconds"]) for p in points])
        high = [1e3 * Spread.of(p["seconds"]).median for p in points]
        axes.set(xscale="log", yscale="log", xlabel=name, title=name.capitalize())
        axes.vlines(at, times, high, color=colour, alpha=0.4, linewidth=2)
        axes.plot(at, times, "o", color=colour)
        if len(points) > 1:
            steep, height = np.polyfit(np.log(at), np.log(times), 1)
            axes.plot(at, np.exp(height) * at**steep, color=colour, linewidth=1.2)
            axes.text(0.05, 0.92, f"slope {steep:.2f}", transform=axes.transAxes)
        _plain_log(axes.xaxis, [float(v) for v in at[:: max(1, len(at) // 4)]])
        axes.set_ylabel("ms of a controlled solve" if name == axes_names[0] else "")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    return figure


def _train(numbers: dict[str, Any]) -> Figure:
    """Test accuracy against the seconds spent learning, a line a seed."""
    figure = _figure(10, 5.8)
    axes = figure.subplots()
    lowest, highest = 100.0, 100 * max(numbers["targets"])
    for (name, runs), colour in zip(numbers["training"].items(), COLOURS, strict=False):
        for number, run in enumerate(runs):
            looks = np.array([look for look in run["looks"] if look[1] > 0]).reshape(-1, 3)
            axes.plot(
                looks[:, 1], 100 * looks[:, 2], color=colour, linewidth=1.6, marker="o", markersize=3,
                label=name if number == 0 else None,
            )  # fmt: skip
            lowest = min(lowest, float(100 * looks[:, 2].min(initial=1.0)))
            highest = max(highest, float(100 * looks[:, 2].max(initial=0.0)))
    for target in numbers["targets"]:
        axes.axhline(100 * target, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axes.annotate(
            f"{100 * target:g}%", (1, 100 * target), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", color=GREY,
        )  # fmt: skip
    axes.set_ylim(max(0.0, lowest - 1), min(100.0, highest + 1))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title="Learning MNIST", xlabel="seconds spent learning", ylabel="test accuracy, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.06, 0.5))
    return figure


DRAWINGS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "cost": _cost,
    "kernels": _kernels,
    "scale": _scale,
    "train": _train,
}
"""How each benchmark is drawn, from its raw numbers."""
