"""Builds the C++ sources of this folder into one shared library, in a cache that machines and processes may share."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
LIBRARY, DIGEST = "library.so", "library.sha256"
PATIENCE_S = 300
"""Seconds that the compiler may take."""

EXACT = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wno-psabi",
)
"""Options of every build: none of them changes what becomes of NaN and infinity, or the order of sums."""


class BuildError(Exception):
    """The library cannot be built here; the text is one line that says why."""


@dataclass(frozen=True)
class Built:
    """A library on disk.

    Args:
        path: the shared library. about: compiler, options and OpenMP library, one line.
    """

    path: Path
    about: str


@dataclass(frozen=True)
class _Recipe:
    """One way to build: options of the compiler, options of the linker, and what to say of it."""

    compile: tuple[str, ...]
    link: tuple[str, ...]
    openmp: str


def build() -> Built:
    """The library for this machine, from the cache where it is whole, else built now.

    Raises:
        BuildError: there is no compiler, or none of the recipes works.
    """
    if sys.platform == "win32":
        raise BuildError("the compiled loops are built on Linux and macOS only")
    command, version = _compiler()
    runtime = loaded_openmp()
    recipes = _recipes(runtime)
    identity = "\n".join([*command, version, _processor(), *map(repr, recipes), _sources_digest()])
    folder = _cache() / f"native-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
    try:
        if (found := _whole(folder)) is None:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = _make(command, recipes, folder)
    except OSError:
        private = Path(tempfile.mkdtemp(prefix="circuitlab-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        found = _make(command, recipes, private / "native")
    path, recipe = found
    return Built(path, f"{version}; {recipe}")


def loaded_openmp() -> str | None:
    """Path of the OpenMP library that the process has loaded already, None where there is none or none is known.

    Linking against the same one keeps two sets of threads from spinning against each other. Where packages have brought
    several, it is torch's, whose threads are those that work between the compiled loops.
    """
    try:
        text = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[^/\s]*)$", text, re.MULTILINE)
    torchs = [path for path in found if "torch" in Path(path).parts]
    return (torchs or found or [None])[0]


def _recipes(runtime: str | None) -> list[_Recipe]:
    """From the best to the plainest: this machine's instructions, and threads by the process's own OpenMP."""
    ways = [_Recipe(("-fopenmp",), ("-fopenmp",), "OpenMP"), _Recipe(("-fopenmp-simd",), (), "one thread")]
    if runtime is not None:
        place = f"-Wl,-rpath,{Path(runtime).parent}"
        ways.insert(0, _Recipe(("-fopenmp",), (runtime, place), f"OpenMP by {Path(runtime).name}"))
    native = [_Recipe(("-march=native", *way.compile), way.link, way.openmp) for way in ways]
    return [*native, *ways[-2:], _Recipe((), (), "one thread")]


def _compiler() -> tuple[list[str], str]:
    """The compiler's command and the first line of its version.

    Raises:
        BuildError: there is none.
    """
    given = os.environ.get("CXX", "").strip()
    for candidate in [given] if given else ["c++", "g++", "clang++"]:
        try:
            command = shlex.split(candidate)
            done = subprocess.run(
                [*command, "--version"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return command, done.stdout.splitlines()[0].strip()
    if given:
        raise BuildError(f"no C++ compiler: $CXX is '{given}', which does not run")
    raise BuildError("no C++ compiler: none of c++, g++, clang++ runs, and $CXX is not set")


def _processor() -> str:
    """Model and instructions of the CPU: a home folder may be shared by machines that differ in both."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.platform()}"
    lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    return "\n".join([platform.machine(), *sorted(set(lines))])


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _cache() -> Path:
    """Where builds are kept: $CIRCUITLAB_CACHE, or circuitlab/ in the user's cache folder."""
    if given := os.environ.get("CIRCUITLAB_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "circuitlab"


def _whole(folder: Path) -> tuple[Path, str] | None:
    """The library in a folder and what is said of it, None where it is missing or not what was written."""
    try:
        digest, about = (folder / DIGEST).read_text(encoding="utf-8").split("\n", 1)
        path = folder / LIBRARY
        return (path, about) if hashlib.sha256(path.read_bytes()).hexdigest() == digest else None
    except (OSError, ValueError):
        return None


def _make(command: list[str], recipes: list[_Recipe], folder: Path) -> tuple[Path, str]:
    """Build in a folder of one's own, then give it its name in one step; a whole one that is there first wins."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as own:
        work = Path(own) / "new"
        work.mkdir(mode=0o700)
        about = _compile(command, recipes, work)
        digest = hashlib.sha256((work / LIBRARY).read_bytes()).hexdigest()
        (work / DIGEST).write_text(f"{digest}\n{about}", encoding="utf-8")
        for attempt in range(3):
            try:
                work.rename(folder)
                return folder / LIBRARY, about
            except OSError:
                if (found := _whole(folder)) is not None:
                    return found
                broken = Path(own) / f"broken {attempt}"
                try:
                    folder.rename(broken)
                except FileNotFoundError:
                    continue
        raise OSError(f"{folder} cannot be replaced")


def _compile(command: list[str], recipes: list[_Recipe], work: Path) -> str:
    """Compile with the first recipe that works and loads; returns what to say of it.

    Raises:
        BuildError: none works; the text has the compiler's first error.
    """
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    strict = ("-Wl,-z,defs",) if sys.platform.startswith("linux") else ()
    first = ""
    for recipe in recipes:
        objects = [f"{Path(source).stem}.o" for source in sources]
        error = _run([*command, *EXACT, *recipe.compile, "-c", *sources], work) or _run(
            [*command, "-shared", "-o", LIBRARY, *objects, *recipe.link, *strict], work
        )
        for name in objects:
            (work / name).unlink(missing_ok=True)
        if not error:
            try:
                ctypes.CDLL(str(work / LIBRARY))
            except OSError as refused:
                error = str(refused)
        if not error:
            return f"{' '.join(('-O3', *recipe.compile))}; {recipe.openmp}"
        first = first or error
    raise BuildError(f"{shlex.join(command)} cannot build the compiled loops: {first}")


def _run(command: list[str], folder: Path) -> str:
    """The first line of what went wrong; empty where nothing did."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE_S} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
    return lines[0].strip() if lines else f"exit status {done.returncode}"
