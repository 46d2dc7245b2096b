"""Numbers that several sections of a file ask for."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from circuitlab.spec.base import MAX_INT
from circuitlab.spec.quantities import count_of

Count = Annotated[int, Field(ge=1, le=MAX_INT)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _epochs(value: Any) -> int:
    return count_of(value, ("epochs",))[0]


Epochs = Annotated[
    int,
    BeforeValidator(_epochs),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+\s*epochs?\s*$", "examples": ["1 epoch"]}),
]
