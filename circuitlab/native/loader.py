"""One shared library for the process: found in the cache or built, loaded once, and turned off where asked."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from circuitlab.errors import CircuitlabError
from circuitlab.native.build import BuildError, Built, build

SWITCH = "CIRCUITLAB_NATIVE"
"""Environment variable: 0 turns the compiled loops off."""

_lock = threading.Lock()
_loaded: tuple[ctypes.CDLL, Built] | str | None = None
_off = 0


def available() -> bool:
    """Whether the compiled loops can be used now; the first call builds them where no build is in the cache.

    Raises:
        CircuitlabError: CIRCUITLAB_NATIVE has a value other than 0 and 1.
    """
    return not _off and not isinstance(_state(), str)


def reason() -> str:
    """Why the compiled loops cannot be used, one line; empty where they can."""
    if _off:
        return "switched off by native.disabled()"
    state = _state()
    return state if isinstance(state, str) else ""


def library() -> ctypes.CDLL:
    """The library of all the package's C++ sources.

    Raises:
        CircuitlabError: it cannot be used; the text says why.
    """
    state = _state()
    if _off or isinstance(state, str):
        raise CircuitlabError(f"the compiled loops are not available: {reason()}")
    return state[0]


def about() -> str:
    """The compiler, its options and the OpenMP library of the build, or why there is none; one line."""
    state = _state()
    return reason() if _off or isinstance(state, str) else state[1].about


@cache
def function(name: str, arguments: Sequence[Any], result: Any = None) -> Callable[..., Any]:
    """A function of the library with its types declared.

    Args:
        name: as in the C++ source.
        arguments: a tuple of ctypes types. result: a ctypes type, or None for void.

    Raises:
        CircuitlabError: the library cannot be used.
    """
    found = library()[name]
    found.argtypes = list(arguments)
    found.restype = result
    return found


@contextmanager
def disabled() -> Iterator[None]:
    """In here `available()` is false, so that torch does the work."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


def _state() -> tuple[ctypes.CDLL, Built] | str:
    """The loaded library, or why there is none; found out once per process."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = _load()
    return _loaded


def _load() -> tuple[ctypes.CDLL, Built] | str:
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "0", "1"):
        raise CircuitlabError(f"the environment variable {SWITCH} is '{switch}'; allowed: 0, 1")
    if switch == "0":
        return f"switched off by {SWITCH}=0"
    try:
        built = build()
        return ctypes.CDLL(str(built.path)), built
    except (BuildError, OSError) as error:
        return str(error).splitlines()[0]
