"""A simulation about to begin: the circuit built, its controller, delays and noise, in its first state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled, Pathway
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.integrators import INTEGRATORS, Integrator
from circuitlab.errors import CircuitError, NotConvergedError
from circuitlab.experiment.assemble import Assembled, assemble, tensor
from circuitlab.experiment.control import pathway
from circuitlab.experiment.diagnose import load_weights
from circuitlab.experiment.simulate_arrays import Arrays, initial_potentials, input_signal, read_targets
from circuitlab.graph.circuit import Circuit
from circuitlab.record.traces import Trace, plan_traces
from circuitlab.simulation.grid import check_times, steps_of
from circuitlab.simulation.noise import currents
from circuitlab.simulation.signal import Signal
from circuitlab.simulation.simulator import Simulator
from circuitlab.simulation.timed import TimedCircuit
from circuitlab.solve.base import Solution
from circuitlab.spec.circuit import CircuitSpec
from circuitlab.spec.combinations import LINEAR
from circuitlab.spec.experiment import ExperimentSpec, experiment_from
from circuitlab.spec.probe_checks import NO_TIME

PATHWAYS = ("dynamic_inversion", *LINEAR)
"""Pathways with equations in time."""
SILENCE, FREE = "silence", "free"
DURATION = 100.0
"""Milliseconds simulated unless given, under a constant input."""
UNUSED = ("learn", "data", "record", "experiment", "circuit", "description")
"""Sections of an experiment that a simulation has no use for."""


@dataclass(frozen=True)
class Settings:
    """What a simulation does.

    Args:
        duration_ms: time simulated, in ms; where None as long as an input over time lasts, or 100 ms.
        dt_ms: time step, in ms.
        method: rk4, euler or exponential_euler.
        input_dt_ms: how long each time of the input lasts, in ms; None where the input is constant.
        initial: `silence` (all potentials zero), `free` (the free equilibrium of the first input), or potentials.
        record: as in `circuitlab.record.traces.plan_traces`; the somata of all populations where empty.
        every: steps between two frames.
    """

    duration_ms: float | None = None
    dt_ms: float = 0.1
    method: str = "rk4"
    input_dt_ms: float | None = None
    initial: Arrays = SILENCE
    record: Sequence[str] = ()
    every: int = 1

    @property
    def length_ms(self) -> float:
        """Time simulated, once it is decided."""
        assert self.duration_ms is not None
        return self.duration_ms


@dataclass(frozen=True)
class Prepared:
    """A simulation about to begin.

    Args:
        assembled: the circuit, its graph with the weights that are simulated.
        signal: inputs. target: [output unit, sample], or None where the circuit is free.
        way: the feedback pathway, or None.
        weights: where the weights come from, in words.
        steps: number of time steps.
    """

    assembled: Assembled
    settings: Settings
    simulator: Simulator
    traces: list[Trace]
    signal: Signal
    target: Tensor | None
    way: Pathway | None
    weights: str
    steps: int

    @property
    def frames(self) -> int:
        """Frames that will be recorded: the first moment's, and every so many steps."""
        return self.steps // self.settings.every + 1

    @property
    def controlled(self) -> bool:
        """Whether an output controller is at work."""
        return self.target is not None


