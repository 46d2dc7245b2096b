"""A run file that its writer left behind is made whole before it is read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from circuitlab.errors import RunFileError
from circuitlab.record.journal import journal_of, repair
from circuitlab.record.lock import Lock, is_held


def recover(path: str | Path) -> None:
    """Finishes or takes back the write in which a run file's writer died; cheap where there is nothing to do.

    Nothing is done while a writer lives, and nothing where the folder cannot be written: the file then shows
    what it holds.
    """
    real = Path(os.path.realpath(path))
    if not journal_of(real).exists() or is_held(real):
        return
    with suppress(OSError, RunFileError):
        lock = Lock(real)
        try:
            repair(real)
        finally:
            lock.release()
