"""Training as the terminal shows it: a bar within the epoch, a line for each epoch."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuitlab.experiment.epochs import header, line
from circuitlab.learn.base import Batch, Outcome
from circuitlab.learn.train import Observer, Trainer


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
                self.page.print(header(metrics), highlight=False, soft_wrap=True)
                self.begun = True
            self.page.print(line(trainer.at.epoch, metrics), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
