"""A run file followed from outside while somebody else writes it: what changes, how fast, how long it will take."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from circuitlab.errors import RunFileError
from circuitlab.record.lock import is_held
from circuitlab.report.glance import LOST, RUNNING, WAITING, Glance, look

WINDOW_SECONDS = 120.0
"""Speed is measured over the flushes of so many seconds."""
PATIENCE_SECONDS = 3.0
"""For so long a file that was sound may be unreadable, as a network's file system shows a half of it."""


class Follower:
    """Looks at one run file again and again, whichever way it grows: in place, or replaced by a newer one.

    Args:
        path: of the file.
        wait: whether a file that is not there is waited for.
    """

    def __init__(self, path: str | Path, *, wait: bool = False) -> None:
        self.path, self.wait = Path(path), wait
        self.now = Glance(self.path)
        self._mark: tuple[Any, ...] = ()
        self._seen: deque[tuple[float, int]] = deque()
        self._unreadable_since: float | None = None

    def look(self) -> bool:
        """Look anew; a file that has not been touched, by a writer that lives, is left alone.

        A file that was sound and stays unreadable for some seconds is `lost`.

        Returns:
            Whether anything has changed since the last look.
        Raises:
            RunFileError: at the first look: the file is missing (and not waited for), damaged or of another program.
        """
        before = self.now
        try:
            stat = self.path.stat()
        except OSError:
            if self.wait and before.status == WAITING and not self.path.is_symlink():
                return False
            stat = None
        mark = () if stat is None else (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if mark and mark == self._mark and (before.ended or is_held(self.path.resolve())):
            return False
        try:
            now = look(self.path)
        except RunFileError as error:
            if before.status != RUNNING:
                raise
            self._unreadable_since = self._unreadable_since or time.monotonic()
            if time.monotonic() - self._unreadable_since < PATIENCE_SECONDS:
                return False
            now = replace(before, status=LOST, reason=str(error).removeprefix(f"{self.path}: "))
        self._mark, self._unreadable_since, self.now = mark, None, now
        if now != before:
            self._count(before)
        return now != before

    def _count(self, before: Glance) -> None:
        now = self.now
        if now.created != before.created or (now.step or 0) < (before.step or 0):
            self._seen.clear()
        if not self._seen and now.began is not None:
            self._seen.append((now.began, now.began_at))
        if now.step is not None and (not self._seen or now.step > self._seen[-1][1]):
            self._seen.append((now.flushed, now.step))
        while len(self._seen) > 2 and now.flushed - self._seen[1][0] > WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def speed(self) -> float | None:
        """Steps a second over the last flushes, evaluations included; None until it can be told."""
        if len(self._seen) < 2:
            return None
        (start, first), (stop, last) = self._seen[0], self._seen[-1]
        return (last - first) / (stop - start) if stop > start else None

    @property
    def seconds_left(self) -> float | None:
        """Until all steps are done, at the present speed; None where it cannot be told, 0 when ended."""
        now, speed = self.now, self.speed
        if now.ended:
            return 0.0
        if not speed or now.steps is None or now.step is None:
            return None
        return max((now.steps - now.step) / speed - max(time.time() - now.flushed, 0.0), 0.0)

    def as_dict(self) -> dict[str, Any]:
        """What `watch --json` prints of it: plain values, None where something cannot be told."""
        now = self.now
        plain = asdict(now)
        keys = ("status", "reason", "kind", "epoch", "epochs", "step", "steps", "clock_ms", "clock_end_ms")
        return {
            "file": str(now.path),
            "title": now.title,
            **{key: plain[key] for key in keys},
            "steps_per_second": self.speed,
            "seconds_left": self.seconds_left,
            "metrics": {
                one.name: {
                    "last": one.last,
                    "best": one.best,
                    "best_at": one.best_at,
                    "rows": len(one.values),
                }
                for one in now.curves
            },
            "unconverged_samples": now.unconverged,
            "samples_seen": now.samples_seen,
            "records": {one.name: {"rows": one.rows, "shape": list(one.shape)} for one in now.records},
            "bytes": now.bytes,
            "flushed": datetime.fromtimestamp(now.flushed, UTC).isoformat(timespec="milliseconds")
            if now.flushed
            else None,
        }
