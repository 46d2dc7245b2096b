"""`circuitlab watch`: runs followed from another terminal, while they write."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import console, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from circuitlab.report.following import Follower
    from circuitlab.report.glance import Glance

ENDED_BADLY = 3


def watch(
    files: Annotated[
        list[Path], typer.Argument(metavar="RUN.h5...", help="Run files, of training or of simulations.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for files that are not there yet.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show the present state and leave.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=3600, metavar="SECONDS", help="Time between two looks.")
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each change, for other programs.")
    ] = False,
) -> None:
    """Follow runs while they go on: how far, how well, what is recorded, and how long it will take.

    Leaves when all have ended: with exit code 0 where they are complete, 3 where one failed, was interrupted or its
    writer died. Ctrl-C leaves at any time, and does nothing to the runs.
    """
    from circuitlab.errors import CircuitlabError, RunFileError
    from circuitlab.report.following import Follower
    from circuitlab.report.glance import COMPLETE, RUNNING, WAITING

    followers = [Follower(path, wait=wait) for path in _different(files)]
    problems = []
    for follower in followers:
        try:
            follower.look()
        except RunFileError as error:
            text = str(error)
            problems.append(f"{text}; --wait waits for it" if not follower.path.exists() else text)
    if problems:
        raise CircuitlabError("\n".join(problems))
    with _leaving():
        _follow(followers, once=once, every=every, as_json=as_json)
    bad = [one.now for one in followers if one.now.status not in (COMPLETE, RUNNING, WAITING)]
    for one in bad:
        further = "; the same command with --resume goes on" if _resumable(one) else ""
        print(f"{one.path}: {one.status}: {one.reason}{further}", file=sys.stderr)
    if bad:
        raise typer.Exit(ENDED_BADLY)


def _resumable(one: Glance) -> bool:
    return one.kind == "training" and one.status == "interrupted"


def _different(files: Sequence[Path]) -> list[Path]:
    """Each file once, in the order given."""
    return list({path.resolve(): path for path in reversed(files)}.values())[::-1]


@contextmanager
def _leaving() -> Iterator[None]:
    """SIGTERM leaves as Ctrl-C does, so that the terminal gets its cursor back."""

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(followers: Sequence[Follower], *, once: bool, every: float, as_json: bool) -> None:
    terminal = console()
    if as_json:
        _by_lines(followers, once, every, lambda one: print_json(one.as_dict(), line=True))
    elif terminal.is_terminal and not terminal.is_dumb_terminal:
        _on_screen(terminal, followers, once, every)
    elif once:
        terminal.print(_page(terminal, followers, tall=True))
    else:
        from circuitlab.cli.watch_print import line

        _by_lines(followers, once, every, lambda one: say(f"{time.strftime('%H:%M:%S')} {line(one)}"))


def _by_lines(followers: Sequence[Follower], once: bool, every: float, tell: Any) -> None:
    for follower in followers:
        tell(follower)
    while not once and not all(one.now.ended for one in followers):
        time.sleep(every)
        for follower in followers:
            if not follower.now.ended and follower.look():
                tell(follower)


def _on_screen(terminal: Console, followers: Sequence[Follower], once: bool, every: float) -> None:
    from rich.live import Live

    if once:
        terminal.print(_page(terminal, followers, tall=True))
        return
    with Live(_page(terminal, followers), console=terminal, auto_refresh=False) as live:
        while not all(one.now.ended for one in followers):
            time.sleep(every)
            for follower in followers:
                if not follower.now.ended:
                    follower.look()
            live.update(_page(terminal, followers), refresh=True)


def _page(terminal: Console, followers: Sequence[Follower], *, tall: bool = False) -> Any:
    from circuitlab.cli.watch_print import ASCII, BLOCKS, page

    blocks = BLOCKS if "utf" in (terminal.encoding or "").lower() else ASCII
    return page(followers, terminal.width, 1000 if tall else terminal.height, blocks=blocks)