def specification(
    circuit: CircuitSpec,
    overrides: Sequence[str],
    *,
    controlled: bool,
    labelled: bool = True,
    rests: bool = False,
    allow_outside: bool = False,
) -> ExperimentSpec:
    """The experiment that a simulation's options make, in float64 unless told otherwise.

    Args:
        controlled: whether targets are given. labelled: whether they are labels or distributions.
        rests: whether it begins at the free equilibrium.

    Raises:
        CircuitlabError: an option is wrong, or of no use here.
    """
    keys = [change.split("=")[0].strip() for change in overrides]
    for key in keys:
        section = key.split(".")[0]
        if section in UNUSED:
            raise CircuitError(
                f"{key}: a simulation has no use for it; allowed: dtype, seed, device, threads, solve, and with a "
                "target control and loss"
            )
        if section in ("control", "loss") and not controlled:
            raise CircuitError(f"{key}: the circuit is free without a target; give one to control it")
    changes = list(overrides)
    if "dtype" not in keys and not any(c.replace(" ", "").startswith("device=mps") for c in changes):
        changes.append("dtype=float64")
    if controlled and not labelled and not any(key.split(".")[0] == "loss" for key in keys):
        changes.append("loss=squared_error")
    spec = experiment_from(circuit, changes, allow_outside=allow_outside, purpose="simulation")
    if "solve.tolerance" not in keys and "solve" not in keys:
        tolerance = {"float32": 1e-5, "float64": 1e-12}[spec.dtype]
        changes += [f"solve.tolerance={tolerance}"]
        if "solve.max_iterations" not in keys:
            changes += ["solve.max_iterations=2000"]
        spec = experiment_from(circuit, changes, allow_outside=allow_outside, purpose="simulation")
    if controlled and spec.control.pathway not in PATHWAYS:
        raise CircuitError(
            f"control.pathway: {spec.control.pathway} has no equations in time: {NO_TIME[spec.control.pathway]}; "
            f"allowed: {', '.join(PATHWAYS)}"
        )
    looks = rests or (controlled and spec.control.pathway == "deep_feedback_control")
    unused = next((key for key in keys if key.split(".")[0] == "solve"), None)
    if unused is not None and not looks:
        raise CircuitError(
            f"{unused}: no equilibrium is looked for; it serves a simulation that begins at one (initial: free)"
        )
    return spec


def prepare(
    spec: ExperimentSpec,
    settings: Settings,
    inputs: Arrays,
    targets: Arrays | None = None,
    weights: Path | None = None,
) -> Prepared:
    """Build and compile the circuit of a simulation, and put it in its first state.

    Args:
        inputs: [sample, unit], or [time, sample, unit] with `settings.input_dt_ms`; a file or arrays.
        targets: labels [sample] or values [sample, output unit]; the circuit is free without.
        weights: a run file whose weights take the place of the initial ones.

    Raises:
        CircuitlabError: whatever does not fit.
    """
    try:
        return _prepare(spec, settings, inputs, targets, weights)
    except CircuitError as error:
        raise type(error)(spec.located(str(error))) from error


def _prepare(
    spec: ExperimentSpec, settings: Settings, inputs: Arrays, targets: Arrays | None, weights: Path | None
) -> Prepared:
    if settings.method not in INTEGRATORS:
        raise CircuitError(f"method: no method '{settings.method}'; allowed: {', '.join(INTEGRATORS)}")
    if settings.every < 1:
        raise CircuitError(f"every: {settings.every} steps; at least 1 step")
    sizes = {name: spec.circuit.populations[name].size for name in spec.circuit.inputs}
    values = input_signal(inputs, sizes, settings.input_dt_ms)
    held = settings.input_dt_ms
    if settings.duration_ms is None:
        settings = replace(settings, duration_ms=DURATION if held is None else len(values) * held)
    times = {"duration": settings.length_ms}
    if held is not None:
        times["input_dt"] = held
    check_times(spec.circuit.projections, settings.dt_ms, times)
    method = INTEGRATORS[settings.method]
    steps = steps_of(settings.length_ms, settings.dt_ms) or 0
    hold = steps_of(held, settings.dt_ms) if held is not None else 1
    assert hold is not None, "the times were checked"
    if held is not None and len(values) * hold < steps:
        raise CircuitError(
            f"duration: {settings.duration_ms:g} ms, but the input has {len(values)} times of {held:g} ms, "
            f"{len(values) * held:g} ms in all; a shorter duration, or a longer input"
        )
    assembled = assemble(spec)
    compiled = assembled.compiled
    _check_step(assembled, settings, method, targets is not None)
    signal = Signal(values, hold, silent_before=begins(settings.initial, SILENCE))
    target = None if targets is None else read_targets(targets, assembled, values.shape[1])
    delays = {
        name: steps_of(p.delay_ms, settings.dt_ms) or 0 for name, p in assembled.circuit.projections.items()
    }
    system = TimedCircuit(compiled, delays, signal)
    way = pathway(spec, system) if target is not None else None
    words = "initial"
    if weights is not None:
        words = load_weights(assembled, way or assembled.task.pathway, weights, None)
        assembled = replace(assembled, circuit=_with_weights(assembled.circuit, compiled))
    traces = plan_traces(
        settings.record or [f"{name}:soma" for name in compiled.units], assembled.circuit, target is not None
    )
    x = tensor(signal.at(0).T, compiled)
    first = _free(assembled, x, "initial") if begins(settings.initial, FREE) else None
    phi = _potentials(settings.initial, first, compiled, x.shape[1])
    drive = compiled.drive(x)
    equations: Equations = FreeEquations(system, drive)
    if way is not None and target is not None:
        batch = Controlled(system, drive, target, assembled.task.loss, assembled.task.controller, phi)
        if way.needs_free:
            if not signal.constant:
                raise CircuitError(
                    f"control.pathway: {way.name} nudges the free output of a constant input, and this one changes; "
                    "allowed: dynamic_inversion, linear_feedback"
                )
            free = first or _free(assembled, x, "control")
            batch = way.aimed(batch, free.fields.phi)
        equations = way.equations(batch)
    noise = currents(compiled, x.shape[1], settings.dt_ms, spec.seed)
    simulator = Simulator(system, equations, drive, phi, method, settings.dt_ms, noise)
    return Prepared(assembled, settings, simulator, traces, signal, target, way, words, steps)


