"""A user's own Python file, looked at without running it: that it can be read, and what it defines."""

from __future__ import annotations

import ast
from pathlib import Path

from circuitlab.errors import suggestion


def function_problem(path: Path, file: str, function: str, text: str | None = None) -> str | None:
    """What is wrong with a function named in a Python file, or None; nothing in the file is run.

    Args:
        path: of the file, which is there. file: its name in messages. text: what to read in place of the file.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    except SyntaxError as error:
        return f"'{file}' is no Python: line {error.lineno}: {error.msg}"
    except (UnicodeDecodeError, ValueError, RecursionError, MemoryError):
        return f"'{file}' is no Python file"
    names = _names(tree)
    if function in names or "*" in names:
        return None
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    there = f"there are: {', '.join(functions)}" if functions else "it defines none"
    return f"no function '{function}' in '{file}'; {there}.{suggestion(function, functions)}"


def _names(tree: ast.Module) -> set[str]:
    """Names that the top level of a file may define."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
