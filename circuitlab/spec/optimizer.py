"""Optimizers and schedulers of torch as sections of a file."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from circuitlab.spec.base import Model
from circuitlab.spec.numbers import Positive


class OptimizerSpec(Model):
    """An optimizer of torch.optim by its name in lower case; its options stand beside `lr`."""

    shorthand: ClassVar[str | None] = "name"

    name: Annotated[str, Field(min_length=1)] = "adam"
    """Name of the optimizer: `adam`, `sgd`, `adamw`, `rmsprop`, ..."""
    lr: Positive = 1e-3
    """Learning rate."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The optimizer's other options; in the file they may stand beside `lr`."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_options(cls, data)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"name": self.name, "lr": self.lr, **self.options}


class SchedulerSpec(Model):
    """How the learning rate changes over training; the scheduler's options stand beside its name."""

    shorthand: ClassVar[str | None] = "name"

    name: Annotated[str, Field(min_length=1)] = "constant"
    """Name of the scheduler: `constant`, `cosine`, ..."""
    per: Literal["step", "epoch"]
    """Whether the rate changes after every minibatch (`cosine`, unless given) or every epoch (all others)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The scheduler's other options; in the file they may stand beside `name`."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_options(cls, {"per": "step" if data.get("name") == "cosine" else "epoch", **data})

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"name": self.name, "per": self.per, **self.options}


def with_options(model: type[Model], data: dict[str, Any]) -> dict[str, Any]:
    """Keys that are not the model's own, gathered under `options`."""
    given = data.get("options", {})
    if not isinstance(given, dict):
        return data
    known = {key: value for key, value in data.items() if key in model.model_fields}
    others = {key: value for key, value in data.items() if key not in model.model_fields}
    return {**known, "options": {**given, **others}}
