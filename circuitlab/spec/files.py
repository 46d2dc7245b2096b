"""Files that a specification names: below its own folder, present and readable."""

from __future__ import annotations

import difflib
from pathlib import Path

from circuitlab.spec.base import described


def file_problem(folder: Path, file: str, allow_outside: bool) -> str | None:
    """What is wrong with a file named in a specification, or None.

    Args:
        folder: what the name is relative to, and what it must stay below, also after symbolic links.
        allow_outside: whether it may lie elsewhere.
    """
    named = described(file)
    try:
        path = (folder / file).resolve()
        if not allow_outside and not path.is_relative_to(folder.resolve()):
            return (
                f"{named} lies outside the folder of this file; allowed: files below it (or --allow-outside)"
            )
        if path.is_dir():
            return f"{named} is a folder; a file is wanted"
        if path.exists() and not path.is_file():
            return f"{named} is no regular file"
        if not path.exists():
            names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
            return f"no file {named}" + (f". Did you mean '{near[0]}'?" if near else "")
        with path.open("rb"):
            return None
    except PermissionError:
        return f"permission to read {named} is missing"
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        return f"{named} cannot be read ({reason})"
