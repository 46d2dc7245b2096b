"""Populations of the circuit file: size, type, time constant, sign, bias, names and positions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from circuitlab.spec.base import MAX_INT, Model, without_none
from circuitlab.spec.quantities import Milliseconds, time_text

PopulationType = Literal["input", "unit", "pyramidal", "interneuron", "output"]
Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid", "softplus", "elu", "linear"]
Size = Annotated[int, Field(ge=1, le=MAX_INT)]
Positive = Annotated[float, Field(gt=0)]


def _tuple(value: Any) -> Any:
    return tuple(_tuple(part) for part in value) if isinstance(value, list) else value


class NamesSpec(Model):
    """Names of a population's neurons: a list, or a CSV file with the column `name`."""

    shorthand: ClassVar[str | None] = "file"
    listing: ClassVar[str | None] = "values"

    file: str | None = None
    """CSV file with the column `name`, relative to the circuit file."""
    values: Annotated[tuple[str, ...], BeforeValidator(_tuple)] | None = None
    """One name per neuron."""


class RandomPositions(Model):
    """Positions drawn uniformly from a box."""

    extent: Annotated[tuple[Positive, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)]
    """Length of the box in each dimension."""


class PositionsSpec(Model):
    """Where a population's neurons are, in one to three dimensions; exactly one way is given."""

    shorthand: ClassVar[str | None] = "file"
    listing: ClassVar[str | None] = "values"

    file: str | None = None
    """CSV file with the columns x, y, z (as many as there are dimensions), relative to the circuit file."""
    values: (
        Annotated[
            tuple[Annotated[tuple[float, ...], Field(min_length=1, max_length=3)], ...],
            BeforeValidator(_tuple),
        ]
        | None
    ) = None
    """One point per neuron."""
    grid: Annotated[tuple[Size, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)] | None = (
        None
    )
    """Neurons along each dimension of a regular grid; their product is the population's size."""
    spacing: Positive = 1.0
    """Distance of neighbours on the grid."""
    random: RandomPositions | None = None
    """Positions drawn uniformly from a box."""
    origin: (
        Annotated[tuple[float, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)] | None
    ) = None
    """Added to every position; one number for each dimension (of the box, where a layer gives the depth)."""


class AttributesSpec(Model):
    """Further properties of the neurons, one column each."""

    shorthand: ClassVar[str | None] = "file"

    file: str
    """CSV file with one row per neuron, relative to the circuit file."""


class BiasSpec(Model):
    """Initial bias of a population's neurons, and whether it learns."""

    shorthand: ClassVar[str | None] = "init"

    init: Literal["zeros", "constant", "uniform", "normal", "file"] = "zeros"
    """How the bias starts."""
    value: float | None = None
    """The bias of `constant`."""
    scale: Positive | None = None
    """Half width of `uniform`, standard deviation of `normal`; 1 unless given."""
    file: str | None = None
    """CSV or npz file with one bias per neuron, relative to the circuit file."""
    plastic: bool = True
    """Whether the bias learns."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = {**data, "init": "file"} if "file" in data and "init" not in data else data
        scaled = data.get("init") in ("uniform", "normal") and "scale" not in data
        return {**data, "scale": 1.0} if scaled else data


class NoiseSpec(Model):
    """Noise current into every soma of a population, in real-time simulation only."""

    std: Positive
    """Standard deviation of the current at rest, in the (dimensionless) unit of potentials."""
    tau_ms: Milliseconds = Field(default=5.0, alias="tau")
    """Correlation time of the current, such as `5 ms`."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"std": self.std, "tau": time_text(self.tau_ms)}


class PopulationSpec(Model):
    """A population of neurons that share type, activation, time constant and sign."""

    type: PopulationType
    """`input` (clamped to data), `unit` (leaky integrator), `pyramidal` (soma, basal, apical),
    `interneuron` or `output`."""
    size: Size
    """Number of neurons; follows from `shape` where that is given."""
    shape: Annotated[tuple[Size, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=4)] | None = (
        None
    )
    """Arrangement of the neurons, [channels, height, width] for convolutions; its product is the size."""
    activation: Activation = "tanh"
    """Firing rate as a function of the somatic potential; linear for outputs unless given."""
    gain: Positive = 1.0
    """Steepness of the activation: the rate is activation(gain (soma - threshold))."""
    threshold: float = 0.0
    """Somatic potential at which the activation has its origin."""
    tau_ms: Milliseconds = Field(default=10.0, alias="tau")
    """Membrane time constant, such as `10 ms`."""
    noise: NoiseSpec | None = None
    """Ornstein-Uhlenbeck current into every soma in real-time simulation; equilibria have none."""
    sign: Literal["excitatory", "inhibitory"] | None = None
    """Dale's law: the sign of every synapse that leaves the population, kept through learning."""
    controlled: bool = True
    """Whether the neurons receive the control psi; without it least control leaves their synapses alone."""
    bias: BiasSpec | None = BiasSpec()
    """Initial bias; `false` for none."""
    names: NamesSpec | None = None
    """Names of the neurons: a list, or a CSV file with the column `name`."""
    positions: PositionsSpec | None = None
    """Positions of the neurons: a list of points, a CSV file, a grid, or random in a box."""
    layer: str | None = None
    """Name of the layer the neurons lie in: random positions get their depth from it, others are held to it."""
    attributes: AttributesSpec | None = None
    """CSV file with further properties, one row per neuron."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = dict(data)
        shape = data.get("shape")
        if (
            "size" not in data
            and isinstance(shape, list)
            and shape
            and all(type(part) is int for part in shape)
        ):
            size = 1
            for part in shape:
                size *= max(part, 1)
            data["size"] = min(size, MAX_INT)
        if data.get("type") in ("input", "output"):
            data.setdefault("activation", "linear")
        if data.get("type") == "input":
            data.setdefault("controlled", False)
            data.setdefault("bias", False)
        if isinstance(data.get("bias"), bool):
            data["bias"] = {} if data["bias"] else None
        for key, model in (("names", NamesSpec), ("positions", PositionsSpec)):
            if isinstance(data.get(key), list):
                data[key] = {model.listing: data[key]}
        return data

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", by_alias=True))
        data["bias"] = data.get("bias", False)
        if self.type == "input":
            for key in ("activation", "gain", "threshold", "controlled", "bias", "tau"):
                data.pop(key)
        else:
            data["tau"] = time_text(self.tau_ms)
        if self.noise is not None:
            data["noise"] = self.noise.resolved()
        return data
