"""A plain picture of one dataset of a run file: a curve, or a heat map."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.report.figures.base import COLOURS, TALK, Page
from circuitlab.report.figures.recorded import axes_of, evenly
from circuitlab.report.plots import save

POINTS = (100_000, 1500, 1500)
"""Along the axes of a dataset of one, two or three dimensions, so many numbers are read at most, at equal distances."""
MIDDLE = 200
"""Along the axis over which the mean is taken."""


def plot_dataset(run: Run, path: str, file: str | Path) -> None:
    """Draw one dimension as a curve, two as a heat map, three as the mean over the middle one.

    Raises:
        RunFileError: there is no such dataset, it holds no numbers, or the file cannot be written.
    """
    with mpl.rc_context(TALK):
        figure = picture(run, path)
    save(figure, Path(file), TALK, 120)


def picture(run: Run, path: str) -> Figure:
    """The picture as a matplotlib figure.

    Raises:
        RunFileError: as of `plot_dataset`.
    """
    path = path.strip("/")
    item = run.datasets.get(path)
    if item is None:
        run.read(path)  # says what is wrong
    assert item is not None
    if item.dtype.kind not in "iufb" or item.ndim not in (1, 2, 3) or not item.size:
        raise RunFileError(f"{run.path}: {path}: only numbers of one to three dimensions can be drawn")
    names = list(axes_of(item))
    what = str(item.attrs.get("description", "")).partition("]")[2].strip() if names else ""
    names = names if len(names) == item.ndim else [f"axis {axis}" for axis in range(item.ndim)]
    most = POINTS[:1] if item.ndim == 1 else POINTS[1:] if item.ndim == 2 else (POINTS[1], MIDDLE, POINTS[2])
    steps = [
        int(np.diff(e)[0]) if len(e := evenly(n, m)) > 1 else 1 for n, m in zip(item.shape, most, strict=True)
    ]
    try:
        values = np.asarray(item[tuple(slice(None, None, step) for step in steps)])
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise RunFileError(f"{run.path}: {path}: is damaged and cannot be read") from error
    if values.ndim == 3:
        values, what = values.mean(1), f"{what}, mean over {names[1]}s"
        names, steps = [names[0], names[2]], [steps[0], steps[2]]
    units = str(item.attrs.get("units", ""))
    label = f"{what or path}" + (f" ({units})" if units not in ("", "none", "dimensionless") else "")
    page = Page(f"/{path}: {run.path.stem}", 6.0)
    axes = page.figure.add_subplot()
    axes.set_xlabel(names[0])
    if values.ndim == 1:
        index = item.attrs.get("index")
        at = np.arange(item.shape[0])[:: steps[0]]
        if index is not None:
            at = run.read(str(index))[: item.shape[0] : steps[0]]
            axes.set_xlabel(str(index).split("/")[-1])
        axes.plot(at, values, color=COLOURS[0], linewidth=2.2, marker="o" if len(values) == 1 else None)
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
            extent=(-0.5, item.shape[0] - 0.5, -0.5, item.shape[-1] - 0.5),
        )
        axes.set_ylabel(names[1])
        page.figure.colorbar(
            image, ax=axes, label=units if units not in ("", "none", "dimensionless") else "value"
        )
    drawn = " x ".join(f"{n:,}" for n in values.shape)
    whole = " x ".join(f"{n:,}" for n in item.shape)
    return page.caption(
        f"{label[:1].upper()}{label[1:]}.",
        f"Drawn: {drawn} of {whole} values, at equal distances." if any(step > 1 for step in steps) else "",
    )
