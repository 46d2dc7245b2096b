"""Real-time simulation of a circuit: from a circuit file, inputs and settings to traces of its neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.errors import CircuitError
from circuitlab.experiment.activity import Activity
from circuitlab.experiment.assemble import begin_file, told_of_failure
from circuitlab.experiment.equilibrium import write_feedback
from circuitlab.experiment.simulate_arrays import Arrays, unlabelled
from circuitlab.experiment.simulation import FREE, SILENCE, Prepared, Settings, begins, prepare, specification
from circuitlab.record.place import refuse_existing
from circuitlab.record.run_file import RunWriter
from circuitlab.record.space import grown, require_space
from circuitlab.record.storage import uninterrupted
from circuitlab.record.traces import Trace
from circuitlab.spec.circuit import CircuitSpec, load_circuit
from circuitlab.spec.quantities import count_of, count_text, milliseconds


@dataclass(frozen=True)
class Simulated:
    """What came out of a simulation in memory.

    Args:
        time_ms: of each frame, [frame].
        activity: by trace (`<population>_<variable>`), [frame, sample, unit]; empty where it went into a file.
        path: of that file, or None.
    """

    time_ms: np.ndarray
    activity: dict[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None

    def __getitem__(self, trace: str) -> np.ndarray:
        return self.activity[trace]


def frames(prepared: Prepared, stopped: Callable[[], bool] | None = None) -> Iterable[tuple[int, Activity]]:
    """The steps at which frames are recorded, and the circuit's variables at each; simulates on the way.

    Args:
        stopped: asked at every step; where it says so, the simulation ends with KeyboardInterrupt.
    """
    simulator, system = prepared.simulator, prepared.simulator.system
    for number in simulator.run(prepared.steps):
        if stopped is not None and stopped():
            raise KeyboardInterrupt
        if number % prepared.settings.every == 0:
            yield number, Activity(system, simulator.fields, system.inputs(number))


def values_of(trace: Trace, activity: Activity) -> np.ndarray:
    """A trace's frame, [sample, unit]."""
    found = activity.values(trace.population, trace.variable, trace.unit_ids)
    assert found is not None, "traces are checked when they are planned"
    return found


