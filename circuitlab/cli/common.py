"""What the commands share: options with the same meaning everywhere, tables, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside",
        help="Let the file name others (weights, edges, positions) that lie outside its own folder.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, for other programs.")]
CircuitFile = Annotated[Path, typer.Argument(metavar="CIRCUIT", help="The circuit's YAML file.")]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        metavar="S",
        help="Multiply the neurons of all but inputs and outputs, densities kept, in place of the file's scale.",
    ),
]

PIPED_WIDTH = 160
"""Columns of a table when nobody watches: wide enough that nothing is cut off in a log."""


def console() -> Console:
    """The terminal, or a plain page of fixed width where the output is piped."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def sound(file: Path | None, *, state: bool = False) -> None:
    """Refuse a run file that is damaged or none before anything large is loaded; None is no file.

    Args:
        state: whether its checkpoint is wanted.

    Raises:
        RunFileError: one line.
    """
    from circuitlab.record.reader import open_run

    if file is not None:
        with open_run(file) as run:
            if state:
                run.checkpoint()


def say(text: str) -> None:
    """Print a line as it is: no wrapping, no markup."""
    typer.echo(text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers stand to the right, text to the left, and a table without rows is left out."""
    rows = [list(row) for row in rows]
    if not rows:
        return
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        grid.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", style=None)
    for row in rows:
        grid.add_row(*(Text(number(cell)) for cell in row))
    page = console()
    if title:
        page.print(Text(title, style="bold"))
    page.print(grid)
    page.print()


def number(value: Any) -> str:
    """A cell's text: integers with thousands separated, other numbers with four digits, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def memory(bytes_: float) -> str:
    """Bytes in the unit a person would choose."""
    for unit in ("B", "kB", "MB"):
        if bytes_ < 1000:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.3g} GB"


def print_json(value: Any) -> None:
    """Print strict JSON: a number that is not finite becomes null."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)
