"""The parts that pages are made of: a section's markup beside the data that its script draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuitlab.report.page.pack import text

PALETTE = {
    "soma": ("#0072B2", "#56B4E9"),
    "basal": ("#C04F00", "#F28E4B"),
    "apical": ("#007A5E", "#2FCB9F"),
    "control": ("#AA4499", "#E58FD5"),
    "rate": ("#7A6000", "#E6C84A"),
    "controller": ("#444444", "#DDDDDD"),
}
"""Colour of each compartment on a light and on a dark page: Okabe and Ito's and Tol's, told apart by the
colour-blind, each with a contrast of at least 4.5 to its ground. Conditions take them in the same order."""
GROUNDS = ("#FFFFFF", "#16191D")
"""The ground of a light and of a dark page."""
INKS = {"ink": ("#1B1F24", "#E8EAED"), "quiet": ("#57606A", "#A6AFB8")}
"""Text, and text of lesser weight."""


@dataclass(frozen=True)
class Part:
    """A section of a page.

    Args:
        key: its id, by which the page's script knows what to draw in it.
        title: its heading. body: markup below the heading, escaped already.
        data: what its script needs; arrays packed. None where it needs none.
    """

    key: str
    title: str
    body: str
    data: Any = field(default=None, repr=False)

    def markup(self) -> str:
        """The section as HTML."""
        return (
            f'<section id="{self.key}" aria-labelledby="{self.key}-title">\n'
            f'<h2 id="{self.key}-title">{text(self.title)}</h2>\n{self.body}\n</section>'
        )


def controls(*each: str) -> str:
    """A row of labelled controls."""
    return f'<div class="controls">{"".join(each)}</div>'


def choice(key: str, label: str) -> str:
    """A select whose options the script fills in; hidden while there is nothing to choose."""
    return (
        f'<p class="control" hidden><label for="{key}">{text(label)}</label><select id="{key}"></select></p>'
    )


def slider(key: str, label: str) -> str:
    """A slider whose place the script says in words; hidden while there is nothing to choose."""
    return (
        f'<p class="control wide" hidden><label for="{key}">{text(label)}</label>'
        f'<input type="range" id="{key}" min="0" max="0" step="1" value="0">'
        f'<output for="{key}" id="{key}-words"></output></p>'
    )


def figure(key: str, title: str, about: str = "", *, tall: bool = False, wide: bool = False) -> str:
    """A place of fixed height for a plot, its heading, its buttons, and what is to be said of it."""
    classes = "figure" + (" wide" if wide else "")
    return (
        f'<figure class="{classes}" id="{key}-figure"><h3>{text(title)}</h3>'
        f'<div class="plot{" tall" if tall else ""}" id="{key}" role="img" aria-label="{text(title)}"></div>'
        f'<figcaption><span id="{key}-words">{text(about)}</span>'
        f'<span class="buttons"><button type="button" data-numbers="{key}" aria-expanded="false" '
        f'aria-controls="{key}-table">Numbers<span class="unseen"> of {text(title)}</span></button>'
        f'<button type="button" data-picture="{key}">Picture<span class="unseen"> of {text(title)}</span>'
        f'</button></span></figcaption><div class="numbers" id="{key}-table" hidden></div></figure>'
    )


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], key: str = "") -> str:
    """A table with a caption; it scrolls within itself where the screen is narrow."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{text(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    name = f' id="{key}"' if key else ""
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{text(caption)}"><table{name}>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def fold(summary: str, inside: str) -> str:
    """Something that is opened by a click or a key."""
    return f"<details><summary>{text(summary)}</summary>{inside}</details>"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def number(value: float, digits: int = 4) -> str:
    """A number as one would say it."""
    if value != value:
        return "not a number"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def count(many: int, one: str, more: str | None = None) -> str:
    """`1 sample`, `2 samples`."""
    return f"{many:,} {one if many == 1 else more or one + 's'}"
