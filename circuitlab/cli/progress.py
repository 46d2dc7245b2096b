"""Training as the terminal shows it: a bar within the epoch, a line for each epoch."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuitlab.learn.base import Batch, Outcome
from circuitlab.learn.train import Observer, Trainer

SPLITS = ("train", "validation", "test")


class TrainingProgress(Observer):
    """Shows loss, accuracy, control cost and unconverged samples as they come.

    Args:
        page: where to print.
        lines: whether to print a line per epoch.
        bars: whether to show a bar where the page is a terminal.
    """

    def __init__(self, page: Console, *, lines: bool, bars: bool) -> None:
        self.page, self.lines, self.begun = page, lines, False
        self.bar = None
        if bars and page.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[now]}"),
            )
            self.bar = Progress(*columns, console=page, transient=True)
            self.row = self.bar.add_task("before learning", total=None, now="")
            self.bar.start()

    def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        if self.bar is not None:
            sums = trainer.at.sums
            now = f"loss {sums.loss / sums.samples:.4f}"
            if sums.answers:
                now += f"  accuracy {sums.right / sums.answers:.3f}"
            if trainer.rule.controls:
                now += f"  control cost {sums.control_cost / max(sums.used, 1):.4g}"
            self.bar.update(
                self.row,
                description=f"epoch {trainer.at.epoch + 1} of {trainer.schedule.epochs}",
                total=trainer.steps_per_epoch,
                completed=trainer.at.step_in_epoch,
                now=f"{now}  unconverged {trainer.at.unconverged}",
            )

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self.lines:
            if not self.begun:
                self.page.print(_header(metrics), highlight=False, soft_wrap=True)
                self.begun = True
            self.page.print(_line(trainer.at.epoch, metrics), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _header(metrics: dict[str, float]) -> str:
    """Two lines above the epochs' numbers, which stand in columns."""
    splits = [split for split in SPLITS if f"{split}_loss" in metrics]
    accuracy = any(f"{split}_accuracy" in metrics for split in splits)
    width = 17 if accuracy else 9
    above = "".join(f"{split:<{width}}" for split in splits)
    below = ("loss    accuracy " if accuracy else "loss     ") * len(splits)
    return f"{'':11}{above}control   uncon-\n{'':11}{below}cost      verged"


def _line(epoch: int, metrics: dict[str, float]) -> str:
    parts = [f"{f'epoch {epoch}' if epoch else 'before':<11}"]
    for split in SPLITS:
        if f"{split}_loss" in metrics:
            parts.append(f"{metrics[f'{split}_loss']:<8.4f}")
            accuracy = metrics.get(f"{split}_accuracy")
            parts.append(" " if accuracy is None else f"{accuracy:<9.4f}")
    parts.append(f"{metrics['control_cost']:<10.4g}")
    parts.append(f"{100 * metrics['unconverged']:.3f}%" if "unconverged" in metrics else "")
    return "".join(parts).rstrip()
