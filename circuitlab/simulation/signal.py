"""Inputs over time: held constant from one of their own steps to the next."""

from __future__ import annotations

import numpy as np


class Signal:
    """What the input populations are clamped to, step by step.

    Args:
        values: [time, sample, input unit]; one time where it never changes. After the last one it stays as it is.
        hold: simulation steps that each time lasts.
        silent_before: whether inputs were zero before the first step (the past of a silent circuit), else they were
            what they are at the first step.
    """

    def __init__(self, values: np.ndarray, hold: int = 1, silent_before: bool = False) -> None:
        self.values, self.hold, self.silent_before = values, hold, silent_before

    @property
    def constant(self) -> bool:
        """Whether it never changes after the first step."""
        return len(self.values) == 1

    def index(self, step: int) -> int:
        """Which row of `values` a step sees; -1 for the silence before the first step."""
        if step < 0:
            return -1 if self.silent_before else 0
        return min(step // self.hold, len(self.values) - 1)

    def at(self, step: int) -> np.ndarray:
        """Inputs of a step, [sample, input unit]."""
        index = self.index(step)
        return np.zeros_like(self.values[0]) if index < 0 else self.values[index]
