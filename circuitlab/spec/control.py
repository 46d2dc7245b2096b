"""The section `control` of an experiment file: how control reaches the neurons."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from circuitlab.spec.base import Model, without_none
from circuitlab.spec.combinations import LINEAR, SCALED, default_feedback
from circuitlab.spec.numbers import NotNegative, Positive
from circuitlab.spec.quantities import MillisecondsOrNone, time_text
from circuitlab.spec.settled import Alpha, AlphaSpec


class ControllerSpec(Model):
    """The output controller: tau du/dt = -dL/dy - alpha u."""

    shorthand: ClassVar[str | None] = "type"

    type: Literal["leaky_integral", "integral", "proportional", "pi"] = "leaky_integral"
    """`leaky_integral` (leak alpha), `integral` (no leak), `proportional` (u = -beta dL/dy), `pi` (a leaky integral of
    the error plus k_p times the error)."""
    alpha: Alpha | None = None
    """Leak of the leaky integral, 1 unless given, and of the integral part of `pi`, 0.0015 unless given. The smaller,
    the stronger the control. `{from: 6.4, to: 0.1}` changes it over training."""
    k_p: NotNegative | None = None
    """Gain of the proportional part of `pi`; 1.5 unless given."""
    beta: Positive | None = None
    """Gain of the proportional controller, 1/alpha; 1 unless given."""
    tau_ms: MillisecondsOrNone = Field(default=100.0, alias="tau")
    """Time constant, such as `100 ms`; a proportional controller has none (0 here)."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        kind = data.get("type", "leaky_integral")
        default = {
            "leaky_integral": {"alpha": 1.0},
            "integral": {"alpha": 0.0},
            "proportional": {"beta": 1.0, "tau": "none"},
            "pi": {"alpha": 0.0015, "k_p": 1.5},
        }
        return {**(default.get(kind, {}) if isinstance(kind, str) else {}), **data}

    @property
    def leak(self) -> float | None:
        """Alpha; the one at the end where it changes over training."""
        return self.alpha.end if isinstance(self.alpha, AlphaSpec) else self.alpha

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", by_alias=True, exclude={"tau_ms"}))
        return data if self.type == "proportional" else {**data, "tau": time_text(self.tau_ms)}


class ControlSpec(Model):
    """How control reaches the neurons: a feedback pathway and an output controller."""

    shorthand: ClassVar[str | None] = "pathway"

    pathway: Literal[
        "dynamic_inversion", "energy_based", "lateral_inhibition", "linear_feedback", "deep_feedback_control"
    ] = "dynamic_inversion"
    """`dynamic_inversion` (control travels from unit to unit), `energy_based` (potentials descend the augmented
    energy), `lateral_inhibition` (interneurons cancel the predictable part of the apical input), `linear_feedback`
    (psi = Q u) or `deep_feedback_control` (psi = Q u towards a nudged target)."""
    feedback: Literal["tied", "random", "kolen_pollack", "apical", "jacobian", "file"]
    """Feedback weights among units (S): `tied` (transposed, the default), `random`, `kolen_pollack` (learned) or
    `apical` (the circuit's own apical projections); or from the controller (Q): `random` (the default of
    linear_feedback), `jacobian` (transposed Jacobian of the outputs at silence, the default of deep_feedback_control)
    or `{file: Q.npz}`."""
    scale: Positive = 1.0
    """Multiplies random feedback weights."""
    file: str | None = None
    """File with the feedback weights Q, relative to the experiment file; as in `feedback: {file: Q.npz}`."""
    interneurons: Literal["copied", "random"] | None = None
    """Where the interneurons of lateral_inhibition start: as exact copies of their pyramidal cells (`copied`, unless
    given) or with `random` weights."""
    controller: ControllerSpec = ControllerSpec.model_validate({})
    """The output controller; `pi` unless given under deep_feedback_control, else `leaky_integral`."""
    nudge: Positive | None = None
    """lambda of deep_feedback_control, 0.05 unless given: the target is the free output moved this far down the
    gradient of the loss (for squared_error of |y - target|^2, so that 0.5 asks for the target itself)."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        feedback, pathway = data.get("feedback"), data.get("pathway", "dynamic_inversion")
        if isinstance(feedback, dict) and set(feedback) == {"file"} and "file" not in data:
            data = {**data, "feedback": "file", "file": feedback["file"]}
        default = "file" if pathway in LINEAR and "file" in data else default_feedback(pathway)
        if pathway == "deep_feedback_control":
            controller = data.get("controller", {})
            if isinstance(controller, dict):
                controller = {"type": "pi", **controller}
            data = {"nudge": 0.05, **data, "controller": controller}
        if pathway == "lateral_inhibition":
            data = {"interneurons": "copied", **data}
        return {"feedback": default, **data}

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = {**without_none(self.model_dump(mode="json")), "controller": self.controller.resolved()}
        return data if self.feedback in SCALED else {key: data[key] for key in data if key != "scale"}
