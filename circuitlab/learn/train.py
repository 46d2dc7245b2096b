"""The training loop: minibatches, updates through any optimizer, what must hold after each, and who watches.

Everything the next step depends on is in `Trainer.state()`, so that a run resumed from it gives the same numbers, bit
for bit on one machine. Recording is handed in as observers; nothing here knows of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task
from circuitlab.learn.combinations import refuse
from circuitlab.learn.constrain import Bounds, SpectralBound
from circuitlab.learn.evaluate import Evaluation, Split, control_cost, count_right, evaluate
from circuitlab.learn.feedback.base import FeedbackLearning, joined, parted
from circuitlab.learn.learnable import Learnable
from circuitlab.learn.mismatch import mean_mismatch
from circuitlab.learn.parallel import ALONE, Group, SharedMinibatch, whole
from circuitlab.learn.penalty import JacobianPenalty
from circuitlab.learn.progress import Progress, Sums, array_of, plain, tensors
from circuitlab.learn.schedule import AlphaSchedule, EnergyCheck
from circuitlab.learn.starts import Starts

Order = Callable[[int], list[np.ndarray]]
FEEDBACK_ORDER = 2**31
"""First number of the orders of samples in phases of the feedback weights; epochs have those from 1 on."""
VERIFY_EVERY = 100
"""Steps between two checks that all processes hold the same parameters; they are checked at every epoch as well."""


class Stopped(KeyboardInterrupt):
    """Training was asked to stop and did so between two steps, where it can be resumed."""


class Observer:
    """Somebody who watches training; every method may be left as it is. Of many processes only the first has any."""

    def wants_activity(self, trainer: Trainer) -> bool:
        """Asked before each update: whether `found` needs the equilibria themselves, not only each sample's numbers."""
        return False

    def found(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        """Before each update is made, with the weights that it was found with; arguments are of the whole minibatch."""

    def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        """After each update; all arguments are of the whole minibatch."""

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After each epoch and its evaluation; epoch 0 is before the first update."""

    def checkpoint(self, trainer: Trainer) -> None:
        """When a run may go on from `trainer.state()`: after each step but an epoch's last, and after each epoch."""


@dataclass(frozen=True)
class EarlyStopping:
    """Stops when a metric has not improved by `minimum_change` for `patience` epochs."""

    metric: str
    patience: int
    minimum_change: float = 0.0

    @property
    def rising(self) -> bool:
        """Whether more is better."""
        return self.metric.endswith("accuracy")


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to learn.

    Args:
        epochs: passes over the training set.
        order: gives the batches of an epoch (counted from 1) as arrays of sample indices.
        clip: largest norm of all updates together, or None.
        stopping: early stopping, or None.
        alpha: the leak of each update; the task's own where None.
        check: when some samples are also solved by descent of the energy; never where None.
    """

    epochs: int
    order: Order
    clip: float | None = None
    stopping: EarlyStopping | None = None
    alpha: AlphaSchedule | None = None
    check: EnergyCheck | None = None


class Trainer:
    """Learns a circuit by a rule.

    Args:
        compiled: the circuit or torch model, whose plastic parameters learn.
        task, rule: how equilibria are found, and what is learned from them.
        splits: `train`, and where there are any `validation` and `test`.
        schedule: how long to learn.
        optimizer: over `compiled.plastic()`.
        scheduler: and whether it moves per `step` or `epoch`; None for a constant rate.
        bound: of the recurrent weights, or None.
        penalty: added to the rule's updates, or None.
        observers: told of every step and epoch.
        starts: where the equilibria of training samples begin; None for the equations' own starts.
        group: the processes that share the work; each draws the same minibatches and takes its part of them.
        feedback: how the pathway's own weights learn.
        testing: how equilibria are found in evaluations, where that differs from `task`.

    Raises:
        CircuitError: a rule makes no sense under the task's pathway.
    """

    def __init__(
        self,
        compiled: Learnable,
        task: Task,
        rule: LearningRule,
        splits: dict[str, Split],
        schedule: Schedule,
        optimizer: torch.optim.Optimizer,
        scheduler: tuple[torch.optim.lr_scheduler.LRScheduler | None, str] = (None, "epoch"),
        bound: SpectralBound | Bounds | None = None,
        observers: Sequence[Observer] = (),
        penalty: JacobianPenalty | None = None,
        starts: Starts | None = None,
        group: Group = ALONE,
        feedback: Sequence[FeedbackLearning] = (),
        testing: Task | None = None,
    ) -> None:
        refuse(rule, task.pathway, (learning.rule for learning in feedback))
        self.compiled, self.task, self.rule, self.splits = compiled, task, rule, splits
        self.schedule, self.optimizer, self.bound, self.penalty = schedule, optimizer, bound, penalty
        self.scheduler, self.per = scheduler
        self.observers, self.starts, self.group = tuple(observers), starts, group
        self.feedback, self._testing = tuple(feedback), testing
        self.at = Progress()
        self.stop_requested = False
        self.steps_per_epoch = 0
        self._moved = False

    def run(self) -> None:
        """Learn until the schedule ends, from wherever the trainer's state is.

        Raises:
            Stopped: `stop_requested` was set; `state()` is whole.
        """
        if not self.at.begun:
            self.at.begun = True
            self.compiled.enforce_sign()
            if self.bound:
                self.bound.apply()
            self.task.pathway.hold_signs()
            self._aim()
            self._tell_epoch(self.evaluate())
        while self.at.epoch < self.schedule.epochs and not self.at.stopped:
            self._epoch()

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy of every split at the free equilibrium, and the control still needed, by metric name."""
        task = self.testing
        metrics = {"control_cost": control_cost(task, self.splits["train"], self.group)}
        metrics |= task.pathway.measures()
        if isinstance(task.pathway, LateralInhibition):
            metrics["mismatch"] = mean_mismatch(task, self.splits["train"], self.group)
        for name, split in self.splits.items():
            found: Evaluation = evaluate(task, split, self.group)
            metrics |= {f"{name}_{key}": value for key, value in found.metrics().items()}
        return metrics

    @property
    def testing(self) -> Task:
        """How equilibria are found in evaluations, at the present leak."""
        return self.task if self._testing is None else replace(self._testing, controller=self.task.controller)

    def _teach_feedback(self) -> None:
        """The phases before an epoch in which only feedback weights learn, one pass over the samples at a time."""
        alone = [learning for learning in self.feedback if learning.alone]
        first = self.at.epoch == 0
        most = max((f.rule.pretraining if first else f.rule.passes for f in alone), default=0)
        while self.at.feedback_pass < most:
            at = self.at
            batches = self.schedule.order(FEEDBACK_ORDER + at.feedback_passes_before + at.feedback_pass)
            for sample_ids in batches[at.feedback_step_in_pass :]:
                batch = self.splits["train"].batch(sample_ids)
                for learning in alone:
                    if at.feedback_pass < (learning.rule.pretraining if first else learning.rule.passes):
                        found = learning.rule.updates(self.task, batch, None, at.feedback_step)
                        learning.apply(self.task, found)
                        learning.rule.after_step(self.task, self.compiled)
                        self.task.pathway.hold_signs()
                at.feedback_step += 1
                at.feedback_step_in_pass += 1
                if at.feedback_step_in_pass < len(batches):
                    self._safe_point()
            at.feedback_pass += 1
            at.feedback_step_in_pass = 0
            self._safe_point()

    def _epoch(self) -> None:
        self._moved = False
        if self.at.step_in_epoch == 0:
            self._teach_feedback()
        batches = self.schedule.order(self.at.epoch + 1)
        self.steps_per_epoch = len(batches)
        for sample_ids in batches[self.at.step_in_epoch :]:
            self._step(sample_ids)
            if self.at.step_in_epoch < len(batches):
                self._safe_point()
        if self.bound and self._moved:
            self.bound.apply(thorough=True)
        metrics = self.at.sums.metrics(self.at.unconverged)
        if self.schedule.alpha is not None:
            metrics["alpha"] = self.task.controller.leak
        if self.schedule.check is not None:
            metrics["energy_checked"] = self.at.sums.energy_checked
            metrics["energy_lowered"] = self.at.sums.energy_lowered
        self.at.epoch += 1
        self.at.feedback_passes_before += self.at.feedback_pass
        self.at.step_in_epoch = self.at.unconverged = self.at.feedback_pass = 0
        self.at.sums = Sums()
        metrics |= self.evaluate()
        metrics["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        if self.scheduler is not None and self.per == "epoch":
            self._move_scheduler(metrics)
        self._consider_stopping(metrics)
        self._tell_epoch(metrics)

    def _tell_epoch(self, metrics: dict[str, float]) -> None:
        self.group.verify(self.compiled.parameters_by_name(), "the parameters of")
        for observer in self.observers:
            observer.epoch(self, metrics)
        self._safe_point()

    def _safe_point(self) -> None:
        """Here `state()` is whole: time for checkpoints, and to stop where somebody asked for it."""
        for observer in self.observers:
            observer.checkpoint(self)
        if self.group.stopping or (self.stop_requested and self.group.size == 1):
            raise Stopped

    def _aim(self) -> Task:
        """The task of the next update; its leak stays in `task` for those who look at it afterwards."""
        if self.schedule.alpha is not None:
            self.task = self.schedule.alpha.aimed(self.task, self.at.step)
        check = self.schedule.check
        if check is None or not check.due(self.at.step):
            return self.task
        return replace(self.task, check=check.samples)

    def _step(self, sample_ids: np.ndarray) -> None:
        batch, outcome, right = self._outcome(sample_ids)
        for observer in self.observers:
            observer.found(self, sample_ids, batch, outcome)
        if bool(outcome.used.any()):
            self._apply(outcome.updates)
        elif any(learning.rule.always for learning in self.feedback):
            self._apply(outcome.updates, used=False)
        else:
            self.optimizer.zero_grad()
            self.optimizer.step()  # changes nothing; schedulers ask that steps come before theirs
        if self.scheduler is not None and self.per == "step":
            self.scheduler.step()
        self.at.step += 1
        self.at.step_in_epoch += 1
        self.at.unconverged += int((~outcome.used).sum())
        self.at.sums.add(outcome, len(self.splits["train"].classes) * len(sample_ids), right)
        if self.at.step % VERIFY_EVERY == 0:
            self.group.verify(self.compiled.parameters_by_name(), "the parameters of")
        for observer in self.observers:
            observer.step(self, sample_ids, batch, outcome)

    def _outcome(self, sample_ids: np.ndarray) -> tuple[Batch, Outcome, int]:
        """A minibatch, what the rule found on it (over all processes) and how many classes were told right."""
        split, count, group = self.splits["train"], len(sample_ids), self.group
        own = sample_ids[group.share(count)]
        batch = split.batch(own if len(own) else sample_ids[:1])
        task = self._aim()
        if self.starts:
            task = replace(task, starts=self.starts.of(own))
        if group.size > 1:
            task = replace(task, settings=replace(task.settings, minibatch=SharedMinibatch(group, count)))
        outcome = self.rule.outcome(task, batch)
        for learning in self.feedback:
            if not learning.alone and (group.size > 1 or learning.rule.always or bool(outcome.used.any())):
                found = learning.rule.updates(task, batch, outcome, self.at.step)
                outcome = replace(outcome, updates=joined(outcome.updates, found))
        if self.penalty is not None:
            self.penalty.add(outcome)
        right = count_right(self.task, split, outcome.free.fields.phi, batch)
        if group.size == 1:
            return batch, outcome, right
        wanted = any(observer.wants_activity(self) for observer in self.observers)
        outcome, right = whole(group, outcome, count, wanted, self.stop_requested, right)
        return (split.batch(sample_ids) if self.observers else batch), outcome, right

    @torch.no_grad()
    def _apply(self, updates: dict[str, Tensor], used: bool = True) -> None:
        """One optimizer step along the updates, then Dale's law and the bound, for circuit and feedback.

        Args:
            used: whether the circuit itself learns; else only what learns always.
        """
        updates, taught = parted(updates)
        self._moved = self._moved or any(bool(update.any()) for update in updates.values())
        plastic = self.compiled.plastic()
        for name, parameter in plastic.items():
            parameter.grad = updates[name].neg() if used else None
        shares = 1.0
        if self.schedule.clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(plastic.values(), self.schedule.clip)
            shares = torch.clamp(self.schedule.clip / (norm + 1e-6), max=1.0)
        for learning in self.feedback:
            if not learning.alone:
                # those that share the circuit's optimizer share its clipping as well
                share = shares if learning.optimizer is None else 1.0
                wanted = taught if used or learning.rule.always else {}
                learning.apply(self.task, {name: share * value for name, value in wanted.items()})
        self.optimizer.step()
        for learning in self.feedback if used else ():
            if not learning.alone:
                learning.rule.after_step(self.task, self.compiled)
        self.compiled.enforce_sign()
        self.task.pathway.hold_signs()
        if self._moved and self.bound:
            self.bound.apply()

    def _move_scheduler(self, metrics: dict[str, float]) -> None:
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(metrics.get("validation_loss", metrics["train_loss"]))
        elif self.scheduler is not None:
            self.scheduler.step()

    def _consider_stopping(self, metrics: dict[str, float]) -> None:
        rule = self.schedule.stopping
        if rule is None:
            return
        value = metrics[rule.metric]
        gain = value - self.at.best if rule.rising else self.at.best - value
        if np.isnan(self.at.best) or gain > rule.minimum_change:
            self.at.best, self.at.waited = value, 0
        else:
            self.at.waited += 1
            self.at.stopped = self.at.waited >= rule.patience

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as nested dicts of arrays and plain values."""
        at = {**vars(self.at), "sums": dict(vars(self.at.sums))}
        return {
            "progress": at,
            "parameters": {name: array_of(value) for name, value in self.compiled.state_by_name().items()},
            "optimizer": plain(self.optimizer.state_dict()),
            "scheduler": plain(self.scheduler.state_dict()) if self.scheduler is not None else {},
            "bound": plain(self.bound.state()) if self.bound else {},
            "starts": plain(self.starts.state()) if self.starts else {},
            "feedback": {name: array_of(value) for name, value in self.task.pathway.parameters().items()},
            "feedback_optimizers": [
                plain(learning.optimizer.state_dict()) if learning.optimizer else {}
                for learning in self.feedback
            ],
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        progress = dict(state["progress"])
        self.at = Progress(**{**progress, "sums": Sums(**progress["sums"])})
        for name, parameter in self.compiled.state_by_name().items():
            parameter.copy_(torch.as_tensor(state["parameters"][name]))
        self.optimizer.load_state_dict(tensors(state["optimizer"]))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(tensors(state["scheduler"]))
        if self.bound:
            self.bound.restore(tensors(state["bound"]))
        if self.starts:
            self.starts.restore(tensors(state["starts"]))
        for name, parameter in self.task.pathway.parameters().items():
            parameter.copy_(torch.as_tensor(state["feedback"][name]))
        for learning, saved in zip(self.feedback, state["feedback_optimizers"], strict=True):
            if learning.optimizer is not None:
                learning.optimizer.load_state_dict(tensors(saved))
