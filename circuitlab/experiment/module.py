"""Torch modules in place of a circuit file: a system, its samples, and a trainer, in a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from circuitlab.control import output
from circuitlab.control.base import Pathway
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import OutputController
from circuitlab.data.datasets import batches
from circuitlab.dynamics.function_loss import LossFunction, checked_function
from circuitlab.dynamics.loss import LOSSES, Loss, OutputLoss
from circuitlab.dynamics.module import ModuleSystem
from circuitlab.errors import CircuitError, DataError, suggestion
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task
from circuitlab.learn.evaluate import Split
from circuitlab.learn.optimizer import make_optimizer, make_scheduler
from circuitlab.learn.rules import rule_of
from circuitlab.learn.train import Observer, Schedule, Trainer
from circuitlab.solve.choose import SolveSettings

MODULE_RULES = ("least_control", "recurrent_backprop")
"""Rules that ask for nothing that only a circuit has."""
TAU_MS = 100.0
"""Time constant of the output controller, in ms."""


def samples(system: ModuleSystem, x: Any, target: Any, soft_targets: float = 0.0) -> Split:
    """Samples in the system's precision and on its device.

    Args:
        x: [sample, *input_shape], or flat.
        target: class labels [sample], whole numbers, or targets [sample, output unit].
        soft_targets: share of each one-hot target that is spread over all classes.

    Raises:
        DataError: they do not fit the system.
    """
    x, target = torch.as_tensor(x), torch.as_tensor(target)
    model, size = system.model, system.output_size
    if x.ndim < 2 or x[0].numel() != system.input_size:
        raise DataError(f"x: has the shape {tuple(x.shape)}; allowed: [sample, *{system.input_shape}]")
    classes: tuple[slice, ...] = ()
    if target.ndim == 1 and not target.is_floating_point():
        if not 0 <= int(target.min()) <= int(target.max()) < size:
            raise DataError(
                f"target: labels from {int(target.min())} to {int(target.max())}, but there are {size} output units"
            )
        soft = torch.full((len(target), size), soft_targets / max(size - 1, 1), dtype=torch.float64)
        target = soft.scatter(1, target.long().unsqueeze(1), 1 - soft_targets)
        classes = (slice(0, size),)
    elif soft_targets:
        raise DataError("soft_targets: they spread one-hot classes, and these targets are no labels")
    if target.shape != (len(x), size):
        raise DataError(f"target: has the shape {tuple(target.shape)}; allowed: {(len(x), size)}, or labels")
    kind = {"dtype": model.dtype, "device": model.device}
    return Split(x.flatten(1).to(**kind), target.to(**kind), classes)


def task(
    system: ModuleSystem,
    *,
    loss: str | Loss | LossFunction = "cross_entropy",
    control: float | OutputController = 1.0,
    pathway: Pathway | None = None,
    solve: SolveSettings | None = None,
    on_unconverged: str = "skip",
) -> Task:
    """How a module's equilibria are found.

    Args:
        loss: `cross_entropy`, `squared_error`, a `Loss`, or a function of one sample (y [unit], target [unit]).
        control: the leak alpha of a leaky integral controller, or a controller.
        pathway: dynamic inversion with tied feedback where None.
        on_unconverged: `skip`, `keep` or `raise`.

    Raises:
        CircuitError: something does not go together.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            allowed = ", ".join(LOSSES)
            raise CircuitError(
                f"loss: no '{loss}'; allowed: {allowed}, a function.{suggestion(loss, LOSSES)}"
            )
        loss = LOSSES[loss]
    elif not isinstance(loss, Loss):
        loss = checked_function(loss, system.output_size, system.tau)
    if not isinstance(control, OutputController):
        control = output.leaky_integral(float(control), TAU_MS)
    if isinstance(pathway, DynamicInversion) and type(pathway.feedback) is not Feedback:
        raise CircuitError(
            "pathway: a torch module has no synapses to lay feedback along; allowed: tied feedback"
        )
    return Task(
        system,
        OutputLoss([(loss, slice(0, system.output_size))]),
        pathway or DynamicInversion(Feedback()),
        control,
        solve or SolveSettings(),
        on_unconverged=on_unconverged,
    )


def trainer(
    task: Task,
    splits: Mapping[str, Split] | Split,
    *,
    rule: str | LearningRule = "least_control",
    optimizer: str = "adam",
    lr: float = 1e-3,
    options: Mapping[str, Any] | None = None,
    scheduler: str = "constant",
    clip: float | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    observers: Sequence[Observer] = (),
) -> Trainer:
    """The training loop of a module; `run()` it.

    Args:
        task: of a ModuleSystem.
        splits: `train`, and where there are any `validation` and `test`; or the training samples alone.
        rule: `least_control`, `recurrent_backprop`, or a rule.
        optimizer, lr, options: any optimizer of torch.
        scheduler: any of torch that needs no options, such as `cosine`.
        clip: largest norm of all updates together.
        seed: of the order of samples.

    Raises:
        CircuitError: something does not go together.
    """
    system = task.system
    if not isinstance(system, ModuleSystem):
        raise CircuitError(
            "trainer: this one is of torch modules; circuits are trained from experiment files"
        )
    if isinstance(rule, str) and rule not in MODULE_RULES:
        raise CircuitError(f"rule: '{rule}' cannot learn torch modules; allowed: {', '.join(MODULE_RULES)}")
    splits = {"train": splits} if isinstance(splits, Split) else dict(splits)
    if "train" not in splits:
        raise DataError(f"splits: 'train' is missing; there are {', '.join(splits) or 'none'}")
    chosen = make_optimizer(system.model.plastic().values(), optimizer, {"lr": lr, **(options or {})})
    steps = -(-len(splits["train"]) // batch_size)

    def order(epoch: int) -> list[np.ndarray]:
        return list(batches(len(splits["train"]), batch_size, seed, epoch))

    follower = (Statistics(system),) if system.follows else ()
    return Trainer(
        system.model,
        task,
        rule_of(rule) if isinstance(rule, str) else rule,
        splits,
        Schedule(epochs, order, clip),
        chosen,
        make_scheduler(chosen, scheduler, {}, "epoch", steps * epochs, epochs),
        observers=(*follower, *observers),
    )


class Statistics(Observer):
    """Brings the running statistics of batch normalisation up to date after each update, at the free equilibria."""

    def __init__(self, system: ModuleSystem) -> None:
        self.system = system

    def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        if bool(outcome.free.converged.any()):
            settled = outcome.free.converged
            self.system.follow(outcome.free.fields.phi[:, settled], batch.x[:, settled])


class History(Observer):
    """Keeps the metrics of every epoch, and prints them.

    Args:
        echo: whether it prints.
    """

    def __init__(self, echo: bool = False) -> None:
        self.epochs: list[dict[str, float]] = []
        self.echo = echo

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.epochs.append(metrics)
        if self.echo:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            print(f"epoch {trainer.at.epoch}: {shown}", flush=True)
