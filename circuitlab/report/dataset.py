"""A plain picture of one dataset of a run file: a curve, or a heat map."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.report.plots import RUNS, STYLE, save


def plot_dataset(run: Run, path: str, file: str | Path) -> None:
    """Draw one dimension as a curve, two as a heat map, three as the mean over the middle one.

    Raises:
        RunFileError: there is no such dataset, it holds no numbers, or the file cannot be written.
    """
    values = run.read(path)
    if (
        isinstance(values, str)
        or values.dtype.kind not in "iufb"
        or values.ndim not in (1, 2, 3)
        or not values.size
    ):
        raise RunFileError(f"{run.path}: {path}: only numbers of one to three dimensions can be drawn")
    item = run.datasets[path.strip("/")]
    description = str(item.attrs.get("description", ""))
    axes_names, _, what = description.partition("]")
    names = [name.strip() for name in axes_names.strip("[ ").split(",")]
    names = names if len(names) == values.ndim else [f"axis {axis}" for axis in range(values.ndim)]
    if values.ndim == 3:
        values, what = values.mean(1), f"{what.strip()}, mean over {names[1]}s"
        names = [names[0], names[2]]
    units = str(item.attrs.get("units", ""))
    label = f"{what.strip() or path}" + (f" ({units})" if units not in ("", "none", "dimensionless") else "")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(f"/{path.strip('/')}")
        axes.set_xlabel(names[0])
        if values.ndim == 1:
            index = item.attrs.get("index")
            at = np.arange(len(values)) if index is None else run.read(str(index))[: len(values)]
            axes.plot(at, values, color=RUNS[0], linewidth=1.8, marker="o" if len(values) == 1 else None)
            axes.set_ylabel(label)
            if index is not None:
                axes.set_xlabel(str(index).split("/")[-1])
        else:
            known = values[np.isfinite(values)].astype(float)
            limit = max(float(np.abs(known).max(initial=0.0)), 1e-12)
            colours = ("RdBu_r", -limit) if (known < 0).any() else ("viridis", 0.0)
            image = axes.imshow(
                values.T,
                aspect="auto",
                interpolation="nearest",
                origin="lower",
                cmap=colours[0],
                vmin=colours[1],
                vmax=limit,
            )
            axes.set_ylabel(names[1])
            figure.colorbar(image, ax=axes, label=label)
        save(figure, Path(file))
