"""Where a run file may be put: checked before anything is written, and nothing left behind when refused."""

from __future__ import annotations

from pathlib import Path

import h5py

from circuitlab.errors import RunFileError
from circuitlab.record.reader import FORMAT


def refuse_existing(path: Path, shown: str, overwrite: bool) -> None:
    """Refuses a path that a new run file would destroy.

    Args:
        shown: the path as the user wrote it.
        overwrite: whether a run file that is there may be replaced.
    Raises:
        RunFileError: something is there that must stay.
    """
    if path.is_dir():
        raise RunFileError(f"{shown}: is a folder; give the name of a run file in it")
    if not path.exists():
        return
    if not overwrite:
        raise RunFileError(
            f"{shown}: exists; continue it with --resume, replace it with --overwrite, or give another -o"
        )
    if not path.is_file():
        raise RunFileError(f"{shown}: is not a regular file; give another -o")
    try:
        with h5py.File(path, "r", locking=False) as file:
            ours = file.attrs.get("format") == FORMAT
    except OSError:
        ours = path.stat().st_size == 0
    if not ours:
        raise RunFileError(
            f"{shown}: is not a run file and is not overwritten; delete it, or give another -o"
        )


def make_folders(folder: Path, shown: str) -> list[Path]:
    """Makes a folder and its missing parents; the ones it made, outermost first.

    Raises:
        RunFileError: one cannot be made; those made before it are taken away again.
    """
    missing: list[Path] = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            made.append(path)
    except OSError as error:
        for path in reversed(made):
            path.rmdir()
        raise RunFileError(f"{shown}: its folder cannot be made: {error.strerror}") from error
    return made
