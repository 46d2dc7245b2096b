"""What a benchmark came to: tables to read, every raw number, and the machine; as JSON, and in a page of the docs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitlab.errors import CircuitError, FormatError

FORMAT, VERSION = "circuitlab-bench", 1
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: what it shows, with units.
        columns: heads, each of them explained in docs/benchmarks.md.
        rows: one cell a column.
        note: a sentence below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Results:
    """A benchmark's results.

    Args:
        benchmark: cost, kernels, scale, train or anatomy.
        options: what it was asked for, seeds included.
        machine: as `describe` tells it.
        tables: for readers.
        numbers: every raw number the tables are made of.
    """

    benchmark: str
    options: dict[str, Any]
    machine: dict[str, Any]
    tables: list[Table]
    numbers: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """All of it as plain data for JSON; a number that is not finite becomes null."""
        tables = [
            {"title": t.title, "columns": list(t.columns), "rows": t.rows, "note": t.note}
            for t in self.tables
        ]
        return _plain(
            {
                "format": FORMAT,
                "format_version": VERSION,
                "benchmark": self.benchmark,
                "options": self.options,
                "machine": self.machine,
                "tables": tables,
                "numbers": self.numbers,
            }
        )

    def headline(self) -> str:
        """Machine, threads, version, date, and how busy the machine was before."""
        m = self.machine
        load = "" if m["load_average"] is None else f", load {m['load_average']:.1f} before"
        return (
            f"{m['processor']}, {m['cores']} cores, {m['threads']} thread{'s' if m['threads'] > 1 else ''}, torch "
            f"{m['torch_version']} ({m['matrix_library']}), {str(m['created'])[:10]}{load}"
        )

    def markdown(self) -> str:
        """The tables for a page, below the command and the machine that made them."""
        # whoever runs it again has other folders
        command = re.sub(r"(?<= )\S*/(?=[^/\s]+\.(?:json|png|md)\b)", "", self.machine["command"])
        lines = [f"`{command}` on {self.headline()}.", ""]
        for table in self.tables:
            lines += [f"**{table.title}**", ""]
            lines += ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
            lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in table.rows]
            lines += ["", table.note, ""] if table.note else [""]
        return "\n".join(lines).rstrip() + "\n"


def text(cell: Cell) -> str:
    """A cell in a page: whole numbers with thousands separated, others with three digits."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return rounded(cell) if isinstance(cell, float) else cell.replace("|", "\\|")


def rounded(value: float) -> str:
    """Three significant digits, without an exponent where a reader does not need one."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = (
            0 if abs(value) >= 100 else 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        )
        return f"{value:,.{digits}f}"
    return f"{value:.1e}"


def check_place(path: Path) -> None:
    """Refuse a place that nothing can be written to, before the work is done.

    Raises:
        CircuitError: its folder is not there, or it is a folder itself.
    """
    if path.is_dir():
        raise CircuitError(f"{path}: is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise CircuitError(
            f"{path}: its folder {path.parent} does not exist; make it first, or give another file"
        )


def write(path: Path, content: str) -> None:
    """Write a text file.

    Raises:
        CircuitError: the file cannot be written.
    """
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise CircuitError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None


def as_json(results: Results) -> str:
    """The JSON text of a result."""
    return json.dumps(results.data(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Results:
    """A result from its JSON file.

    Raises:
        FormatError: the file is missing, or is no result of a benchmark.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: is not a JSON file ({error})") from None
    if not isinstance(data, dict) or (data.get("format"), data.get("format_version")) != (FORMAT, VERSION):
        raise FormatError(f"{path}: is no result of `circuitlab bench` of this version")
    tables = [Table(t["title"], tuple(t["columns"]), t["rows"], t["note"]) for t in data["tables"]]
    return Results(data["benchmark"], data["options"], data["machine"], tables, data["numbers"])


def renewed(page: str, results: Results) -> str:
    """A page whose part between `<!-- bench: NAME -->` and `<!-- end of NAME -->` is the result's tables.

    Raises:
        FormatError: the page has no such part.
    """
    name = results.benchmark
    part = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- end of {name} -->)", re.S)
    if not part.search(page):
        raise FormatError(
            f"the page has no part for `{name}`; write <!-- bench: {name} --> and <!-- end of {name} --> "
            "on lines of their own"
        )
    return part.sub(lambda found: f"{found[1]}\n{results.markdown()}\n{found[2]}", page)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
