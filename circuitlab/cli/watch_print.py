"""How `circuitlab watch` shows a run that goes on: a page on a terminal, a line elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from circuitlab.cli.common import memory
from circuitlab.report.following import Follower
from circuitlab.report.glance import COMPLETE, RUNNING, WAITING, Curve, Glance, Records

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
STYLES = {RUNNING: "bold cyan", COMPLETE: "bold green", WAITING: "dim"}
"""Colours of the statuses; all that are not here, ended badly."""
NARROW = 64
"""Columns below which only the last values are shown."""
FIXED = 12
"""Lines of the page that are there whatever is measured and recorded."""


def sparkline(values: Sequence[float], width: int, *, blocks: str = BLOCKS) -> str:
    """A curve in one line of at most `width` characters; values without a number leave a gap."""
    if width < 1 or not values:
        return ""
    count = min(width, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    bins = [[v for v in values[a:b] if math.isfinite(v)] for a, b in pairwise(edges)]
    means = [sum(part) / len(part) if part else math.nan for part in bins]
    known = [v for v in means if math.isfinite(v)]
    if not known:
        return " " * count
    low, high = min(known), max(known)
    top = len(blocks) - 1

    def mark(value: float) -> str:
        if not math.isfinite(value):
            return " "
        return blocks[round(top * (value - low) / (high - low)) if high > low else 0]

    return "".join(mark(value) for value in means)


def duration(seconds: float | None) -> str:
    """A time as a person says it: 8 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    whole = max(round(seconds), 0)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s"


def speed(follower: Follower) -> str:
    """Steps, or milliseconds of the model, in a second."""
    found, now = follower.speed, follower.now
    if found is None:
        return "not known yet"
    if now.kind == "simulation" and now.steps and now.clock_end_ms:
        return f"{found * now.clock_end_ms / now.steps:.3g} ms/s"
    return f"{found:,.0f} steps/s" if found >= 10 else f"{found:.2g} steps/s"


def progress(now: Glance) -> str:
    """How far it is: epoch and step, or the simulated time."""
    if now.kind == "simulation":
        done = 0.0 if now.clock_ms is None else now.clock_ms
        return f"{done:g} of {now.clock_end_ms:g} ms" if now.clock_end_ms is not None else f"{done:g} ms"
    if now.kind != "training":
        return ""
    parts = []
    for name, done, total in (("epoch", now.epoch, now.epochs), ("step", now.step, now.steps)):
        parts.append(f"{name} {done or 0:,}" + (f" of {total:,}" if total else ""))
    return ", ".join(parts)


def missing(now: Glance) -> str:
    """Samples whose equilibrium was not found, of those looked at."""
    if now.unconverged is None:
        return ""
    if not now.samples_seen:
        return f"{now.unconverged:,}"
    return f"{now.unconverged:,} of {now.samples_seen:,} ({100 * now.unconverged / now.samples_seen:.2g}%)"


def flushed(now: Glance) -> str:
    """How large the file is, and how old its news."""
    age = "just now" if time.time() - now.flushed < 1.5 else f"{duration(time.time() - now.flushed)} ago"
    return f"{memory(now.bytes)}, written {age}"


def name_of(curve: Curve) -> str:
    """A metric as a reader says it."""
    return curve.name.replace("_", " ")


def status_of(now: Glance) -> Text:
    """The status in its colour."""
    return Text(now.status, style=STYLES.get(now.status, "bold red"))


def line(follower: Follower) -> str:
    """A run's state in one line, for logs."""
    now = follower.now
    parts = [now.status, progress(now)]
    if now.status == RUNNING and follower.speed is not None:
        parts.append(f"{speed(follower)}, {duration(follower.seconds_left)} left")
    for curve in now.curves:
        if curve.per == "epoch" and _headline(curve.name):
            parts.append(f"{name_of(curve)} {curve.last:.4g}")
    if missing(now):
        parts.append(f"unconverged samples {missing(now)}")
    rows = sum(one.rows for one in now.records if one.name != "weights")
    if rows:
        parts.append(f"{rows:,} frames recorded")
    if now.status != WAITING:
        parts.append(memory(now.bytes))
    return f"{now.path}: " + "; ".join(part for part in parts if part)


def _headline(name: str) -> bool:
    return name.endswith("accuracy") or name in ("train_loss", "test_loss", "control_cost")


def page(followers: Sequence[Follower], width: int, height: int, *, blocks: str = BLOCKS) -> RenderableType:
    """What a terminal of this size shows: one run in full, several as a table."""
    if len(followers) == 1:
        return _one(followers[0], width, height, blocks)
    return _several(followers, width, height, blocks)


def _grid() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=True)


def _cut(text: str | Text, width: int) -> Text:
    found = text if isinstance(text, Text) else Text(text)
    found.truncate(width, overflow="ellipsis")
    found.no_wrap = True
    return found


