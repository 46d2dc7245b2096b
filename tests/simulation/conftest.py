"""Small circuits simulated straight from their graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled, Pathway
from circuitlab.control.output import OutputController
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.integrators import INTEGRATORS
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.graph.circuit import Circuit
from circuitlab.simulation.grid import steps_of
from circuitlab.simulation.noise import Source, currents
from circuitlab.simulation.signal import Signal
from circuitlab.simulation.simulator import Simulator
from circuitlab.simulation.timed import TimedCircuit


def delayed(circuit: Circuit, **delays: float) -> Circuit:
    """The circuit with delays in ms on some projections."""
    projections = {n: replace(p, delay_ms=delays.get(n, 0.0)) for n, p in circuit.projections.items()}
    return replace(circuit, projections=projections)


def tuned(circuit: Circuit, **taus: float) -> Circuit:
    """The circuit with other time constants, in ms."""
    populations = {n: replace(p, tau_ms=taus.get(n, p.tau_ms)) for n, p in circuit.populations.items()}
    return replace(circuit, populations=populations)


def simulator(
    circuit: Circuit,
    x: np.ndarray,
    dt: float,
    method: str = "rk4",
    *,
    hold: int = 1,
    phi: np.ndarray | None = None,
    silent_before: bool = True,
    way: Callable[[TimedCircuit], Pathway] | None = None,
    controller: OutputController | None = None,
    target: np.ndarray | None = None,
    loss: str = "squared_error",
    noise: Sequence[Source] | int = (),
) -> Simulator:
    """A simulator in float64.

    Args:
        x: [time, sample, input unit]. phi: [unit, sample], zero where None. noise: sources, or a seed.
    """
    compiled = CompiledCircuit(circuit, torch.float64)
    delays = {name: steps_of(p.delay_ms, dt) for name, p in circuit.projections.items()}
    assert None not in delays.values()
    system = TimedCircuit(compiled, delays, Signal(x, hold, silent_before))  # type: ignore[arg-type]
    samples = x.shape[1]
    drive = torch.zeros(compiled.size, samples, dtype=torch.float64)
    first = torch.zeros_like(drive) if phi is None else torch.as_tensor(phi)
    equations: Equations = FreeEquations(system, drive)
    if way is not None:
        assert controller is not None
        assert target is not None
        losses = OutputLoss([(LOSSES[loss], slice(0, compiled.output_size))])
        batch = Controlled(system, drive, torch.as_tensor(target), losses, controller, first)
        equations = way(system).equations(batch)
    sources = currents(compiled, samples, dt, noise) if isinstance(noise, int) else noise
    return Simulator(system, equations, drive, first, INTEGRATORS[method], dt, sources)


def trace(made: Simulator, steps: int, every: int = 1) -> np.ndarray:
    """Potentials [frame, sample, unit] at every so many steps."""
    found = []
    for number in made.run(steps):
        if number % every == 0:
            found.append(made.fields.phi.t().numpy().copy())
    return np.stack(found)
