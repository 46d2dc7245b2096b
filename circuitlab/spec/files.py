"""Files that a specification names: below its own folder, present and readable."""

from __future__ import annotations

import difflib
from pathlib import Path


def file_problem(folder: Path, file: str, allow_outside: bool) -> str | None:
    """What is wrong with a file named in a specification, or None.

    Args:
        folder: what the name is relative to, and what it must stay below, also after symbolic links.
        allow_outside: whether it may lie elsewhere.
    """
    try:
        path = (folder / file).resolve()
        if not allow_outside and not path.is_relative_to(folder.resolve()):
            return (
                f"'{file}' lies outside the folder of this file; allowed: files below it (or --allow-outside)"
            )
        if path.is_dir():
            return f"'{file}' is a folder; a file is wanted"
        if not path.exists():
            names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
            return f"no file '{file}'" + (f". Did you mean '{near[0]}'?" if near else "")
        with path.open("rb"):
            return None
    except PermissionError:
        return f"permission to read '{file}' is missing"
    except (OSError, ValueError, RuntimeError) as error:
        return f"'{file}' cannot be read ({' '.join(str(error).split())})"