def begins(initial: Arrays, word: str) -> bool:
    """Whether a simulation begins at `silence` or `free`, as the word says."""
    return isinstance(initial, str) and initial == word


def _check_step(assembled: Assembled, settings: Settings, method: type[Integrator], controlled: bool) -> None:
    """Refuse a step longer than a time constant where the method cannot take it."""
    if not method.explicit:
        return
    spec, system = assembled.spec, assembled.system
    paces = system.tau if system.junctions is None else system.tau / (1 + 2 * system.junctions.loads())
    taus = {f"'{name}'": float(paces[rows].min()) for name, rows in assembled.compiled.units.items()}
    if controlled and spec.control.controller.tau_ms:
        taus["the controller"] = spec.control.controller.tau_ms / max(
            1.0, spec.control.controller.leak or 0.0
        )
    name = min(taus, key=lambda key: taus[key])
    if settings.dt_ms > taus[name]:
        gaps = "" if system.junctions is None else ", gap junctions included"
        raise CircuitError(
            f"dt: {settings.dt_ms:g} ms is longer than the time constant of {name}, {taus[name]:.4g} ms{gaps}, which "
            f"{method.name} does not stand; allowed: at most {taus[name]:.4g} ms, or method exponential_euler"
        )


def _free(assembled: Assembled, x: Tensor, where: str) -> Solution:
    """The free equilibrium of the first input."""
    found = assembled.task.free(assembled.task.system.drive(x))
    if not bool(found.converged.all()):
        raise NotConvergedError(
            f"{where}: the free equilibrium of {int((~found.converged).sum())} sample(s) was not found; begin at "
            "silence, or raise solve.max_iterations"
        )
    return found


def _potentials(initial: Arrays, free: Solution | None, compiled: CompiledCircuit, samples: int) -> Tensor:
    if free is not None:
        return free.fields.phi
    if begins(initial, SILENCE):
        return compiled.tau.new_zeros(compiled.size, samples)
    return initial_potentials(initial, compiled, samples)


def _with_weights(circuit: Circuit, compiled: CompiledCircuit) -> Circuit:
    """The graph with the weights and biases of the kernels, which are another run's."""
    projections = {}
    for name, projection in circuit.projections.items():
        kernel, edges = compiled.links[name].kernel, projection.edges
        edges = replace(edges, weight=kernel.edge_values.cpu().numpy().astype(float))
        if edges.parameters is not None:
            edges = replace(edges, parameters=kernel.values.detach().cpu().numpy().astype(float))
        projections[name] = replace(projection, edges=edges)
    biases = {name: value.detach().cpu().numpy().astype(float) for name, value in compiled.biases.items()}
    populations = {
        name: replace(p, bias=biases[name]) if name in biases else p
        for name, p in circuit.populations.items()
    }
    return replace(circuit, projections=projections, populations=populations)
