"""What the training loop asks of whatever learns: a compiled circuit, or a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn


class Learnable(Protocol):
    """Parameters by name, and what must hold after each step."""

    def plastic(self) -> dict[str, nn.Parameter]:
        """The parameters that learning may change, by the names of a rule's updates."""
        ...

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """All parameters."""
        ...

    def state_by_name(self) -> Mapping[str, Tensor]:
        """All that a checkpoint keeps."""
        ...

    def enforce_sign(self) -> None:
        """Bring every weight back to the sign that Dale's law asks of it."""
        ...
