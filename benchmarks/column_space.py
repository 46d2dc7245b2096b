"""How near direct feedback weights come to the column-space condition while they learn.

    python benchmarks/column_space.py EXPERIMENT.yaml [--set KEY=VALUE ...] [--samples 100]

The share |P Q| / |Q| of Q in the row space of J = D (1 - W sigma')^-1, before learning and after every epoch, as mean
and standard deviation over test samples at their free equilibria (eq. 120, 124; DFC Condition 2); 1 is perfect. For one
sample learning brings it near 1 (Proposition S10, DFC Theorem 6); one Q cannot suit the Jacobians of all samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.experiment.training import prepare
from circuitlab.learn.train import Observer, Trainer
from circuitlab.spec.experiment import load_experiment
from circuitlab.theory.conditions import column_space_share
from circuitlab.theory.jacobian import output_jacobian


class Shares(Observer):
    """Measures and prints the shares after every epoch."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        task = trainer.task
        assert isinstance(task.system, CircuitSystem) and isinstance(task.pathway, LinearFeedback)
        split = trainer.splits.get("test", trainer.splits["train"])
        batch = split.batch(np.arange(min(self.samples, len(split))))
        drive = task.system.drive(batch.x)
        jacobian = output_jacobian(task.system, task.free(drive).fields.phi, drive)
        shares = column_space_share(jacobian, task.pathway.q).cpu().numpy()
        accuracy = metrics.get("test_accuracy", float("nan"))
        print(
            f"epoch {trainer.at.epoch}: share {np.mean(shares):.3f} +- {np.std(shares):.3f}, |Q|"
            f" {float(task.pathway.q.norm()):.3g}, test accuracy {accuracy:.4f}",
            flush=True,
        )


def main() -> None:
    """Train the experiment and print the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--samples", type=int, default=100)
    given = parser.parse_args()
    trainer = prepare(load_experiment(given.experiment, given.changes)).trainer
    trainer.observers = (Shares(given.samples),)
    with torch.no_grad():
        trainer.run()


if __name__ == "__main__":
    main()
