"""The connection rules and the weight initialisations: names, parameters, defaults and ranges, stated once.

Names and meanings are NEST's where NEST has the rule. The graph's builder draws from
`ConnectSpec.parameters`, which hold every parameter of the rule; the JSON Schema is made from the same classes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from circuitlab.spec.base import MAX_INT, Model

Count = Annotated[int, Field(ge=1, le=MAX_INT)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _pair(value: Any) -> Any:
    """A number stands for the same in both directions: 3 is [3, 3]."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else _tuple(value)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Pair = Annotated[tuple[Count, Count], BeforeValidator(_pair, json_schema_input_type=Count | list[Count])]
Padding = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MAX_INT)], Annotated[int, Field(ge=0, le=MAX_INT)]],
    BeforeValidator(_pair, json_schema_input_type=Annotated[int, Field(ge=0)] | list[int]),
]


def _number(value: Any) -> bool:
    """Whether a value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _lengths(value: Any) -> Any:
    """A length, or a list of one for each axis."""
    parts = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(parts) <= 3 or not all(_number(part) for part in parts):
        shown = value if not isinstance(value, list | tuple) else list(value)
        raise ValueError(f"{shown!r} is no length; allowed: a number above 0, or a list of one for each axis")
    return tuple(float(part) for part in parts) if isinstance(value, list | tuple) else float(value)


def _period(value: Any) -> Any:
    """Extents by axis: a list of all, or a mapping of those that close on themselves."""
    if isinstance(value, dict):
        if not value or not set(value) <= set("xyz") or not all(_number(part) for part in value.values()):
            raise ValueError(
                f"{value!r} are no extents; allowed: {{x: 100}}, with axes x, y, z and numbers above 0"
            )
        return {axis: float(part) for axis, part in value.items()}
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 3 or not all(map(_number, value)):
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(
            f"{shown!r} is no extent; allowed: a list of numbers above 0, or a mapping such as {{x: 100}}"
        )
    return tuple(float(part) for part in value)


def _pairs(value: Any) -> Any:
    return tuple(_tuple(part) for part in value) if isinstance(value, list) else value


Lengths = Annotated[
    float | tuple[float, ...], BeforeValidator(_lengths, json_schema_input_type=Positive | list[Positive])
]
Period = Annotated[
    tuple[float, ...] | dict[str, float],
    BeforeValidator(_period, json_schema_input_type=list[Positive] | dict[Literal["x", "y", "z"], Positive]),
]
Point = tuple[Annotated[float, Field(ge=0)], Probability]


class Rule(Model):
    """A connection rule's parameters."""

    recurrent_only: ClassVar[bool] = False
    """Whether source and target must be the same population."""
    equal_sizes: ClassVar[bool] = False
    """Whether source and target must have equally many neurons."""

    @classmethod
    def keys(cls) -> dict[str, FieldInfo]:
        return {"rule": FieldInfo(annotation=str), **super().keys()}


class AllToAll(Rule):
    """Every source neuron to every target neuron."""

    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""


class OneToOne(Rule):
    """Neuron i to neuron i; both populations have the same size."""

    equal_sizes: ClassVar[bool] = True


class FixedIndegree(Rule):
    """Every target neuron gets exactly `indegree` synapses from sources drawn at random."""

    indegree: Count
    """Synapses that arrive at each target neuron."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""
    allow_multapses: bool = True
    """Whether a pair of neurons may be joined by more than one synapse."""


class FixedOutdegree(Rule):
    """Every source neuron makes exactly `outdegree` synapses onto targets drawn at random."""

    outdegree: Count
    """Synapses that leave each source neuron."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""
    allow_multapses: bool = True
    """Whether a pair of neurons may be joined by more than one synapse."""


class FixedTotalNumber(Rule):
    """Exactly `N` synapses between sources and targets drawn at random."""

    N: Count
    """Synapses of the whole projection."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""
    allow_multapses: bool = True
    """Whether a pair of neurons may be joined by more than one synapse."""


class PairwiseBernoulli(Rule):
    """Every pair is joined with probability `p`, independently."""

    p: Probability
    """Probability of a synapse for each pair."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""


class PairwisePoisson(Rule):
    """Every pair gets a Poisson number of synapses with mean `pairwise_avg_num_conns`."""

    pairwise_avg_num_conns: Annotated[float, Field(ge=0, le=1000)]
    """Mean number of synapses of each pair."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""


class SymmetricPairwiseBernoulli(Rule):
    """Every pair of neurons of one population is joined with probability `p`, in both directions at once."""

    recurrent_only: ClassVar[bool] = True

    p: Probability
    """Probability that a pair is joined."""
    make_symmetric: Literal[True] = True
    """Both directions are made together; only true is possible."""
    allow_autapses: Literal[False] = False
    """Only false is possible."""


class DistanceDependent(Rule):
    """Every pair is joined with a probability that falls with the distance d of the two neurons' positions.

    gaussian: p exp(-d^2 / (2 length^2)); exponential: p exp(-d / length); linear: p max(0, 1 - d / length);
    constant: p where d <= length, else 0; difference_of_gaussians: p max(0, exp(-d^2 / (2 length^2)) - surround
    exp(-d^2 / (2 surround_length^2))); table: p times the line through `points`, 0 beyond the last. Beyond
    `cutoff` the probability is 0. With `indegree` every target gets exactly so many synapses, from sources drawn
    with chances in proportion to the kernel.
    """

    kernel: Literal["gaussian", "exponential", "linear", "constant", "difference_of_gaussians", "table"] = (
        "gaussian"
    )
    """How the probability falls with distance."""
    p: Probability | None = None
    """Probability at distance 0, or what the kernel is multiplied by; 1 unless given. Not with `indegree`."""
    length: Lengths | None = None
    """Length scale, in the units of the positions; one number, or one for each axis. Not of `table`."""
    surround_length: Lengths | None = None
    """Length scale of the Gaussian that `difference_of_gaussians` takes away."""
    surround: Probability | None = None
    """Share of the Gaussian that `difference_of_gaussians` takes away."""
    points: Annotated[tuple[Point, ...], BeforeValidator(_pairs), Field(min_length=1)] | None = None
    """Pairs [distance, probability] of `table`, distances growing; between them the probability is a line."""
    axes: (
        Annotated[
            tuple[Literal["x", "y", "z"], ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)
        ]
        | None
    ) = None
    """Axes along which distance is measured, such as `[x, y]` for horizontal distance; all unless given."""
    cutoff: Positive | None = None
    """Distance beyond which no synapse is made, in the units of the positions."""
    periodic: Period | None = None
    """Extent of a space that closes on itself: one number per axis, or a mapping of those axes that do."""
    indegree: Count | None = None
    """Synapses that arrive at each target neuron, in place of a probability for each pair."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""
    allow_multapses: bool | None = None
    """With `indegree`: whether a pair may be joined by more than one synapse; false unless given."""


