"""What all figures of runs share: their page, style and colours, what was chosen, and how a refusal reads."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record.reader import Run
from circuitlab.report.figures.recorded import Recorded, names_of, populations
from circuitlab.report.plots import COLOURS, GREY, INK, STYLE

TALK: dict[Any, Any] = STYLE | {
    "font.size": 15, "axes.titlesize": 16, "axes.labelsize": 15, "xtick.labelsize": 13.5, "ytick.labelsize": 13.5,
    "legend.fontsize": 13.5, "axes.linewidth": 1.0, "text.parse_math": False, "axes.formatter.useoffset": False,
}  # fmt: skip
"""Legible from the last row of a lecture hall on a slide of 16:9."""
WIDTH, HEIGHT = 13.333, 7.5
"""Inches of a page: a slide's."""
BEFORE, AFTER = "#8a8a8a", COLOURS[0]
"""Colours of what was before learning, and after it."""
LETTERS = 128
"""Of a caption, to a line."""


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}%")
"""Of an axis of shares."""


@dataclass(frozen=True)
class Choice:
    """What a reader asked a figure to show.

    Args:
        population, projection, probe: by name. neurons: by number or name. samples: by number.
    """

    population: str | None = None
    neurons: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
    projection: str | None = None
    probe: str | None = None


class Page:
    """A slide with a title, and a caption below.

    Args:
        title: bold, at the top left. height: inches.
    """

    def __init__(self, title: str, height: float = HEIGHT) -> None:
        self.figure = Figure(figsize=(WIDTH, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(self.figure)
        self.height = height
        self.title = short(title, 95)
        top = self.figure.text(0.012, 1 - 0.16 / height, self.title, fontsize=19, fontweight="bold", va="top")
        top.set_in_layout(False)

    def legend(self, handles: Sequence[Any]) -> None:
        """Says at the top right what lines mean in all panels."""
        shown = self.figure.legend(
            handles=list(handles),
            loc="upper right",
            ncols=4,
            bbox_to_anchor=(0.995, 1 - 0.08 / self.height),
            handlelength=1.3,
            columnspacing=1.4,
            borderaxespad=0.0,
        )
        shown.set_in_layout(False)

    def caption(self, *sentences: str) -> Figure:
        """Writes the caption, makes room for it, and returns the figure."""
        text = " ".join(sentence for sentence in sentences if sentence)
        lines = textwrap.wrap(text, LETTERS)
        below = self.figure.text(
            0.012,
            0.1 / self.height,
            "\n".join(lines),
            fontsize=12.5,
            color=GREY,
            va="bottom",
            linespacing=1.25,
        )
        below.set_in_layout(False)
        bottom = (0.24 + 0.225 * len(lines)) / self.height
        engine = self.figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0.006, bottom, 0.988, 1 - 0.62 / self.height - bottom), w_pad=0.08, h_pad=0.06)
        return self.figure


def refuse(kind: str, run: Run, why: str, add: str = "") -> RunFileError:
    """The line that says why a figure cannot be drawn, and what to record for it."""
    return RunFileError(f"--figure {kind}: {run.path} {why}" + (f"; {add}" if add else ""))


def example(run: Run, variable: str, more: str = "", population: str | None = None) -> str:
    """A probe that would hold what is missing, as it is written in an experiment file."""
    known = populations(run)
    units = [name for name, said in known.items() if str(said.get("type", "")) != "input"]
    inner = [name for name in units if str(known[name].get("type", "")) != "output"]
    name = population or (inner or units or ["NAME"])[0]
    return f"record: {{{name}_{variable}: {{population: {name}, variable: {variable}{more}}}}}"


def chosen_population(kind: str, run: Run, choice: Choice) -> str | None:
    """The population asked for, or None.

    Raises:
        RunFileError: the file has none of this name.
    """
    known = populations(run)
    if choice.population is not None and choice.population not in known:
        near = suggestion(choice.population, known)
        raise RunFileError(
            f"--population: no population '{choice.population}' in {run.path}; there are {', '.join(known)}.{near}"
        )
    return choice.population


