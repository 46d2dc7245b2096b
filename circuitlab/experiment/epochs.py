"""Training in lines of text: one for each epoch, in columns."""

from __future__ import annotations

from collections.abc import Callable

from circuitlab.learn.train import Observer, Trainer

SPLITS = ("train", "validation", "test")


class EpochLines(Observer):
    """Says a line for each epoch, below a header.

    Args:
        say: takes the lines.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say, self.begun = say, False

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if not self.begun:
            self.say(header(metrics))
            self.begun = True
        self.say(line(trainer.at.epoch, metrics))


def header(metrics: dict[str, float]) -> str:
    """Two lines above the epochs' numbers, which stand in columns."""
    splits = [split for split in SPLITS if f"{split}_loss" in metrics]
    accuracy = any(f"{split}_accuracy" in metrics for split in splits)
    width = 17 if accuracy else 9
    above = "".join(f"{split:<{width}}" for split in splits)
    below = ("loss    accuracy " if accuracy else "loss     ") * len(splits)
    return f"{'':11}{above}control   uncon-\n{'':11}{below}cost      verged"


def line(epoch: int, metrics: dict[str, float]) -> str:
    """An epoch's numbers; epoch 0 is before learning."""
    parts = [f"{f'epoch {epoch}' if epoch else 'before':<11}"]
    for split in SPLITS:
        if f"{split}_loss" in metrics:
            parts.append(f"{metrics[f'{split}_loss']:<8.4f}")
            accuracy = metrics.get(f"{split}_accuracy")
            parts.append(" " if accuracy is None else f"{accuracy:<9.4f}")
    parts.append(f"{metrics['control_cost']:<10.4g}")
    parts.append(f"{100 * metrics['unconverged']:.3f}%" if "unconverged" in metrics else "")
    return "".join(parts).rstrip()
