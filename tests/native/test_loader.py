"""The compiled library: built once, found again, rebuilt where it is damaged, left out where it cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from circuitlab import native
from circuitlab.errors import CircuitlabError
from circuitlab.native.build import DIGEST, LIBRARY, loaded_openmp

pytestmark = pytest.mark.compiled
SAY = """
import ctypes, pathlib, sys
{before}
import circuitlab.native.build
circuitlab.native.build.SOURCES = pathlib.Path({sources!r})
from circuitlab import native
print(native.available(), native.reason() or native.about())
"""
USE = SAY + "native.function('circuitlab_openmp', (), ctypes.c_int)()\n"


@pytest.fixture(scope="session")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shortest of the library's sources: what is tested here is how it is built, many times."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("runtime.cpp", "native.h"):
        shutil.copy(repository / "circuitlab" / "native" / name, folder)
    return str(folder)


def say(
    repository: Path, sources: str, code: str = USE, before: str = "", **variables: str
) -> tuple[bool, str]:
    """Whether the library is there in a new process with these environment variables, and what is said of it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.format(before=before, sources=sources)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    word, text = done.stdout.strip().split(" ", 1)
    return word == "True", text


def builds(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_is_built_once_and_found_again(repository: Path, sources: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    there, about = say(repository, sources, CIRCUITLAB_CACHE=str(cache))
    assert there
    assert "-O3" in about
    (folder,) = builds(cache)
    assert {p.name for p in folder.iterdir()} == {LIBRARY, DIGEST}
    before = (folder / LIBRARY).stat()
    assert say(repository, sources, CIRCUITLAB_CACHE=str(cache)) == (True, about)
    after = (folder / LIBRARY).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_processes_that_build_at_once_leave_one_whole_library(
    repository: Path, sources: str, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: say(repository, sources, CIRCUITLAB_CACHE=str(tmp_path)), range(3)))
    assert {there for there, _ in found} == {True}
    assert len({about for _, about in found}) == 1
    assert len(builds(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "other bytes", "no digest", "no library", "empty folder"])
def test_a_damaged_build_is_replaced(repository: Path, sources: str, tmp_path: Path, damage: str) -> None:
    say(repository, sources, CIRCUITLAB_CACHE=str(tmp_path))
    (folder,) = builds(tmp_path)
    library, digest = folder / LIBRARY, folder / DIGEST
    whole = library.read_bytes()
    if damage == "cut":
        library.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        library.write_bytes(b"")
    elif damage == "other bytes":
        library.write_bytes(whole[:-1000] + bytes(1000))
    elif damage == "no digest":
        digest.unlink()
    elif damage == "no library":
        library.unlink()
    else:
        library.unlink()
        digest.unlink()
    assert say(repository, sources, CIRCUITLAB_CACHE=str(tmp_path))[0]
    assert builds(tmp_path) == [folder]
    assert {p.name for p in folder.iterdir()} == {LIBRARY, DIGEST}
    assert len(library.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_done_without(
    repository: Path, sources: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert say(repository, sources, CIRCUITLAB_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(temporary))[
        0
    ]
    assert list(temporary.iterdir()) == [], "the private build goes with its process"


def test_the_cache_follows_the_user_unless_told(repository: Path, sources: str, tmp_path: Path) -> None:
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    say(repository, sources, CIRCUITLAB_CACHE="", XDG_CACHE_HOME="", HOME=str(home))
    assert len(builds(home / ".cache" / "circuitlab")) == 1
    say(repository, sources, CIRCUITLAB_CACHE="", XDG_CACHE_HOME=str(xdg), HOME=str(home))
    assert len(builds(xdg / "circuitlab")) == 1


def test_says_why_it_is_not_there(repository: Path, sources: str, tmp_path: Path) -> None:
    cache = {"CIRCUITLAB_CACHE": str(tmp_path / "cache")}
    assert say(repository, sources, SAY, CIRCUITLAB_NATIVE="0", **cache) == (
        False,
        "switched off by CIRCUITLAB_NATIVE=0",
    )
    there, why = say(repository, sources, SAY, CXX="no-such-compiler", **cache)
    assert not there
    assert why == "no C++ compiler: $CXX is 'no-such-compiler', which does not run"
    there, why = say(repository, sources, SAY, PATH=str(tmp_path), CXX="", **cache)
    assert not there
    assert why == "no C++ compiler: none of c++, g++, clang++ runs, and $CXX is not set"
    broken = tmp_path / "c++"
    broken.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "print('strange 1.0') if '--version' in sys.argv else sys.exit('x.cpp: error: no disk')\n"
    )
    broken.chmod(0o700)
    there, why = say(repository, sources, SAY, CXX=str(broken), **cache)
    assert not there
    assert why == f"{broken} cannot build the compiled loops: x.cpp: error: no disk"
    assert not any((tmp_path / "cache").iterdir()), "a build that failed leaves nothing"


def test_one_openmp_library_in_the_process(repository: Path, sources: str) -> None:
    """Beside torch, whatever OpenMP it brings, no second one is loaded."""
    count = SAY + (
        "import pathlib, re\ntext = pathlib.Path('/proc/self/maps').read_text()\n"
        "assert len(set(re.findall(r'/\\S*/lib(?:gomp|iomp5|omp)[^/\\s]*', text))) <= 1, text\n"
    )
    assert say(repository, sources, count, before="import torch")[0]


def test_of_several_openmp_libraries_torchs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's wheels bring one of their own; the kernel lists what is mapped by address, not by whose it is."""
    line = "7f0000000000-7f0000001000 r-xp 00000000 08:01 42                         {}\n"
    torchs = "/site-packages/torch/lib/libgomp.so.1"
    other, unrelated = "/site-packages/scikit_learn.libs/libgomp-e985bcbb.so.1.0.0", "/lib/libm.so.6"
    for mapped, taken in (
        ([other, unrelated, torchs], torchs),
        ([torchs, other], torchs),
        ([unrelated, other], other),
        ([unrelated], None),
    ):
        text = "".join(line.format(path) for path in mapped)
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert loaded_openmp() == taken


def test_a_wrong_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_NATIVE", "yes")
    monkeypatch.setattr("circuitlab.native.loader._loaded", None)
    with pytest.raises(
        CircuitlabError, match=r"^the environment variable CIRCUITLAB_NATIVE is 'yes'; allowed: 0, 1$"
    ):
        native.available()


def test_is_turned_off_for_a_while() -> None:
    before = native.available(), native.reason()
    with native.disabled():
        with native.disabled():
            assert not native.available()
        assert not native.available()
        assert native.reason() == native.about() == "switched off by native.disabled()"
        with pytest.raises(CircuitlabError, match="the compiled loops are not available: switched off by"):
            native.library()
    assert (native.available(), native.reason()) == before