def neuron_ids(run: Run, population: str, wanted: Iterable[str]) -> list[int]:
    """Numbers of neurons in their population, from numbers or names.

    Raises:
        RunFileError: there is no such neuron.
    """
    size = int(populations(run)[population].get("size", 0))
    found: dict[int, None] = {}
    names: list[str] | None = None
    for word in wanted:
        if word.isdecimal() and int(word) < size:
            found[int(word)] = None
            continue
        if names is None:
            names = names_of(run, population) or []
        if word in names:
            found[names.index(word)] = None
        elif word.isdecimal() or not names:
            why = f"'{population}' has {size:,} neurons" + (
                ", counted from 0" if word.isdecimal() else " without names; give a number from 0"
            )
            raise RunFileError(f"--neuron: no neuron {word}; {why}")
        else:
            raise RunFileError(f"--neuron: no neuron '{word}' in '{population}'.{suggestion(word, names)}")
    return list(found)


def columns_of(recorded: Recorded, population: str, neurons: Sequence[int]) -> list[int]:
    """Columns of a recording that hold these neurons.

    Raises:
        RunFileError: one of them was not recorded.
    """
    place = {int(number): column for column, number in enumerate(recorded.unit_ids)}
    for number in neurons:
        if number not in place:
            raise RunFileError(
                f"--neuron: neuron {number} of '{population}' is not among the {len(place):,} that '{recorded.name}' "
                f"recorded: {ranges(recorded.unit_ids)}"
            )
    return [place[number] for number in neurons]


def sample_columns(recorded: Recorded, wanted: Sequence[int]) -> list[int]:
    """Columns of a recording that hold these samples.

    Raises:
        RunFileError: one of them was not recorded.
    """
    place = {int(number): column for column, number in enumerate(recorded.sample_ids)}
    for number in wanted:
        if number not in place:
            raise RunFileError(
                f"--sample: sample {number} is not among the {len(place):,} that '{recorded.name}' recorded: "
                f"{ranges(recorded.sample_ids)}"
            )
    return [place[number] for number in wanted]


def ranges(numbers: NDArray, most: int = 8) -> str:
    """Numbers in short: 0 to 39, 50, 60 to 63."""
    ordered = np.unique(numbers)
    cuts = np.flatnonzero(np.diff(ordered) > 1) + 1
    parts = [
        f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}"
        for part in np.split(ordered, cuts)
        if len(part)
    ]
    return ", ".join(parts[:most]) + (" and more" if len(parts) > most else "")


def subset(what: str, drawn: int, of: int) -> str:
    """The sentence that says that a part is drawn; empty where all is."""
    return f"Drawn: {drawn:,} of {of:,} {what}, at equal distances." if drawn < of else ""


def log_axis(axis: Any, values: NDArray) -> None:
    """Makes an axis logarithmic, with plain numbers at a few ticks."""
    known = values[np.isfinite(values) & (values > 0)]
    decades = math.log10(known.max() / known.min()) if len(known) else 1.0
    subs = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def whole_numbers(axes: Axes, most: int = 7) -> None:
    """Ticks of the lower axis at whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=most))


def same_height(axes: Iterable[Axes]) -> None:
    """Gives upper axes ranges of one height, each about its own middle, so that distances compare."""
    panels = list(axes)
    tall = max(high - low for low, high in (ax.get_ylim() for ax in panels))
    for ax in panels:
        middle = sum(ax.get_ylim()) / 2
        ax.set_ylim(middle - tall / 2, middle + tall / 2)
        ax.yaxis.set_major_locator(MaxNLocator(3))


def short(text: str, letters: int) -> str:
    """The text, or its beginning where it is longer than so many letters."""
    return text if len(text) <= letters else text[: letters - 4].rstrip() + " ..."


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def axis_label(name: str) -> str:
    """What an axis of frames or points is called."""
    return {"ms": "time (ms)", "update": "updates made", "epoch": "epochs finished"}.get(name, name)


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns of so many panels on a slide."""
    columns = count if count <= 3 else math.ceil(math.sqrt(count * 1.4))
    return math.ceil(count / columns), columns


def panels(place: Figure | SubFigure, count: int, across: int | None = None) -> list[Axes]:
    """So many panels, in rows; `across` of them in a row where given."""
    rows, columns = grid_of(count) if across is None else (-(-count // across), across)
    made = np.ravel(np.asarray(place.subplots(rows, columns, squeeze=False)))
    for extra in made[count:]:
        extra.set_visible(False)
    return list(made[:count])


def note(axes: Axes, text: str) -> None:
    """A grey line at the right of a panel's title."""
    axes.set_title(text, loc="right", fontsize=12.5, fontweight="normal", color=GREY)


__all__ = ["AFTER", "BEFORE", "COLOURS", "GREY", "INK", "TALK", "Choice", "Page"]
