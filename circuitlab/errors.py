"""Every error a user can cause, as one small tree; the command line prints them in one line each and exits with 1."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType


class CircuitlabError(Exception):
    """A mistake in what the user gave, or a run that could not be done; its text is one clear line per problem."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a file.

    Args:
        where: the file, with line and column where known (`topologies/v1.yaml:14:12`).
        path: the key inside the file (`projections.l4_l23.source`), empty for the file as a whole.
        message: what is wrong, and what is allowed.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class SpecError(CircuitlabError):
    """A circuit, experiment or hypothesis file is wrong; `problems` holds every mistake found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CircuitError(CircuitlabError):
    """A circuit that is well written but cannot be built, compiled or controlled as asked."""


class DataError(CircuitlabError):
    """A data set is missing, unreadable, or does not fit the circuit."""


class FormatError(CircuitlabError):
    """A file of edges, nodes or weights is damaged or not what its name says."""


class RunFileError(CircuitlabError):
    """A run file is missing, damaged, of another program, or in use."""


class NotConvergedError(CircuitlabError):
    """Samples did not reach their equilibrium and the user asked for an error instead of leaving them out."""


class ProcessError(CircuitlabError):
    """A run on many processes cannot go on because of another process; without text where that one tells of it."""


class MissingLibraryError(CircuitlabError):
    """Something was asked for that needs a library which is not installed; the text says how to install it."""


def needs(library: str, *, extra: str, what: str) -> ModuleType:
    """Import a library that only some commands need, without the warnings of its own imports.

    Args:
        library: the module to import, such as `plotly` or `torch.utils.tensorboard`.
        extra: the group of `pip install "circuitlab[...]"` that brings it.
        what: what asks for it, as the user typed it: `circuitlab report`.

    Returns:
        The module.

    Raises:
        MissingLibraryError: it is not installed, or its installation is broken.
    """
    how = f'install it with: pip install "circuitlab[{extra}]"'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"{what} needs {error.name or library}, which is not installed; {how}"
        ) from error
    except ImportError as error:
        reason = str(error).strip().splitlines()
        raise MissingLibraryError(
            f"{what} needs {library}, which cannot be imported: {reason[0] if reason else 'no reason given'}; {how}"
        ) from error


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """The sentence ` Did you mean 'x'?` for the nearest allowed word, or nothing."""
    near = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


class UsersCode:
    """A block that runs a user's own Python: whatever it raises becomes one line.

    Args:
        what: what could not be done, the line's beginning.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, CircuitlabError):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            raise CircuitError(f"{self.what}: {reason}") from error
