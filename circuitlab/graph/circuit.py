"""The circuit as a graph: populations of neurons and projections of edges, to and from networkx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

import networkx as nx
from numpy.typing import NDArray

from circuitlab.errors import CircuitError
from circuitlab.graph.edges import Edges, FloatArray, same_array, same_arrays


@dataclass(frozen=True)
class Noise:
    """An Ornstein-Uhlenbeck current into every soma of a population, in real-time simulation.

    Args:
        std: standard deviation at rest, dimensionless as potentials are.
        tau_ms: correlation time in milliseconds.
    """

    std: float
    tau_ms: float


@dataclass(frozen=True, eq=False)
class Population:
    """A population of neurons of one type.

    Args:
        name, type: `type` is input, unit, pyramidal, interneuron or output.
        size, shape: number of neurons; `shape` such as (1, 8, 8) where they form an image, its product is the
            size.
        activation: name of the nonlinearity from soma to rate.
        gain, threshold: rate = activation(gain (soma - threshold)), both dimensionless.
        tau_ms: time constant in milliseconds.
        sign: Dale's law, excitatory, inhibitory or None.
        controlled: whether the neurons have a control.
        bias: initial bias, dimensionless, shape [unit]; None where there is none. bias_plastic: whether it
            learns.
        names: name of each neuron, or None. positions: [unit, dimension], in the user's length unit, or None.
        layer: name of the layer they lie in, or None.
        attributes: further properties of the neurons, each of shape [unit].
        noise: current into the somata in real-time simulation, or None; equilibria have none.
    """

    name: str
    type: str
    size: int
    shape: tuple[int, ...] | None = None
    activation: str = "tanh"
    tau_ms: float = 10.0
    sign: str | None = None
    controlled: bool = True
    bias: FloatArray | None = None
    bias_plastic: bool = True
    names: tuple[str, ...] | None = None
    positions: FloatArray | None = None
    attributes: Mapping[str, NDArray] = field(default_factory=dict)
    gain: float = 1.0
    threshold: float = 0.0
    noise: Noise | None = None
    layer: str | None = None

    def label(self, index: int) -> str:
        """How messages call one neuron: `l4/3`, or `l4/AVAL` where neurons have names."""
        return f"{self.name}/{self.names[index] if self.names else index}"

    def equals(self, other: Population) -> bool:
        """Whether every property agrees, arrays exactly."""
        arrays = ("bias", "positions")
        plain = [f.name for f in fields(self) if f.name not in (*arrays, "attributes")]
        return (
            all(getattr(self, name) == getattr(other, name) for name in plain)
            and all(same_array(getattr(self, name), getattr(other, name)) for name in arrays)
            and same_arrays(self.attributes, other.attributes)
        )


@dataclass(frozen=True, eq=False)
class Projection:
    """The synapses from one population to one site of another.

    Args:
        source, target: names of populations.
        site: soma, basal or apical. carries: rate or burst. plastic: whether the weights learn.
        kernel: auto, dense, csr, diagonal, convolution, low_rank or torch_sparse: how the product is computed.
        edges: the synapses.
        geometry: of a convolution or pooling: in_shape, out_shape, kernel, stride, padding; else None.
        rank: of the weights where they are a product of two thin factors, which learn in their place; else None.
        kind: chemical, or electrical: gap junctions between two populations or within one. Their weights are
            conductances of at least zero; the current into neuron i is the sum of g_ij (phi_j - phi_i), in both
            directions. Edges list each pair once, or in both directions with one conductance.
        delay_ms: conduction delay in milliseconds, in real-time simulation only; equilibria do not depend on it.
    """

    name: str
    source: str
    target: str
    site: str
    carries: str
    plastic: bool
    kernel: str
    edges: Edges
    geometry: dict[str, tuple[int, ...]] | None = None
    rank: int | None = None
    kind: str = "chemical"
    delay_ms: float = 0.0

    def equals(self, other: Projection) -> bool:
        """Whether every property and every edge agrees."""
        plain = [f.name for f in fields(self) if f.name != "edges"]
        return all(getattr(self, name) == getattr(other, name) for name in plain) and self.edges.equals(
            other.edges
        )


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit at the level of neurons and edges, populations and projections in the order of the file."""

    name: str
    description: str
    seed: int
    populations: Mapping[str, Population]
    projections: Mapping[str, Projection]

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input populations, in file order."""
        return tuple(name for name, population in self.populations.items() if population.type == "input")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output populations, in file order."""
        return tuple(name for name, population in self.populations.items() if population.type == "output")

    @cached_property
    def units(self) -> tuple[str, ...]:
        """Names of the populations that are not inputs, in file order."""
        return tuple(name for name, population in self.populations.items() if population.type != "input")

    @property
    def synapses(self) -> int:
        """Number of edges, parallel synapses counted once."""
        return sum(len(projection.edges) for projection in self.projections.values())

    def density(self, projection: str) -> float:
        """Share of the pairs of neurons that the projection connects, between 0 and 1."""
        p = self.projections[projection]
        return len(p.edges) / (self.populations[p.source].size * self.populations[p.target].size)

    def equals(self, other: Circuit) -> bool:
        """Whether both have the same populations and projections in the same order, arrays equal exactly."""
        return (
            (self.name, self.description, self.seed) == (other.name, other.description, other.seed)
            and list(self.populations) == list(other.populations)
            and list(self.projections) == list(other.projections)
            and all(p.equals(other.populations[name]) for name, p in self.populations.items())
            and all(p.equals(other.projections[name]) for name, p in self.projections.items())
        )

    @cached_property
    def _rate_graph(self) -> nx.DiGraph:
        """Populations connected by the projections that carry rates, those of f; gap junctions connect both ways."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.populations)
        for projection in self.projections.values():
            if projection.carries == "rate" and len(projection.edges):
                graph.add_edge(projection.source, projection.target)
                if projection.kind == "electrical":
                    graph.add_edge(projection.target, projection.source)
        return graph

    def strongly_connected(self) -> list[tuple[str, ...]]:
        """The recurrent groups: populations that reach each other, or themselves, by rate-coded projections
        and gap junctions.

        Each group and the list are in file order; a feedforward circuit has none.
        """
        graph, rank = self._rate_graph, {name: i for i, name in enumerate(self.populations)}
        groups = [
            tuple(sorted(group, key=rank.__getitem__))
            for group in nx.strongly_connected_components(graph)
            if len(group) > 1 or any(graph.has_edge(name, name) for name in group)
        ]
        return sorted(groups, key=lambda group: rank[group[0]])

    def sweep_order(self) -> tuple[str, ...]:
        """Every population after those it receives rates from, except within a recurrent group: file order there."""
        rank = {name: i for i, name in enumerate(self.populations)}
        groups = nx.condensation(self._rate_graph)
        members = {node: sorted(names, key=rank.__getitem__) for node, names in groups.nodes(data="members")}
        order = nx.lexicographical_topological_sort(groups, key=lambda node: rank[members[node][0]])
        return tuple(name for node in order for name in members[node])

    @property
    def is_acyclic(self) -> bool:
        """Whether rates flow forward only: no recurrent group."""
        return not self.strongly_connected()

    def topological_order(self) -> tuple[str, ...]:
        """Every population after those it receives rates from, else in file order.

        Raises:
            CircuitError: the circuit is recurrent.
        """
        if groups := self.strongly_connected():
            raise CircuitError(
                f"circuit '{self.name}' is recurrent ({', '.join(groups[0])}): "
                "its populations have no topological order"
            )
        rank = {name: i for i, name in enumerate(self.populations)}
        return tuple(nx.lexicographical_topological_sort(self._rate_graph, key=rank.__getitem__))

    def to_networkx(self) -> nx.MultiDiGraph:
        """The circuit as a networkx graph: one node a neuron, one edge a unique pair of each projection.

        Nodes are called `population/index` and have population, index, type, name, position and further
        attributes; the key of an edge is its projection's name, its attributes are weight, multiplicity,
        site, carries, plastic, and kind and delay_ms where it is electrical or has a delay. What belongs to a
        population, a projection or the circuit is in `graph.graph`.
        """
        from circuitlab.graph.exchange import to_networkx

        return to_networkx(self)

    @classmethod
    def from_networkx(cls, graph: nx.Graph) -> Circuit:
        """A circuit from `to_networkx`, or from any graph whose nodes say their `population` and its `type`.

        Raises:
            CircuitError: a node or an edge lacks what a circuit needs.
        """
        from circuitlab.graph.exchange import from_networkx

        return from_networkx(graph)