def _one(follower: Follower, width: int, height: int, blocks: str) -> RenderableType:
    now = follower.now
    head = Text.assemble(status_of(now), "  ", (now.title, "bold"), "  " if now.title else "", str(now.path))
    parts: list[RenderableType] = [_cut(head, width)]
    if now.status == WAITING:
        return parts[0]
    if now.about:
        parts.append(_cut(Text(now.about, style="dim"), width))
    if now.share is not None:
        bar = Table.grid(padding=(0, 2, 0, 0))
        done = ProgressBar(
            1.0, now.share, width=max(min(40, width - 8), 1), complete_style="cyan", finished_style="green"
        )
        bar.add_row(done, f"{100 * now.share:.0f}%")
        parts.append(bar)
    small = width < 44
    facts = [("", part) for part in progress(now).split(", ")] if small else [("progress", progress(now))]
    if now.status == RUNNING:
        facts += [("speed", speed(follower)), ("time left", duration(follower.seconds_left))]
    facts += [("unconverged", missing(now)), ("file", flushed(now)), ("reason", now.reason)]
    parts += [
        _cut(f"{key}{' ' if key else ''}{value}" if small else f"{key:<12}{value}", width)
        for key, value in facts
        if value
    ]
    room = max(height - FIXED, 4)
    records = now.records[: max(room // 3, 2)]
    shown = now.curves[: max(room - len(records), 3)]
    if shown:
        parts += [Text(""), _metrics(shown, width, blocks)]
    if len(shown) < len(now.curves):
        parts.append(
            _cut(Text(f"and {len(now.curves) - len(shown)} more (--json has all)", style="dim"), width)
        )
    if records:
        parts += [Text(""), _recorded(records, width)]
    if len(records) < len(now.records):
        parts.append(_cut(Text(f"and {len(now.records) - len(records)} more", style="dim"), width))
    return Group(*parts)


def _metrics(curves: Sequence[Curve], width: int, blocks: str) -> Table:
    grid, wide = _grid(), width >= NARROW
    grid.add_column("metric", no_wrap=True, overflow="ellipsis")
    grid.add_column("last", justify="right", no_wrap=True)
    if wide:
        grid.add_column("best", justify="right", no_wrap=True)
        grid.add_column("at", no_wrap=True)
        grid.add_column("course", no_wrap=True, overflow="crop")
    room = min(32, width - 56)
    for curve in curves:
        cells: list[str | Text] = [name_of(curve), f"{curve.last:.4g}"]
        if wide:
            best = "" if curve.best is None else f"{curve.best:.4g}"
            at = "" if curve.best_at is None else f"{curve.per} {curve.best_at:g}"
            cells += [best, at, Text(sparkline(curve.values, room, blocks=blocks), style="cyan")]
        grid.add_row(*cells)
    return grid


def _recorded(records: Sequence[Records], width: int) -> Table:
    grid = _grid()
    grid.add_column("recorded", no_wrap=True, overflow="ellipsis")
    grid.add_column("rows", justify="right", no_wrap=True)
    if width >= NARROW:
        grid.add_column("each", no_wrap=True, overflow="ellipsis")
    for one in records:
        shape = " x ".join(f"{n:,}" for n in one.shape)
        each = f"{shape} ({one.axes})" if shape else one.axes
        cells = [one.name, f"{one.rows:,}", each]
        grid.add_row(*cells[: len(grid.columns)])
    return grid


def _end(name: str, width: int) -> str:
    """A name's end, which tells files of a folder apart."""
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _several(followers: Sequence[Follower], width: int, height: int, blocks: str) -> RenderableType:
    grid, wide = _grid(), width >= 100
    names = [one.now.path.name for one in followers]
    if len(set(names)) < len(names):
        names = [str(one.now.path) for one in followers]
    longest = max(width - (112 if wide else 60 if width >= NARROW else 19), 8)
    grid.add_column("run", no_wrap=True)
    grid.add_column("status", no_wrap=True)
    grid.add_column("done", justify="right", no_wrap=True)
    if width >= NARROW:
        grid.add_column("left", justify="right", no_wrap=True)
        grid.add_column("metric", no_wrap=True, overflow="ellipsis")
        grid.add_column("last", justify="right", no_wrap=True)
    if wide:
        grid.add_column("best", justify="right", no_wrap=True)
        grid.add_column("unconverged", justify="right", no_wrap=True)
        grid.add_column("course", no_wrap=True, overflow="crop")
    room = max(height - 3, 3)
    for follower, name in zip(followers[:room], names, strict=False):
        now = follower.now
        share = "" if now.share is None else f"{100 * now.share:.0f}%"
        left = duration(follower.seconds_left) if now.status == RUNNING else ""
        curve = now.curves[0] if now.curves else None
        cells: list[str | Text] = [_end(name, longest), status_of(now), share]
        if width >= NARROW:
            cells += [left, name_of(curve) if curve else "", f"{curve.last:.4g}" if curve else ""]
        if wide:
            best = f"{curve.best:.4g}" if curve and curve.best is not None else ""
            course = sparkline(curve.values, min(24, width - 90), blocks=blocks) if curve else ""
            gone = "" if now.unconverged is None else f"{now.unconverged:,}"
            cells += [best, gone, Text(course, style="cyan")]
        grid.add_row(*cells)
    rest = len(followers) - room
    return Group(grid, _cut(Text(f"and {rest} more", style="dim"), width)) if rest > 0 else grid
