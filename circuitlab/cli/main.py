"""The `circuitlab` command: its subcommands, and what every one of them does with an error.

Exit codes: 0 done, 1 the user's input is wrong, 2 the command line is wrong, 3 the run failed, 130 Ctrl-C.
To add a command, write its function in a module of its own, import it here and add it to `COMMANDS`; a
group of commands (a typer app with a name) to `GROUPS`.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer
from typer.main import get_command

from circuitlab import __version__
from circuitlab.cli.bench import bench
from circuitlab.cli.diagnose import diagnose
from circuitlab.cli.equilibrium import equilibrium
from circuitlab.cli.export import export
from circuitlab.cli.import_ import import_
from circuitlab.cli.inspect import inspect
from circuitlab.cli.report import report
from circuitlab.cli.run import run
from circuitlab.cli.schema import schema
from circuitlab.cli.show import show
from circuitlab.cli.simulate import simulate
from circuitlab.cli.validate import validate
from circuitlab.cli.watch import watch
from circuitlab.errors import CircuitlabError, NotConvergedError, ProcessError

DONE, WRONG_INPUT, RUN_FAILED, STOPPED = 0, 1, 3, 130
COMMANDS = (
    validate,
    schema,
    show,
    run,
    equilibrium,
    simulate,
    watch,
    inspect,
    diagnose,
    import_,
    export,
    report,
)
GROUPS = (bench,)

app = typer.Typer(
    name="circuitlab",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command(_command.__name__.rstrip("_"))(_command)
for _group in GROUPS:
    app.add_typer(_group)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuitlab {__version__}")
        raise typer.Exit


@app.callback()
def circuitlab(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Neural circuits as YAML graphs: their equilibria, local learning, and every neuron on record.

    A circuit file names populations (inputs, pyramidal cells, interneurons, outputs) and their projections.

    An experiment file says what the circuit learns, from which data, under which control, and what to record.
    """


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; argv without the program's name, sys.argv where None."""
    try:
        get_command(app).main(args=argv, prog_name="circuitlab")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else DONE
    except KeyboardInterrupt:
        return STOPPED
    except (NotConvergedError, ProcessError) as error:
        if str(error):
            print(error, file=sys.stderr)
        return RUN_FAILED
    except CircuitlabError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except (ArithmeticError, MemoryError, OSError) as error:
        print(f"circuitlab: the run failed: {error or type(error).__name__}", file=sys.stderr)
        return RUN_FAILED
    return DONE


def entry() -> None:
    """The program `circuitlab`."""
    sys.excepthook = _unforeseen
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error nobody foresaw is a mistake in circuitlab: show all of it, and do not blame the user."""
    traceback.print_exception(kind, error, trace)
    print("circuitlab: this is a mistake in circuitlab, not in your files; please report it", file=sys.stderr)
    sys.exit(RUN_FAILED)
