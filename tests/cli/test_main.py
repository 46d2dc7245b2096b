"""Exit codes: 0 done, 1 the input is wrong, 2 the command line is wrong, 3 the run failed, 130 Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import circuitlab
from circuitlab.cli.main import app, main
from circuitlab.errors import NotConvergedError


def test_version_and_help_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"circuitlab {circuitlab.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in (
        "validate",
        "schema",
        "show",
        "simulate",
        "import",
        "export",
        "inspect",
        "diagnose",
        "bench",
    ):
        assert command in shown


@pytest.mark.parametrize("command", ["validate", "schema", "show", "inspect", "diagnose", "bench"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: circuitlab" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["shwo"], ["show"], ["show", "a.yaml", "--no-such"], ["schema", "network"], ["validate"]]
)
def test_a_wrong_command_line_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err


def test_wrong_input_is_1_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["show", str(missing)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"{missing}: no such file\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotConvergedError("3 of 8 samples did not converge"), 3),
        (OSError(28, "No space left on device"), 3),
        (MemoryError(), 3),
        (FloatingPointError("overflow"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_failed_run_is_3_and_a_stopped_one_130(
    error: BaseException,
    code: int,
    cortex: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("circuitlab.graph.build.build", fail)
    assert main(["show", str(cortex)]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_unforeseen_error_is_3_and_shows_everything() -> None:
    code = (
        "import sys, circuitlab.cli.main as program\n"
        "def fail(argv=None): raise LookupError('unforeseen')\n"
        "program.main = fail\n"
        "program.entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "LookupError: unforeseen" in done.stderr
    assert "mistake in circuitlab" in done.stderr


def test_the_program_returns_the_code_to_the_shell(repository: Path) -> None:
    command = [sys.executable, "-c", "from circuitlab.cli.main import entry; entry()", "validate", "no.yaml"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no.yaml: no such file\n")


def test_no_help_loses_what_stands_in_brackets() -> None:
    """Square brackets are markup in the help of options, and what they hold would not be shown."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    commands = {**group.commands}
    for name, command in list(commands.items()):
        commands |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    said = {
        f"{name} {parameter.name}": getattr(parameter, "help", None) or ""
        for name, command in commands.items()
        for parameter in command.params
    }
    assert len(said) > 50
    assert [place for place, text in said.items() if "[" in text.replace("\\[", "")] == []
