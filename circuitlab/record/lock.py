"""One writer per run file: an advisory lock beside it that dies with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from circuitlab.errors import RunFileError


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class Lock:
    """An exclusive lock on `<run file>.lock`, held until `release` or the process's death.

    Raises:
        RunFileError: another process holds it, or the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = _beside(path)
        self._descriptor = -1
        last_try = time.monotonic() + 0.3
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                    break
                os.close(descriptor)  # its last holder removed this very file between our open and our lock
            except FileNotFoundError:
                os.close(descriptor)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                if time.monotonic() > last_try:  # a reader that asks for the status holds it for an instant
                    who = f"by process {holder}" if holder else "by another process"
                    raise RunFileError(
                        f"{path}: is being written {who}; wait for it, or give another -o"
                    ) from error
                time.sleep(0.02)
            except OSError as error:
                os.close(descriptor)
                raise RunFileError(f"{path}: its folder cannot lock files: {error.strerror}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Removes the lock file and frees it; harmless when done before."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def is_held(path: Path) -> bool:
    """Whether a living process writes the run file."""
    try:
        descriptor = os.open(_beside(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
