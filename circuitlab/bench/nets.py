"""Circuits as they are at moments of their training, and how training went up to there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from circuitlab.errors import CircuitError
from circuitlab.experiment.training import Prepared, prepare
from circuitlab.learn.base import Batch, Outcome
from circuitlab.learn.evaluate import PORTION, Split, evaluate
from circuitlab.learn.train import Observer, Trainer
from circuitlab.spec.experiment import ExperimentSpec, load_experiment

Weights = dict[str, Tensor]
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def shipped(name: str) -> Path:
    """An experiment of the repository.

    Raises:
        CircuitError: this installation came without the repository's experiments.
    """
    path = EXPERIMENTS / name
    if not path.is_file():
        raise CircuitError(f"{path}: no such file; give the experiment with --experiment FILE")
    return path


def weights_of(trainer: Trainer) -> Weights:
    """A copy of all parameters by name."""
    return {name: value.detach().clone() for name, value in trainer.compiled.parameters_by_name().items()}


@torch.no_grad()
def put(weights: Weights, into: Mapping[str, Tensor]) -> None:
    """Copy parameters into another circuit of the same graph, whatever its precision."""
    for name, value in into.items():
        value.copy_(weights[name])


@dataclass
class Watch(Observer):
    """Keeps the weights at some moments, and counts time, samples and unconverged samples; evaluation is not timed.

    Args:
        moments: numbers of updates after which weights are kept.
        every: updates between two looks at the test samples, or None for none within an epoch.
        test: the samples looked at.
        until: accuracy after which looks within an epoch end.

    Attributes:
        weights: by number of updates.
        seconds: spent learning.
        curve: (updates, seconds spent learning, test accuracy) of every look.
    """

    moments: Sequence[int] = ()
    every: int | None = None
    test: Split | None = None
    until: float = 1.0
    weights: dict[int, Weights] = field(default_factory=dict)
    seconds: float = 0.0
    samples: int = 0
    unconverged: int = 0
    products: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)

    def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        self.seconds += time.perf_counter() - self._since
        self.samples += len(outcome.used)
        self.unconverged += int((~outcome.used).sum())
        self.products += float(outcome.free.products.sum() + outcome.credit.products.sum())
        if trainer.at.step in self.moments:
            self.weights[trainer.at.step] = weights_of(trainer)
        reached = bool(self.curve) and self.curve[-1][2] >= self.until
        if self.every and trainer.at.step % self.every == 0 and not reached:
            self.look(trainer)
        self._since = time.perf_counter()

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if not self.curve or self.curve[-1][0] != trainer.at.step:
            self.look(trainer)
        self._since = time.perf_counter()

    def look(self, trainer: Trainer) -> None:
        """Test accuracy now."""
        if self.test is not None:
            accuracy = evaluate(trainer.task, self.test).accuracy
            assert accuracy is not None
            self.curve.append((trainer.at.step, self.seconds, accuracy))


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Args:
        prepared: the experiment, its circuit at the end.
        watch: who watched.
        weights: parameters at every moment asked for, by number of updates (0 before the first).
        accuracy: at the end, on the test samples.
    """

    prepared: Prepared
    watch: Watch
    weights: dict[int, Weights]
    accuracy: float

    @property
    def last(self) -> int:
        """Number of updates made."""
        return max(self.weights)


def experiment(path: Path, options: Sequence[str], threads: int) -> ExperimentSpec:
    """An experiment with changes, on the threads of the benchmark."""
    return load_experiment(path, [*options, f"threads={threads}"])


def learn(
    spec: ExperimentSpec,
    *,
    epochs: int,
    steps: int | None = None,
    moments: Sequence[int] = (),
    every: int | None = None,
    until: float = 1.0,
) -> Trained:
    """Train as the experiment says, for its first `epochs`, without a run file.

    Args:
        epochs: of the experiment's own schedule, whose learning rates they keep.
        steps: at most so many updates an epoch, or None for all.
        moments: numbers of updates after which weights are kept, beside the first and the last.
        every: updates between two looks at the test samples within an epoch, or None.
        until: accuracy after which these looks end.

    Raises:
        CircuitError: there are no test samples with classes.
    """
    prepared = prepare(spec)
    trainer, test = prepared.trainer, prepared.splits.get("test")
    if test is None or not test.classes:
        raise CircuitError("data: this benchmark needs test samples with class labels, and there are none")
    order = trainer.schedule.order

    def portion(number: int) -> list[np.ndarray]:
        return order(number)[:steps]

    trainer.schedule = replace(trainer.schedule, epochs=epochs, stopping=None, order=portion)
    watch = Watch(moments, every, test, until)
    trainer.observers = (watch,)
    few = prepared.splits["train"]
    few = replace(few, x=few.x[:PORTION], target=few.target[:PORTION])
    # the trainer's own evaluation goes through all training samples; here some of them are enough
    vars(trainer)["evaluate"] = lambda: {"train_loss": evaluate(trainer.task, few).loss}
    first = weights_of(trainer)
    trainer.run()
    weights = {0: first, **watch.weights, trainer.at.step: weights_of(trainer)}
    return Trained(prepared, watch, weights, watch.curve[-1][2])
