"""What all pictures of circuits share: the kinds of files, and files that come out the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from circuitlab.errors import CircuitError

SUFFIXES = (".svg", ".png", ".pdf")
COLOURS = {
    "feedforward": "#0072B2",
    "lateral": "#009E73",
    "feedback": "#AA4499",
    "inhibitory": "#D55E00",
    "electrical": "#000000",
}
"""By kind of projection: Okabe and Ito's and Tol's colours, told apart by the colour-blind."""
WORDS = {
    "feedforward": "feedforward",
    "lateral": "lateral, recurrent",
    "feedback": "feedback",
    "inhibitory": "inhibitory",
    "electrical": "gap junctions",
}
INK, GREY, PALE = "#222222", "#666666", "#BBBBBB"


def suffix_of(path: Path) -> str:
    """The kind of file that a name asks for: svg, png or pdf.

    Raises:
        CircuitError: it ends otherwise.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CircuitError(f"{path}: a drawing is a file ending in {', '.join(SUFFIXES)}")
    return suffix.removeprefix(".")


def write(make: Callable[[], Figure], path: Path, dpi: int = 150) -> None:
    """Make a picture and write it; the same circuit makes the same file.

    Raises:
        CircuitError: the suffix is none of a picture, or the file cannot be written.
    """
    suffix = suffix_of(path)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "circuitlab", "font.family": "sans-serif"}):
        figure = make()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
        try:
            figure.savefig(path, dpi=dpi, metadata=metadata)
        except OSError as error:
            raise CircuitError(
                f"{path}: cannot be written ({(error.strerror or str(error)).lower()})"
            ) from None