def write(
    prepared: Prepared,
    path: Path,
    *,
    command: str,
    overwrite: bool = False,
    stopped: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Simulate into a run file: frames go to the disk as they come, and at most 64 MB of them wait in memory.

    Ctrl-C leaves a file with the status `interrupted` and every frame so far.

    Args:
        progress: told of the steps done, and of all.
    """
    samples, item = prepared.signal.values.shape[1], prepared.assembled.compiled.tau.element_size()
    sizes = [grown(prepared.frames, (samples, len(trace.unit_ids)), item) for trace in prepared.traces]
    require_space(path, sum(sizes) + 2 * len(sizes) * grown(prepared.frames, (), 8))
    with (
        begin_file(prepared.assembled, path, command=command, overwrite=overwrite) as writer,
        told_of_failure(writer),
    ):
        _describe(writer, prepared)
        every = count_text(prepared.settings.every, "steps")
        for trace in prepared.traces:
            trace.start(writer, every, samples, prepared.frames)
        for number, activity in frames(prepared, stopped):
            now = [(trace, values_of(trace, activity)) for trace in prepared.traces]
            with uninterrupted():
                for trace, values in now:
                    trace.record(writer, number, prepared.simulator.time_ms, values)
            writer.publish_if_due()
            if progress is not None:
                progress(number, prepared.steps)


def _describe(writer: RunWriter, prepared: Prepared) -> None:
    """What was simulated: the method, inputs and targets."""
    settings, spec = prepared.settings, prepared.assembled.spec
    compiled, values = prepared.assembled.compiled, prepared.signal.values
    given = next((word for word in (SILENCE, FREE) if begins(settings.initial, word)), "given")
    about: dict[str, Any] = {
        "method": settings.method,
        "dt_ms": settings.dt_ms,
        "duration_ms": settings.duration_ms,
        "initial": given,
        "weights": prepared.weights,
        "control": "none",
    }
    if prepared.controlled:
        about |= {
            "control": spec.control.pathway,
            "feedback": spec.control.feedback,
            "controller": spec.control.controller.type,
            "alpha": prepared.assembled.task.controller.alpha,
        }
    if settings.input_dt_ms is not None:
        about["input_dt_ms"] = settings.input_dt_ms
    writer.attributes("simulation", **about)
    axes = "time, sample, unit" if settings.input_dt_ms is not None else "sample, unit"
    for name, rows in compiled.inputs.items():
        part = values[:, :, rows] if settings.input_dt_ms is not None else values[0][:, rows]
        writer.put(
            f"samples/input/{name}",
            part,
            units="dimensionless",
            description=f"[{axes}] input of population {name}",
        )
    if prepared.target is not None and prepared.way is not None:
        write_feedback(writer, prepared.way)
        for name, rows in compiled.outputs.items():
            writer.put(
                f"samples/target/{name}",
                prepared.target[rows].t().cpu().numpy(),
                units="dimensionless",
                description=f"[sample, unit] target of population {name}",
            )


def simulate(
    circuit: str | Path | CircuitSpec,
    inputs: Arrays,
    *,
    targets: Arrays | None = None,
    duration: str | None = None,
    dt: str = "0.1 ms",
    method: str = "rk4",
    input_dt: str | None = None,
    initial: Arrays = SILENCE,
    control: str | None = None,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    scale: float | None = None,
    record: Sequence[str] = (),
    every: str = "1 step",
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Simulated:
    """Simulate a circuit in real time, from Python: `circuitlab.simulate("cortex.yaml", x, duration="200 ms")`.

    Args:
        circuit: the circuit's file, or the file read.
        inputs: [sample, unit], or [time, sample, unit] with `input_dt`; an array over all inputs, a mapping from input
            population to array, or the name of an npy or npz file. Dimensionless.
        targets: labels [sample] or values [sample, output unit]; with them the circuit is controlled.
        duration, dt, input_dt: times with their unit; it lasts as long as an input over time, or 100 ms, unless given.
        method: rk4, euler or exponential_euler.
        initial: silence, free (the free equilibrium of the first input), or potentials [sample, unit] by population.
        control: a feedback pathway, dynamic_inversion unless given.
        overrides: changes such as "control.controller.alpha=0.1" or "seed=3".
        weights: a run file whose weights are simulated.
        scale: in place of the circuit file's, where `circuit` is the file's name.
        record: what is recorded, such as "l23", "l23:rate" or "l23:soma:0,5,10:20"; all somata unless given.
        every: how often, such as "10 steps".
        output: a run file for the frames; they are kept in memory where None.

    Returns:
        Times in ms and the frames, [frame, sample, unit].

    Raises:
        CircuitlabError: something does not fit; the text says what and what is allowed.
    """
    if isinstance(circuit, CircuitSpec) and scale is not None:
        raise CircuitError(
            "scale: the circuit was read already; give load_circuit the scale, or the file's name"
        )
    read = circuit if isinstance(circuit, CircuitSpec) else load_circuit(circuit, scale=scale)
    if control is not None and targets is None:
        raise CircuitError("control: a circuit is controlled towards a target; give targets")
    changes = ([] if control is None else [f"control.pathway={control}"]) + list(overrides)
    if output is not None:
        refuse_existing(Path(output), str(output), overwrite)
    spec = specification(
        read,
        changes,
        controlled=targets is not None,
        labelled=targets is None or not unlabelled(targets),
        rests=begins(initial, FREE),
    )
    settings = Settings(
        **times(duration=duration, dt=dt, input_dt=input_dt, every=every),
        method=method,
        initial=initial,
        record=tuple(record),
    )
    prepared = prepare(spec, settings, inputs, targets, None if weights is None else Path(weights))
    at = np.arange(prepared.frames) * prepared.settings.every * prepared.settings.dt_ms
    if output is not None:
        write(prepared, Path(output), command="circuitlab.simulate", overwrite=overwrite)
        return Simulated(at, {}, Path(output))
    kept: Mapping[str, list[np.ndarray]] = {trace.name: [] for trace in prepared.traces}
    for _, activity in frames(prepared):
        for trace in prepared.traces:
            kept[trace.name].append(values_of(trace, activity))
    return Simulated(at, {name: np.stack(rows) for name, rows in kept.items()})


def times(*, duration: str | None, dt: str, input_dt: str | None, every: str) -> dict[str, Any]:
    """The times of `Settings` from texts such as `100 ms` and `10 steps`.

    Raises:
        CircuitError: one line for each that is no time.
    """
    found: dict[str, Any] = {}
    problems = []
    for name, text in (("duration", duration), ("dt", dt), ("input_dt", input_dt)):
        try:
            found[f"{name}_ms"] = None if text is None else milliseconds(text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    try:
        found["every"] = count_of(every, ("steps",))[0]
    except ValueError as error:
        problems.append(f"every: {error}")
    if problems:
        raise CircuitError("\n".join(problems))
    return found
