"""Projections of the circuit file: source, target, site, connection rule and initial weights."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from circuitlab.errors import suggestion
from circuitlab.spec.base import Model, listed, without_none
from circuitlab.spec.quantities import MillisecondsOrNone, time_text
from circuitlab.spec.rules import INITS, RULES, Rule

Site = Literal["soma", "basal", "apical"]
Init = Literal[
    "torch_linear",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "normal",
    "uniform",
    "lognormal",
    "constant",
    "zeros",
    "transpose",
    "file",
]
Positive = Annotated[float, Field(gt=0)]


class ConnectSpec(Model):
    """A connection rule by name, with all its parameters: those given and the defaults."""

    shorthand: ClassVar[str | None] = "rule"

    rule: str = "all_to_all"
    """Name of the connection rule."""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"allow_autapses": True})
    """The rule's parameters; in the file they stand beside `rule`."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        name = data.get("rule", "all_to_all")
        if not isinstance(name, str):
            return {"rule": name}
        if name not in RULES:
            near = suggestion(name, RULES)
            raise ValueError(
                f"no connection rule '{name}'; allowed: {listed(RULES)}{'.' if near else ''}{near}"
            )
        rule = RULES[name].model_validate({key: value for key, value in data.items() if key != "rule"})
        return {"rule": name, "parameters": rule.model_dump()}

    @classmethod
    def at(cls, data: Any) -> type[Model]:
        """The rule's own model."""
        name = data.get("rule", "all_to_all") if isinstance(data, dict) else data
        return RULES[name] if isinstance(name, str) and name in RULES else cls

    def parsed(self) -> Rule:
        """The parameters as the rule's own class."""
        return RULES[self.rule].model_validate(self.parameters)

    def resolved(self) -> dict[str, Any]:
        """The rule and its parameters side by side, as in the file."""
        return {"rule": self.rule, **without_none(self.parsed().model_dump(mode="json"))}


class WeightsSpec(Model):
    """Initial weights of a projection, by name or from a file."""

    shorthand: ClassVar[str | None] = "init"

    init: Init = "torch_linear"
    """How the weights start; `torch_linear` is uniform in +-1/sqrt(fan_in)."""
    scale: Positive = 1.0
    """Multiplies the initial weights, drawn or read."""
    file: str | None = None
    """CSV or npz file with the weights, relative to the circuit file; `init: file` without it takes those of
    an `explicit` edge file."""
    mean: float | None = None
    """Mean of `normal`; of the logarithm for `lognormal`. 0 unless given."""
    std: Annotated[float, Field(ge=0)] | None = None
    """Standard deviation of `normal` (1/sqrt(fan_in) unless given); of the logarithm for `lognormal` (1)."""
    low: float | None = None
    """Lower end of `uniform`."""
    high: float | None = None
    """Upper end of `uniform`."""
    value: float | None = None
    """The weight of `constant`."""
    gain: Positive | None = None
    """Gain of the xavier, kaiming and torch_linear initialisations."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = {**data, "init": "file"} if "file" in data and "init" not in data else data
        init = data.get("init", "torch_linear")
        return {**(INITS.get(init, {}) if isinstance(init, str) else {}), **data}


class ProjectionSpec(Model):
    """Synapses from one population to another (or the same), with a site, a rule and initial weights."""

    source: str
    """The population whose neurons send."""
    target: str
    """The population whose neurons receive."""
    kind: Literal["chemical", "electrical"] = "chemical"
    """`chemical` synapses, or `electrical`: gap junctions, through which current flows both ways in proportion to the
    difference of the two somatic potentials."""
    site: Site
    """Where the synapses arrive; basal for pyramidal targets and soma for others and for gap junctions unless given."""
    carries: Literal["rate", "burst"] = "rate"
    """What is transmitted: the sender's firing rate, or its control (the burst code; apical sites only)."""
    connect: ConnectSpec = ConnectSpec()
    """The connection rule; `all_to_all` unless given."""
    weights: WeightsSpec = WeightsSpec()
    """Initial weights; `torch_linear` unless given."""
    delay_ms: MillisecondsOrNone = Field(default=0.0, alias="delay")
    """Time from a spike or a change of rate to its effect, such as `1.5 ms`, in real-time simulation; `none` unless
    given."""
    plastic: bool
    """Whether the weights learn; true unless given, but false for `pool`, gap junctions and burst projections (which
    learn by `learn.feedback: kolen_pollack`)."""
    kernel: Literal["auto", "dense", "csr", "diagonal", "convolution", "low_rank", "torch_sparse"] = "auto"
    """How the synapses are stored and multiplied; chosen by structure and density unless given."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Makes the weights a product of two thin factors of this rank, which learn in their place; all_to_all only."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = dict(data)
        connect = data.get("connect")
        rule = connect.get("rule") if isinstance(connect, dict) else connect
        still = rule == "pool" or data.get("carries") == "burst" or data.get("kind") == "electrical"
        data.setdefault("plastic", not still)
        data.setdefault("site", "soma")
        if "weights" not in data or (
            isinstance(data["weights"], dict) and not {"init", "file"} & set(data["weights"])
        ):
            init = {"transpose": "transpose", "explicit": "file"}.get(rule if isinstance(rule, str) else "")
            given = data.get("weights", {})
            if rule == "pool" and not given:
                kernel = connect.get("kernel") if isinstance(connect, dict) else None
                sides = kernel if isinstance(kernel, list) else [kernel, kernel]
                window = [side for side in sides if isinstance(side, int) and side > 0]
                if len(window) == len(sides) == 2:
                    data["weights"] = {"init": "constant", "value": 1.0 / (window[0] * window[1])}
            elif init is not None:
                data["weights"] = {"init": init, **given}
        return data

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = {
            **without_none(self.model_dump(mode="json", by_alias=True)),
            "connect": self.connect.resolved(),
        }
        return {**data, "delay": time_text(self.delay_ms) if self.delay_ms else "none"}
