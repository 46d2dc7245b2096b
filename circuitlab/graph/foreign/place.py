"""Folders that are made whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuitlab.errors import FormatError

MARK = "circuitlab_export.json"
"""What an export of recordings says of itself."""
OURS = ("circuit.yaml", "circuit_config.json", "circuit.graphml", "circuit.json", MARK)
"""What lies in a folder that circuitlab wrote; no other folder is ever replaced."""


def refuse_existing(folder: Path, force: bool) -> None:
    """Refuse a folder whose content would be lost.

    Args:
        force: whether a folder that circuitlab itself wrote may be replaced.

    Raises:
        FormatError: something is there that must stay.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FormatError(f"{folder}: is not a folder; give the name of a new one")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not force:
        raise FormatError(f"{folder}: exists and is not empty; give another folder, or --force to replace it")
    if not any((folder / name).is_file() for name in OURS):
        raise FormatError(f"{folder}: was not written by circuitlab and is not replaced; give another folder")


@contextmanager
def whole_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which takes its name when the block ends well and vanishes when it does not.

    Raises:
        FormatError: the folder exists (see `refuse_existing`) or cannot be made.
    """
    folder = Path(folder)
    refuse_existing(folder, force)
    made: list[Path] = []
    try:
        _make_parents(folder.absolute().parent, made)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        _take_away(made)
        raise FormatError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        # mkdtemp makes folders for its owner alone; this one is as any other.
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o777 & ~mask)
        yield beside
        refuse_existing(folder, force)
        _put_in_place(beside, folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        _take_away(made)
        raise FormatError(f"{folder}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        _take_away(made)
        raise


def _make_parents(parent: Path, made: list[Path]) -> None:
    missing = [place for place in (parent, *parent.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir()
        made.append(place)


def _take_away(made: list[Path]) -> None:
    for place in reversed(made):
        with suppress(OSError):
            place.rmdir()


def _put_in_place(new: Path, folder: Path) -> None:
    """The new folder under the old one's name; the old one is deleted only when the new one stands."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=new.parent))
    folder.rename(old / "old")
    try:
        new.rename(folder)
    except OSError:
        (old / "old").rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
