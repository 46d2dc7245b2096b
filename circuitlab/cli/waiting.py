"""Long work as the terminal shows it: a bar, or a clock where nobody knows how long; nothing where it is piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from circuitlab.cli.common import console


@contextmanager
def counting(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, moved by `(done, total)`; it is gone when the block ends.

    Args:
        what: is being done.
        shown: whether the user wants to see it.
    """
    page = console()
    with Progress(console=page, transient=True, disable=not (shown and page.is_terminal)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def working(what: str, *, shown: bool, calm: bool = False) -> Iterator[None]:
    """Work of unknown length on a terminal: what it is, and for how long it has been going on.

    Args:
        what: is being done.
        shown: whether the user wants to see it.
        calm: drawn once a second only, so that it takes no time from what is measured.
    """
    page = console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    rate = 1 if calm else 10
    hidden = not (shown and page.is_terminal)
    with Progress(*columns, console=page, transient=True, disable=hidden, refresh_per_second=rate) as bar:
        bar.add_task(what, total=None)
        yield
