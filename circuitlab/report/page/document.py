"""One HTML file from parts: style, data, plotly.js and script inside, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from circuitlab import __version__
from circuitlab.errors import RunFileError, needs
from circuitlab.report.page.pack import text, to_json
from circuitlab.report.page.parts import GROUNDS, INKS, PALETTE, Part

SCRIPTS = ("page.js", "plots.js", "runs.js", "neurons.js", "start.js")
"""The page's own script, in the order in which its files need each other."""
SUFFIXES = (".html", ".htm")


def document(
    title: str, parts: Sequence[Part], *, about: str = "", more: Mapping[str, Any] | None = None
) -> str:
    """A whole page.

    Args:
        title: the page's heading. about: a line below it.
        parts: sections in their order. more: further data for the script, by name.

    Raises:
        MissingLibraryError: plotly is not installed.
    """
    plotly = needs("plotly.offline", extra="report", what="circuitlab report").get_plotlyjs()
    scripts = [_script(plotly), _script("\n".join(_asset(name) for name in SCRIPTS))]
    data = {
        "parts": {part.key: part.data for part in parts if part.data is not None},
        "palette": PALETTE,
        "grounds": GROUNDS,
        "inks": INKS,
        **(more or {}),
    }
    return Template(_asset("page.html")).substitute(
        policy=(
            "default-src 'none'; "
            f"script-src {' '.join(_hash(script) for script in scripts)}; "
            "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
        ),
        title=text(title),
        about=text(about),
        style=_style() + _asset("page.css"),
        links="".join(f'<li><a href="#{part.key}">{text(part.title)}</a></li>' for part in parts),
        sections="\n".join(part.markup() for part in parts),
        data=to_json(data),
        plotly=scripts[0],
        script=scripts[1],
        version=text(__version__),
    )


def write_page(page: str, path: Path) -> None:
    """Write a page beside its place, then move it there; a page that is there is replaced.

    Raises:
        RunFileError: the name is none of a page, is a folder's, or cannot be written.
    """
    check_place(path)
    real = Path(os.path.realpath(path))
    try:
        number, beside = tempfile.mkstemp(prefix=f".{real.name}.", suffix=".writing", dir=real.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            mask = os.umask(0)
            os.umask(mask)
            Path(beside).chmod(0o666 & ~mask)
            Path(beside).replace(real)
        except BaseException:
            with suppress(OSError):
                Path(beside).unlink()
            raise
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None


def check_place(path: Path) -> None:
    """Refuses a place where no page can be, before anything is read for it.

    Raises:
        RunFileError: the name is none of a page, or its folder is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RunFileError(f"{path}: a report is a file ending in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise RunFileError(f"{path}: is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise RunFileError(f"{path}: there is no folder {path.parent}")


def _asset(name: str) -> str:
    return files("circuitlab.report.page").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """A script as it can stand in a page: with line ends as browsers read them, and no end of the element inside."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n")
    return lines.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _style() -> str:
    """The palette as variables of the style sheet, light and dark."""
    colours = {**INKS, **{f"colour-{name}": pair for name, pair in PALETTE.items()}, "ground": GROUNDS}
    light, dark = ("".join(f"--{name}:{pair[at]};" for name, pair in colours.items()) for at in (0, 1))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
