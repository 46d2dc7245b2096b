"""`circuitlab simulate`: a circuit as time passes, free or under control, with delays and noise."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitlab.cli.common import (
    AllowOutside,
    AsJson,
    CircuitFile,
    Scale,
    console,
    print_json,
    say,
    sound,
    table,
)
from circuitlab.cli.run import Overrides

if TYPE_CHECKING:
    from circuitlab.experiment.simulation import Prepared


def simulate(
    file: CircuitFile,
    inputs: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="X.npy",
            help="Inputs, sample by unit, or time by sample by unit with --input-dt; an npz has one array per input.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="SIM.h5", help="Where to write.")],
    targets: Annotated[
        Path | None,
        typer.Option(
            "--target",
            metavar="Y.npy",
            help="Targets: a label for each sample, or sample by output unit. Without them the circuit is free.",
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration",
            metavar="TIME",
            help="How long; as long as an input over time lasts, or 100 ms, unless given.",
        ),
    ] = None,
    dt: Annotated[str, typer.Option("--dt", metavar="TIME", help="The time step.")] = "0.1 ms",
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="rk4, euler or exponential_euler.")
    ] = "rk4",
    input_dt: Annotated[
        str | None,
        typer.Option("--input-dt", metavar="TIME", help="How long each time of an input over time lasts."),
    ] = None,
    initial: Annotated[
        str,
        typer.Option(
            "--initial",
            metavar="STATE",
            help="Potentials at the start: silence (zero), free (the free equilibrium of the first input), or an npz "
            "with one array, sample by unit, for each population.",
        ),
    ] = "silence",
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="PATHWAY",
            help="A feedback pathway, dynamic_inversion unless given; it needs a target.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", metavar="RUN.h5", help="Take the weights that a run of this circuit has learned."
        ),
    ] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(
            "--record",
            metavar="POP[:VARIABLE[:NEURONS]]",
            help="What to record, such as l23, l23:rate, l23:soma:0,5,10:20, l23:soma:AVA*, :rate (of all populations) "
            "or ':soma:where x < 3'; the somata of all populations unless given. Give it as often as you like.",
        ),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="STEPS", help="How often to record, such as '10 steps'.")
    ] = "1 step",
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    scale: Scale = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Simulate a circuit in real time, free or under control, and record its neurons.

    Delays of projections and noise of populations act here, as nowhere else. Times are in ms, all else has no unit. In
    float64 unless --set dtype=float32. Ctrl-C leaves a file with every frame so far (docs/simulation.md).
    """
    sound(weights)
    from circuitlab.errors import CircuitError
    from circuitlab.experiment.simulate import times, write
    from circuitlab.experiment.simulate_arrays import unlabelled
    from circuitlab.experiment.simulation import Settings, prepare, specification
    from circuitlab.record.place import refuse_existing
    from circuitlab.spec.circuit import load_circuit

    refuse_existing(output, str(output), overwrite)
    circuit = load_circuit(file, allow_outside=allow_outside, scale=scale)
    if control is not None and targets is None:
        raise CircuitError("--control: a circuit is controlled towards a target; give --target")
    changes = list(overrides or ())
    if control is not None:
        changes.insert(0, f"control.pathway={control}")
    spec = specification(
        circuit,
        changes,
        controlled=targets is not None,
        labelled=targets is None or not unlabelled(targets),
        rests=initial == "free",
        allow_outside=allow_outside,
    )
    settings = Settings(
        **times(duration=duration, dt=dt, input_dt=input_dt, every=every),
        method=method,
        initial=initial if initial in ("silence", "free") else Path(initial),
        record=tuple(record or ()),
    )
    prepared = prepare(spec, settings, inputs, targets, weights)
    started = time.monotonic()
    command = shlex.join(["circuitlab", *sys.argv[1:]])
    try:
        with _stopping() as stopped, _progress(shown=not (as_json or quiet)) as progress:
            write(prepared, output, command=command, overwrite=overwrite, stopped=stopped, progress=progress)
    except KeyboardInterrupt:
        print(
            f"stopped at {prepared.simulator.time_ms:g} ms; what was recorded is in {output}", file=sys.stderr
        )
        raise
    summary = _summary(prepared, output, time.monotonic() - started)
    if as_json:
        print_json(summary)
        return
    rows = [list(row.values()) for row in summary["recorded"]]
    table("Recorded", list(summary["recorded"][0]), rows)
    say(
        f"{summary['duration_ms']:g} ms in {summary['steps']:,} steps of {summary['dt_ms']:g} ms "
        f"({summary['method']}, {summary['control']}), {summary['seconds']:.1f} s"
    )
    say(f"still moving by {summary['speed_per_ms']:.3g} /ms at the end; written to {output}")


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) stops after the present step; a second one at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar where the page is a terminal."""
    from rich.progress import Progress

    page = console()
    with Progress(console=page, transient=True, disable=not (shown and page.is_terminal)) as bar:
        task = bar.add_task("simulating", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _summary(prepared: Prepared, output: Path, seconds: float) -> dict[str, Any]:
    settings, simulator = prepared.settings, prepared.simulator
    spec = prepared.assembled.spec
    return {
        "file": str(output),
        "method": settings.method,
        "dt_ms": settings.dt_ms,
        "duration_ms": settings.duration_ms,
        "steps": prepared.steps,
        "control": spec.control.pathway if prepared.controlled else "free",
        "weights": prepared.weights,
        "seconds": seconds,
        "speed_per_ms": float(simulator.speed().max()),
        "recorded": [
            {
                "trace": trace.name,
                "frames": prepared.frames,
                "samples": prepared.signal.values.shape[1],
                "neurons": len(trace.unit_ids),
            }
            for trace in prepared.traces
        ],
    }
