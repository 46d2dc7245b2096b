"""How a rule's updates lie to those that theory names, and what control does to them.

    psi sigma(phi)^T = psi sigma(phi_free)^T + psi (sigma(phi) - sigma(phi_free))^T

The first part says what the free circuit should have done otherwise. The second lowers the control by making the
circuit more sensitive to it, whether or not the free answer improves: it can point against the loss gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from circuitlab.dynamics.system import System
from circuitlab.theory.references import Credit

GROUPS = 20
"""Parts of the samples that the jackknife leaves out in turn, at most."""
NUMBERS = 2**26
"""Numbers that the sums over these parts may take together."""


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two updates, [parameter]; NaN where one of them is nothing."""
    length = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other))
    return float(torch.dot(one, other)) / length if length > 0 else float("nan")


def angle(cosines: np.ndarray | float) -> np.ndarray:
    """Degrees of an angle with this cosine."""
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


@dataclass
class Comparison:
    """Cosines between one update and others, for each sample and for the mean over samples.

    The mean's standard error comes from leaving out a part of the samples in turn (jackknife).

    Args:
        samples: how many will be added.
        others: names of what it is compared with.
    """

    samples: int
    others: tuple[str, ...]
    cosines: dict[str, list[float]] = field(default_factory=dict)
    lengths: list[float] = field(default_factory=list)
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _added: int = 0

    def add(self, update: Tensor | None, others: dict[str, Tensor]) -> None:
        """One sample's updates, [parameter] each; None where the rule had none (its state did not converge)."""
        for name in self.others:
            other = others.get(name)
            known = update is not None and other is not None and bool(torch.isfinite(other).all())
            found = cosine(update, other) if known and update is not None and other is not None else np.nan
            self.cosines.setdefault(name, []).append(found)
        self.lengths.append(float("nan") if update is None else float(torch.linalg.vector_norm(update)))
        whole = update is not None and all(bool(torch.isfinite(v).all()) for v in others.values())
        if whole and update is not None:
            self._collect(update, others)
        self._added += 1

    def _collect(self, update: Tensor, others: dict[str, Tensor]) -> None:
        if not self._sums:
            room = NUMBERS // (len(update) * (1 + len(self.others)))
            groups = int(min(GROUPS, self.samples, max(2, room)))
            for name in ("", *self.others):
                self._sums[name] = update.new_zeros((groups, len(update)), dtype=torch.float64)
        group = self._added % len(self._sums[""])
        self._sums[""][group] += update
        for name in self.others:
            self._sums[name][group] += others[name]

    def mean(self, other: str) -> tuple[float, float]:
        """Cosine between the mean updates, and its standard error (NaN with fewer than two parts)."""
        if not self._sums:
            return float("nan"), float("nan")
        one, two = self._sums[""], self._sums[other]
        whole_one, whole_two = one.sum(0), two.sum(0)
        value = cosine(whole_one, whole_two)
        used = [group for group in range(len(one)) if bool(one[group].any())]
        if len(used) < 2:
            return value, float("nan")
        left = np.array([cosine(whole_one - one[group], whole_two - two[group]) for group in used])
        count = len(left)
        return value, float(np.sqrt((count - 1) / count * np.square(left - left.mean()).sum()))


@dataclass(frozen=True)
class Split:
    """One sample's update in its two parts, [parameter] each: `prediction` with the free rates, and `gain`."""

    prediction: Tensor
    gain: Tensor


def split(system: System, psi: Tensor, phi: Tensor, phi_free: Tensor, x: Tensor, sample: int) -> Split:
    """The two parts of psi sigma(phi)^T of one sample.

    Args:
        psi, phi, phi_free: control, controlled and free potentials, [unit, sample]. x: [input unit, sample].
    """
    whole = Credit(phi, psi).update(system, x, sample)
    prediction = Credit(phi_free, psi).update(system, x, sample)
    return Split(prediction, whole - prediction)


def gain(psi: Tensor, phi: Tensor, phi_free: Tensor) -> Tensor:
    """|phi - phi_free| / |psi|, how far a control moves the circuit, [sample]; NaN without control."""
    return torch.linalg.vector_norm(phi - phi_free, dim=0) / torch.linalg.vector_norm(psi, dim=0)


def relative_distance(psi: Tensor, best: Tensor) -> Tensor:
    """|psi - psi_opt| / |psi_opt|, [sample]."""
    return torch.linalg.vector_norm(psi - best, dim=0) / torch.linalg.vector_norm(best, dim=0)
