"""The way to an equilibrium, for probes `along` it: the solver's iterations, or real time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Equations, Fields, FreeEquations
from circuitlab.dynamics.integrators import RungeKutta
from circuitlab.errors import CircuitError
from circuitlab.experiment.activity import Activity
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.record.probes import Probe
from circuitlab.simulation.grid import nearest, steps_of
from circuitlab.simulation.signal import Signal
from circuitlab.simulation.simulator import Simulator
from circuitlab.simulation.timed import TimedCircuit
from circuitlab.solve.base import Solution
from circuitlab.solve.watch import Watch

SHARE = 0.1
"""Of the shortest time constant, the longest time step that is taken unless one is asked for."""


class Scene:
    """Some samples with their equilibria, each found when it is first asked for.

    Args:
        task: how they are found.
        batch: the samples.
    """

    def __init__(self, task: Task, batch: Batch) -> None:
        assert isinstance(task.system, CircuitSystem)
        self.task, self.batch, self.system = task, batch, task.system
        self.controlled: Solution | None = None

    @cached_property
    def drive(self) -> Tensor:
        """U x + b, [unit, sample]."""
        return self.system.drive(self.batch.x)

    @cached_property
    def free(self) -> Solution:
        """The free equilibrium."""
        return self.task.free(self.drive)

    def solution(self, phase: str) -> Solution:
        """The equilibrium of a phase, `free` or `controlled`."""
        if phase == "free":
            return self.free
        if self.controlled is None:
            self.controlled = self._controlled(self.task)
        return self.controlled

    def activity(self, phase: str) -> Activity:
        """Its variables."""
        return Activity(self.system, self.solution(phase).fields, self.batch.x, self.drive)

    def _controlled(self, task: Task) -> Solution:
        return task.controlled(self.drive, self.batch.target, self.free, self.batch.x)

    def settling(self, probes: list[Probe]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """What probes of one phase and spacing record of the solver's iterations, [point, sample, unit] each ([point,
        sample] for residuals), and what stands beside: `residual` [point, sample], as the solver judged each state, and
        `iterations` [sample].

        Where a sample has stopped, it stays at its equilibrium.
        """
        points, samples = probes[0].points, self.batch.x.shape[1]
        assert points is not None
        every = int(points[1] - points[0]) if len(points) > 1 else int(points[-1]) + 1
        dtype = self.system.compiled.tau.cpu().numpy().dtype
        residual = np.full((len(points), samples), np.nan, dtype)
        states = {
            probe.name: np.full((len(points), samples, len(probe.unit_ids)), np.nan, dtype)
            for probe in probes
            if probe.variable != "residual"
        }

        def take(iterations: int, columns: Tensor, fields: Fields, wrong: Tensor) -> None:
            point, numbers = iterations // every, columns.cpu().numpy()
            residual[point, numbers] = wrong.cpu().numpy()
            if states:
                seen = Activity(self.system, fields, self.batch.x[:, columns], self.drive[:, columns])
                for probe in probes:
                    if probe.name in states:
                        states[probe.name][point, numbers] = values_of(probe, seen)

        phase = probes[0].spec.phase
        watch = Watch(every, int(points[-1]), take)
        task = replace(self.task, settings=replace(self.task.settings, watch=watch))
        if phase == "free":
            solution = task.free(self.drive)
        else:
            solution = self.controlled = self._controlled(task)
        iterations = solution.iterations.cpu().numpy()
        rests = points[:, None] >= iterations
        residual = np.where(rests, solution.residual.cpu().numpy(), residual)
        final = Activity(self.system, solution.fields, self.batch.x, self.drive)
        for probe in probes:
            if probe.name in states:
                kept = states[probe.name]
                states[probe.name] = np.where(rests[:, :, None], values_of(probe, final), kept)
        beside = {"residual": residual, "iterations": iterations}
        return [(states.get(probe.name, residual), beside) for probe in probes]

    def passing(self, probes: list[Probe]) -> list[np.ndarray]:
        """What probes of one phase and one grid of times record as time passes, [point, sample, unit] each.

        The controlled phase begins at the free equilibrium, with the controller at zero; the free phase at silence.
        Delays of projections act, noise of populations does not.
        """
        one = probes[0]
        assert one.points is not None
        steps = steps_of(one.points[1] - one.points[0], one.dt_ms)
        assert steps is not None, "the time step was chosen to fit"
        found = [np.empty((len(one.points), self.batch.x.shape[1], len(p.unit_ids))) for p in probes]
        for point, activity in enumerate(self._moments(one.spec.phase, one.dt_ms, steps, len(one.points))):
            for probe, array in zip(probes, found, strict=True):
                array[point] = values_of(probe, activity)
        dtype = self.system.compiled.tau.cpu().numpy().dtype
        return [array.astype(dtype) for array in found]

    def _moments(self, phase: str, dt_ms: float, steps: int, points: int) -> Iterator[Activity]:
        task, compiled, x = self.task, self.system.compiled, self.batch.x
        silent = phase == "free"
        signal = Signal(x.t().cpu().numpy()[None], silent_before=silent)
        delays = delays_of(compiled.circuit, dt_ms)
        system = TimedCircuit(compiled, delays, signal)
        phi = torch.zeros_like(self.drive) if silent else self.free.fields.phi
        drive = self.drive.clone()
        equations: Equations = FreeEquations(system, drive)
        if not silent:
            held = Controlled(system, drive, self.batch.target, task.loss, task.controller, phi, x)
            equations = task.pathway.equations(task.pathway.aimed(held, phi))
        simulator = Simulator(system, equations, drive, phi, RungeKutta, dt_ms)
        for point in range(points):
            for _ in range(steps if point else 0):
                simulator.advance()
            yield Activity(system, simulator.fields, x, None if delays else drive)


def values_of(probe: Probe, activity: Activity) -> np.ndarray:
    """What a probe records of a state, [sample, unit]."""
    assert probe.population is not None
    found = activity.values(probe.population, probe.variable, probe.place)
    assert found is not None, "probes are checked when they are planned"
    return found


def delays_of(circuit: Circuit, dt_ms: float) -> dict[str, int]:
    """Delays of projections in steps, those without left out."""
    found = {name: steps_of(p.delay_ms, dt_ms) or 0 for name, p in circuit.projections.items()}
    return {name: steps for name, steps in found.items() if steps}


def with_time_steps(probes: list[Probe], task: Task) -> list[Probe]:
    """The probes, with a time step for those along real time that fits their grid and every delay.

    Raises:
        CircuitError: the step that one asks for does not fit; one line each.
    """
    found, problems = [], []
    for probe in probes:
        along = probe.spec.along
        if along is None or along.real_time_ms is None:
            found.append(probe)
            continue
        try:
            found.append(replace(probe, dt_ms=_time_step(probe, task)))
        except ValueError as error:
            problems.append(f"record.{probe.name}.along: {error}")
    if problems:
        raise CircuitError("\n".join(problems))
    return found


def _time_step(probe: Probe, task: Task) -> float:
    along, system = probe.spec.along, task.system
    assert along is not None and probe.points is not None and isinstance(system, CircuitSystem)
    paces = system.tau if system.junctions is None else system.tau / (1 + 2 * system.junctions.loads())
    shortest = float(paces.min())
    if probe.spec.phase == "controlled" and task.controller.tau_ms:
        shortest = min(shortest, task.controller.tau_ms / max(1.0, task.controller.leak))
    apart = float(probe.points[1] - probe.points[0])
    delays = {n: p.delay_ms for n, p in system.compiled.circuit.projections.items() if p.delay_ms}
    times = {"the time between two recorded moments": apart}
    times |= {f"the delay of '{name}'": ms for name, ms in delays.items()}
    wanted = along.dt_ms
    if wanted is None:
        goal = min(SHARE * shortest, apart)
        wanted = nearest(times.values(), goal)
        while wanted > 1.5 * goal:
            goal /= 2
            wanted = nearest(times.values(), goal)
    if wanted > shortest:
        raise ValueError(
            f"a time step of {wanted:g} ms is longer than the shortest time constant, {shortest:.4g} ms; at most that"
        )
    for words, ms in times.items():
        if steps_of(ms, wanted) is None:
            raise ValueError(f"{words}, {ms:g} ms, is no multiple of the time step, {wanted:g} ms")
    return wanted
