"""Bad input gives its exact message and exit code 1, no traceback, and leaves no file behind.

The cases lie in cases/*.txt. A case is a title, a command, changes to the files of cases/base, files of its
own, and every line that must come out on standard error:

    === a population without a size
    $ validate circuit.yaml
    ~ circuit.yaml: {type: output, size: 2} => {type: output}
    + names.csv
        name
        zero
    ! circuit.yaml:6:3: populations.y: the key 'size' is missing

A `~` line replaces text that stands once in the file (`\\n` is a new line).
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from circuitlab.cli.main import main

CASES = Path(__file__).parent / "cases"


@dataclass
class Case:
    """One broken input, the command that meets it, and what the command must say."""

    title: str
    command: str = ""
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)


def read_cases(path: Path) -> list[Case]:
    """Every case of a file."""
    cases: list[Case] = []
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark, _, rest = line.partition(" ")
        if mark == "===":
            cases.append(Case(rest))
        elif mark == "$":
            cases[-1].command = rest
        elif mark == "~":
            name, _, change = rest.partition(": ")
            old, _, new = change.partition(" => ")
            cases[-1].changes.append((name, old, new.replace("\\n", "\n")))
        elif mark == "+":
            lines = cases[-1].files.setdefault(rest, [])
        elif mark == "!":
            cases[-1].expected.append(rest)
        elif line.startswith("    "):
            lines.append(line[4:])
        else:
            assert not line, f"{path.name}:{number}: not a line of a case: {line}"
    return cases


ALL = [
    pytest.param(case, id=f"{path.stem}: {case.title}")
    for path in sorted(CASES.glob("*.txt"))
    for case in read_cases(path)
]


@pytest.mark.parametrize("case", ALL)
def test_refusal(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(CASES / "base", tmp_path, dirs_exist_ok=True)
    for name, old, new in case.changes:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"'{old}' must stand once in {name}"
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    for name, lines in case.files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    code = main(shlex.split(case.command))
    said = capsys.readouterr().err
    assert said.splitlines() == case.expected
    assert code == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_titles_differ_and_every_case_expects_something() -> None:
    titles = [param.id for param in ALL]
    assert len(titles) == len(set(titles))
    assert len(titles) >= 60
    for path in CASES.glob("*.txt"):
        for case in read_cases(path):
            assert case.command and case.expected, case.title
