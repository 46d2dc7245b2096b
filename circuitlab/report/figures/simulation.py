"""The picture of a simulation: recorded neurons as time passes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuitlab.errors import RunFileError
from circuitlab.report.plots import GREY, SAMPLE_COLOURS, STYLE, save
from circuitlab.report.readings import Probe, Reading

PANELS, NEURONS, SAMPLES = 8, 4, 3
"""Traces, neurons of each and samples that are drawn at most."""
UP = {
    "soma": "potential",
    "rate": "firing rate",
    "basal": "basal input",
    "apical": "apical potential",
    "control": "control",
    "controller": "controller",
}


def in_time(run: Reading) -> bool:
    """Whether every recording of a run is one of a simulation."""
    return bool(run.probes) and all(probe.time_name == "ms" for probe in run.probes.values())


def plot_transients(run: Reading, path: str | Path) -> None:
    """Draw a simulation's traces into a file, a panel each, over milliseconds: up to four neurons that move most, in up
    to three samples (one colour each).

    Raises:
        RunFileError: there is nothing to draw yet, or the file cannot be written.
    """
    figure = picture(run)
    if figure is None:
        raise RunFileError(f"{run.title}: holds no recorded neurons; nothing to draw")
    save(figure, Path(path))


@mpl.rc_context(STYLE)
def picture(run: Reading) -> Figure | None:
    """The picture as a matplotlib figure; None where there is nothing to show."""
    probes = sorted(run.probes.values(), key=lambda probe: list(UP).index(probe.variable))[:PANELS]
    if not probes:
        return None
    columns = 1 if len(probes) <= 3 else 2
    rows = -(-len(probes) // columns)
    figure = Figure(figsize=(7.5 * columns + 1, 2.5 * rows + 1.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    samples = min(SAMPLES, max(probe.shape[1] for probe in probes))
    colours = ", ".join(
        f"sample {n} {c}" for n, c in zip(range(samples), ("blue", "orange", "green"), strict=False)
    )
    figure.suptitle(f"{run.title}   ({colours})", x=0.02, ha="left", fontweight="bold", fontsize=13)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, squeeze=False).T.ravel())
    for axes, probe in zip(panels, probes, strict=False):
        drawn = moving(probe)
        for sample, colour in zip(range(min(SAMPLES, probe.shape[1])), SAMPLE_COLOURS, strict=False):
            for unit in drawn:
                axes.plot(probe.time, probe.data[:, sample, unit], color=colour, linewidth=1.4)
        which = ", ".join(str(number) for number in probe.units[drawn])
        axes.set_title(f"{probe.population}, {probe.variable}")
        axes.set_title(
            f"neuron{'s' if len(drawn) > 1 else ''} {which}",
            loc="right",
            fontsize=10,
            fontweight="normal",
            color=GREY,
        )
        axes.set_ylabel(UP.get(probe.variable, probe.variable))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.axhline(0, color=GREY, linewidth=0.6)
    for axes in panels[len(probes) :]:
        axes.set_visible(False)
    for axes in panels[rows - 1 :: rows]:
        axes.set_xlabel("time (ms)")
        axes.tick_params(labelbottom=True)
    return figure


def moving(probe: Probe) -> np.ndarray:
    """Columns of the neurons that move most, at most `NEURONS`, in the order of the file."""
    data = probe.data
    spread = np.nan_to_num(np.ptp(data, axis=0)).max(0)
    return np.sort(np.argsort(-spread, kind="stable")[:NEURONS])
