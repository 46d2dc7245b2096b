"""The house keeps its form: floors, small modules, finished code, a command line that starts at once."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

LONGEST = 400
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|raise NotImplementedError|for now|stub|placeholder)\b")
SWALLOWED = re.compile(r"except\s*:|except\s+Exception\b")
SKIPPED = re.compile(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)\b|unittest\.skip")
HEAVY = ("torch", "scipy", "matplotlib", "networkx", "h5py", "sklearn", "numpy", "pydantic")

TOP = Path(__file__).resolve().parents[1]
PACKAGE = sorted((TOP / "circuitlab").rglob("*.py"))
TESTS = [path for path in sorted((TOP / "tests").rglob("*.py")) if path != Path(__file__).resolve()]


def _name(path: Path) -> str:
    return str(path.relative_to(TOP))


def test_each_floor_imports_only_what_lies_below_it() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_no_module_is_too_long_to_be_read_at_once(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{_name(path)} has {lines} lines; at most {LONGEST}"


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_nothing_is_left_unfinished_or_swallowed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not UNFINISHED.findall(text)
    assert not SWALLOWED.findall(text)


@pytest.mark.parametrize("path", TESTS, ids=_name)
def test_no_test_is_skipped_or_expected_to_fail(path: Path) -> None:
    assert not SKIPPED.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_every_module_and_public_function_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{_name(path)}: {node.name} has no docstring"


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = "import sys, circuitlab.cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_nothing_depends_on_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.returncode == 0 else [_name(path) for path in PACKAGE + TESTS]
    kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".txt", "Makefile", "run")
    home = re.compile(r"(?<![\w.])/(root|work|home/\w+|Users/\w+)/")
    for name in names:
        path = TOP / name
        if name.endswith(kinds) and path.is_file() and path != Path(__file__).resolve():
            assert not home.search(path.read_text(encoding="utf-8", errors="replace")), name


def test_comments_hold_no_code_that_was_switched_off() -> None:
    code = re.compile(r"^#\s*(def |class |return\b|import |from \w+ import |if .*:$|for .* in .*:$)")
    for path in PACKAGE:
        with tokenize.open(path) as stream:
            for token in tokenize.generate_tokens(io.StringIO(stream.read()).readline):
                if token.type == tokenize.COMMENT:
                    assert not code.match(token.string), f"{_name(path)}:{token.start[0]}: {token.string}"
