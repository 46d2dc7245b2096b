"""Style, palette and files of all pictures of runs and measures; `report/figures` draws them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from circuitlab.errors import RunFileError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#8C564B")
"""Of conditions, samples and classes: Okabe and Ito's, told apart by the colour-blind, a brown for their yellow."""
RUNS = COLOURS[:2]
SAMPLE_COLOURS = COLOURS[:3]
SPLITS: dict[str, tuple[Literal["-", "--", ":"], float]] = {
    "test": ("-", 2.2),
    "validation": ("--", 1.5),
    "train": (":", 1.5),
}
"""Lines of the parts of the data: dashes and width."""
SPLIT_WORDS = {"test": "test", "validation": "validation", "train": "training"}
INK, GREY = "#222222", "#6b6b6b"
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.titlesize": 12.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 11, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 10,
    "svg.fonttype": "none", "svg.hashsalt": "circuitlab",
}  # fmt: skip
SUFFIXES = (".png", ".svg", ".pdf")


def check_suffix(path: Path) -> None:
    """Refuse a picture whose name says no kind of picture.

    Raises:
        RunFileError: the suffix is none of a picture.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RunFileError(f"{path}: a picture is a file ending in {', '.join(SUFFIXES)}")


def save(figure: Figure, path: Path, style: Mapping[Any, Any] = STYLE, dpi: int = 100) -> None:
    """Write a picture; its suffix says the kind. It is written beside and moved into place.

    Args:
        style: that the figure was made in.

    Raises:
        RunFileError: the suffix is none of a picture, or the file cannot be written.
    """
    check_suffix(path)
    suffix = path.suffix.lower().removeprefix(".")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
    drawn = io.BytesIO()
    with mpl.rc_context(dict(style)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of a name in letters that the font lacks
        figure.savefig(drawn, dpi=dpi, format=suffix, metadata=metadata)
    beside = path.with_name(f".{path.name}.writing")
    try:
        beside.write_bytes(drawn.getvalue())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunFileError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None
