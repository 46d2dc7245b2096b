"""The picture of a simulation: recorded neurons as time passes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import COLOURS, GREY, Page, note
from circuitlab.report.figures.recorded import FRAMES, UNITS, Recorded, evenly, of_neurons, with_ends

PANELS, NEURONS, SAMPLES = 8, 4, 3
"""Traces, neurons of each and samples that are drawn at most."""
UP = {
    "soma": "potential",
    "rate": "firing rate",
    "basal": "basal potential",
    "apical": "apical potential",
    "control": "control",
    "controller": "controller",
}


def draw(run: Run) -> Figure:
    """A panel for each trace over milliseconds: up to four neurons that move most, in up to three samples (one colour
    each)."""
    traces = of_neurons(run)
    order = list(UP)
    traces.sort(key=lambda r: order.index(r.variable) if r.variable in UP else len(order))
    shown = traces[:PANELS]
    columns = 1 if len(shown) <= 2 else 2
    rows = -(-len(shown) // columns)
    page = Page(f"Simulation: {run.path.stem}", max(5.0, 1.5 + 2.4 * rows))
    panels = np.ravel(np.asarray(page.figure.subplots(rows, columns, sharex=True, squeeze=False)).T)
    samples = min(SAMPLES, max(r.sizes["sample"] for r in shown))
    parts = set()
    for axes, one in zip(panels, shown, strict=False):
        frames = with_ends(one.sizes["frame"], FRAMES)
        if len(frames) < one.sizes["frame"]:
            parts.add(f"Drawn: {len(frames):,} of {one.sizes['frame']:,} moments.")
        drawn, few = moving(one), range(min(SAMPLES, one.sizes["sample"]))
        at = one.frames[1][frames]
        for sample, colour in zip(few, COLOURS, strict=False):
            axes.plot(at, one.read(frame=frames, sample=sample, unit=drawn), color=colour, linewidth=1.8)
        axes.set_title(f"{one.population}, {one.variable}")
        which = ", ".join(str(number) for number in one.unit_ids[drawn])
        note(axes, f"neuron{'s' if len(drawn) > 1 else ''} {which}")
        axes.set_ylabel(UP.get(one.variable, one.variable))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.margins(x=0)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    last = [panels[min(start + rows, len(shown)) - 1] for start in range(0, len(shown), rows)]
    for axes in last:
        axes.set_xlabel("time (ms)")
        axes.tick_params(labelbottom=True)
    handles = [
        Line2D([], [], color=c, linewidth=3, label=f"sample {int(shown[0].sample_ids[n])}")
        for n, c in zip(range(min(samples, shown[0].sizes["sample"])), COLOURS, strict=False)
    ]
    page.legend(handles)
    most = max(r.sizes["sample"] for r in shown)
    return page.caption(
        "The neurons that move most.",
        *parts,
        f"Drawn: {samples} of {most:,} samples." if samples < most else "",
        f"Drawn: {len(shown)} of {len(traces)} traces." if len(shown) < len(traces) else "",
    )


def moving(one: Recorded) -> NDArray[np.int64]:
    """Columns of the neurons that move most, at most `NEURONS`, in the order of the file."""
    units = evenly(one.sizes["unit"], UNITS)
    frames, samples = with_ends(one.sizes["frame"], 200), np.arange(min(SAMPLES, one.sizes["sample"]))
    spread = np.nan_to_num(np.ptp(one.read(frame=frames, sample=samples, unit=units), axis=0)).max(0)
    return np.sort(units[np.argsort(-spread, kind="stable")[:NEURONS]])
