"""LCP figure S1: the gradient error against the equilibrium error."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch

from circuitlab.errors import CircuitError
from circuitlab.experiment.training import prepare
from circuitlab.spec.circuit import load_circuit
from circuitlab.theory.references import flat, optimal_control
from figures.drawing import COLOURS, ROOT, SOFT, experiment, panels, show

DEEP = """
circuit: three_hidden_layers
populations:
  retina: {type: input, size: 784}
  first: {type: unit, size: 300, activation: tanh}
  second: {type: unit, size: 300, activation: tanh}
  third: {type: unit, size: 300, activation: tanh}
  readout: {type: output, size: 10}
projections:
  retina_first: {source: retina, target: first}
  first_second: {source: first, target: second}
  second_third: {source: second, target: third}
  third_readout: {source: third, target: readout}
"""


def gradient_errors(
    samples: int, draws: int, steps: int, seed: int, circuit_text: str = DEEP
) -> dict[str, Any]:
    """Errors of equilibrium and of gradient, as shares of the exact ones: along energy-based dynamics without a leak
    [LCP eq. 15] (panel A), and for states perturbed at random (panel B)."""
    circuit = load_circuit(ROOT / "topologies" / "figure_s1.yaml", text=circuit_text)
    limit = f"data.limit={samples}"
    prepared = prepare(
        experiment("mnist_feedforward", SOFT, limit, "dtype=float64", f"seed={seed}", circuit=circuit)
    )
    task, system = prepared.trainer.task, prepared.assembled.system
    batch = prepared.splits["train"].batch(np.arange(samples))
    drive = system.drive(batch.x)
    free = task.free(drive)
    task = dataclasses.replace(
        task, settings=dataclasses.replace(task.settings, tolerance=1e-9, max_iterations=5000)
    )
    best = optimal_control(task, batch, free, 0.0)
    if not bool(best.converged.all()):
        missing = int((~best.converged).sum())
        raise CircuitError(
            f"{missing} of {samples} samples have no equilibrium without a leak; try another --seed"
        )
    exact = best.fields.phi

    def update(phi: torch.Tensor) -> torch.Tensor:
        return flat(system.update(phi, phi - system.linearise(phi, drive).prediction, batch.x)) / samples

    goal = update(exact)

    def errors(phi: torch.Tensor) -> tuple[float, float]:
        wrong = torch.linalg.vector_norm(update(phi) - goal) / torch.linalg.vector_norm(goal)
        away = torch.linalg.vector_norm(phi - exact) / torch.linalg.vector_norm(exact)
        return float(away), float(wrong)

    flow, phi, u = [], free.fields.phi.clone(), torch.zeros_like(batch.target)
    for step in range(steps):
        point = system.linearise(phi, drive)
        psi = phi - point.prediction
        change = point.transported(psi) - psi
        change[system.output] += u
        u = u - task.loss.gradient(phi[system.output], batch.target) / 50
        phi = phi + change / 50
        if step % max(1, steps // 200) == 0:
            flow.append(errors(phi))
    rng = np.random.default_rng(seed)
    noisy = []
    for _ in range(draws):
        noise = rng.uniform() * 0.5 * rng.standard_normal(tuple(exact.shape))
        noisy.append(errors(exact + torch.as_tensor(noise)))
    return {"dynamics": flow, "noise": noisy}


def figure_s1(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure S1."""
    found = gradient_errors(given.samples, given.draws, given.steps, given.seed)
    rows = []
    for name, points in found.items():
        away, wrong = np.array(points).T
        near = away < 0.3
        slope = np.polyfit(np.log(away[near]), np.log(wrong[near]), 1)[0] if near.sum() > 2 else np.nan
        rows.append(
            [
                name,
                len(points),
                float(slope),
                float(np.corrcoef(away, wrong)[0, 1]),
                float((wrong / away).max()),
            ]
        )
    show(["approximation", "points", "slope on log axes below 0.3", "correlation", "largest ratio M"], rows)
    figure, axes = panels(2)
    for axis, (name, points), colour in zip(axes, found.items(), COLOURS, strict=False):
        away, wrong = np.array(points).T
        axis.plot(away, wrong, ".", color=colour, markersize=5)
        axis.set(xlabel="equilibrium error", ylabel="gradient error", title=name)
    return {**found, "rows": rows, "figure": figure}
