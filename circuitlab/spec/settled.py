"""The parts of an experiment file that keep learning settled: bounds, penalties, checks, a schedule of the leak."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from circuitlab.spec.base import MAX_INT, Model, described
from circuitlab.spec.quantities import count_of, count_text

DEFAULT_BOUND = 0.5
"""Bound on the largest singular value of recurrent weights, unless another bound, or none, is asked for."""


def _bound(value: Any) -> float | str:
    if value in ("auto", "none"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number above 0, auto or none is wanted, not {described(value)}")
    if not value > 0:
        raise ValueError(f"{value:g} is out of range; it must be greater than 0, or auto, or none")
    return float(value)


Bound = Annotated[
    float | str,
    BeforeValidator(_bound),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"enum": ["auto", "none"]}]}),
]


class ConstrainSpec(Model):
    """Bounds on the weights, kept by every update."""

    largest_singular_value: Bound = "auto"
    """Bound on the recurrent weights' largest singular value, or `none`; `auto` is 0.5 in recurrent circuits unless
    another bound is given."""
    largest_symmetric_eigenvalue: Annotated[float, Field(gt=0)] | None = None
    """Bound m on the largest eigenvalue of (W + W^T)/2 of the recurrent weights; below 1 there is exactly one free
    equilibrium."""
    frozen: Literal["refuse", "leave"] = "refuse"
    """What becomes of a recurrent group whose frozen projections alone exceed a bound: the experiment is refused, or
    the group is left without it (so where the bound is the default)."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        chosen = (
            data.get("largest_singular_value", "auto") != "auto" or "largest_symmetric_eigenvalue" in data
        )
        return {"frozen": "refuse" if chosen else "leave", **data}

    def decided(self, recurrent: bool) -> ConstrainSpec:
        """The same with `auto` replaced by the bound it stands for in a circuit with or without recurrent groups."""
        if self.largest_singular_value != "auto":
            return self
        wanted = recurrent and self.largest_symmetric_eigenvalue is None
        return self.model_copy(update={"largest_singular_value": DEFAULT_BOUND if wanted else "none"})

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are asked for, by key."""
        values = {
            "largest_singular_value": self.largest_singular_value,
            "largest_symmetric_eigenvalue": self.largest_symmetric_eigenvalue,
        }
        return {key: value for key, value in values.items() if isinstance(value, float)}


class PenaltySpec(Model):
    """Penalties that are added to what a rule descends."""

    jacobian: Annotated[float, Field(gt=0)] | None = None
    """Weight gamma of gamma/2 |W diag(sigma'(phi))|^2, mean over samples, of the recurrent projections."""


class AlphaSpec(Model):
    """A leak that changes over training."""

    start: Annotated[float, Field(gt=0)] = Field(alias="from")
    """The leak of the first update."""
    end: Annotated[float, Field(gt=0)] = Field(alias="to")
    """The leak at the end, and wherever nothing is trained."""
    over: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of all updates after which `to` is reached."""
    shape: Literal["geometric", "linear"] = "geometric"
    """Whether equal numbers of updates change the leak by equal factors or by equal amounts."""


def _kind(value: Any) -> str:
    return "@schedule" if isinstance(value, dict | AlphaSpec) else "@number"


Alpha = Annotated[
    Annotated[Annotated[float, Field(ge=0)], Tag("@number")] | Annotated[AlphaSpec, Tag("@schedule")],
    Discriminator(_kind),
]


def _steps(value: Any) -> int:
    return count_of(value, ("steps",))[0]


Steps = Annotated[
    int,
    BeforeValidator(_steps),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+\s*steps?\s*$", "examples": ["50 steps"]}),
]


class CheckEnergySpec(Model):
    """How often controlled equilibria are compared with descent from the free state, and how many."""

    shorthand: ClassVar[str | None] = "every"

    every: Steps = 50
    """Updates from one check to the next, such as `50 steps`."""
    samples: Annotated[int, Field(ge=1, le=MAX_INT)] = 2
    """Samples of the batch that are checked."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"every": count_text(self.every, "steps"), "samples": self.samples}