class SmallWorld(Rule):
    """Watts and Strogatz's ring: neurons joined to their `k` nearest, edges rewired with probability `p`."""

    recurrent_only: ClassVar[bool] = True

    k: Annotated[int, Field(ge=2, le=MAX_INT)]
    """Neighbours of each neuron on the ring (an odd number counts as the even one below)."""
    p: Probability
    """Probability that a synapse is rewired."""


class ScaleFree(Rule):
    """A directed scale-free graph (Bollobas et al. 2003), as networkx grows it; alpha + beta + gamma = 1."""

    recurrent_only: ClassVar[bool] = True

    alpha: Probability = 0.41
    """Probability of a new neuron that projects to an old one, chosen by in-degree."""
    beta: Probability = 0.54
    """Probability of a synapse between old neurons."""
    gamma: Probability = 0.05
    """Probability of a new neuron that an old one, chosen by out-degree, projects to."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""


class Networkx(Rule):
    """Any graph generator of networkx, by name, with its own arguments; source and target have the same size.

    The number of nodes `n` is the population's size; `seed` comes from the projection's own stream.
    """

    equal_sizes: ClassVar[bool] = True

    generator: str
    """Name of the generator (`random_regular_graph`); its arguments stand beside it."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """The generator's arguments."""
    allow_autapses: bool = True
    """Whether a neuron may connect to itself."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        arguments = {key: value for key, value in data.items() if key not in cls.model_fields}
        given = data.get("arguments", {})
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        return {**known, "arguments": {**given, **arguments}} if isinstance(given, dict) else data


class Convolution(Rule):
    """Shared weights slid over the source's shape [channels, height, width]."""

    kernel: Pair
    """Height and width of the window (one number for a square)."""
    stride: Pair = (1, 1)
    """Steps of the window."""
    padding: Padding = (0, 0)
    """Zeros put around the source."""


class Pool(Rule):
    """The mean over windows of the source's shape [channels, height, width], channel by channel."""

    kernel: Pair
    """Height and width of the window (one number for a square)."""
    stride: Pair
    """Steps of the window; the window's own size unless given."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "stride": data["kernel"]} if "stride" not in data and "kernel" in data else data


class Transpose(Rule):
    """The synapses of another projection, turned round."""

    of: str
    """The projection that is turned round; its source is this one's target."""


class Explicit(Rule):
    """Every synapse from a file: CSV, npz, GraphML or SONATA edges; neurons by index or by name."""

    file: str
    """The file of edges; CSV columns `source,target` (or `pre,post`) and optionally `weight`."""
    population: str | None = None
    """Which edge population of a SONATA file; needed only where it holds more than one."""
    where: dict[str, str | int | float | list[str | int | float]] = Field(default_factory=dict)
    """Keep only the rows whose columns have these values, such as `{type: chemical}`; a list allows several."""
    skip_unknown: bool = False
    """Leave out edges of neurons that the two populations don't have, instead of refusing them."""


RULES: dict[str, type[Rule]] = {
    "all_to_all": AllToAll,
    "one_to_one": OneToOne,
    "fixed_indegree": FixedIndegree,
    "fixed_outdegree": FixedOutdegree,
    "fixed_total_number": FixedTotalNumber,
    "pairwise_bernoulli": PairwiseBernoulli,
    "pairwise_poisson": PairwisePoisson,
    "symmetric_pairwise_bernoulli": SymmetricPairwiseBernoulli,
    "distance_dependent": DistanceDependent,
    "small_world": SmallWorld,
    "scale_free": ScaleFree,
    "networkx": Networkx,
    "convolution": Convolution,
    "pool": Pool,
    "transpose": Transpose,
    "explicit": Explicit,
}

INITS: dict[str, dict[str, float | None]] = {
    "torch_linear": {"gain": 1.0},
    "xavier_uniform": {"gain": 1.0},
    "xavier_normal": {"gain": 1.0},
    "kaiming_uniform": {"gain": 2**0.5},
    "kaiming_normal": {"gain": 2**0.5},
    "normal": {"mean": 0.0, "std": None},
    "uniform": {"low": None, "high": None},
    "lognormal": {"mean": 0.0, "std": 1.0},
    "constant": {"value": None},
    "zeros": {},
    "transpose": {},
    "file": {},
}
"""The numbers each initialisation takes and their defaults; None where the default hangs on the graph
(1/sqrt(fan_in)), and for `value`, which must be given."""
