"""From a circuit file to a circuit: every population and projection drawn from its own random stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Noise, Population, Projection
from circuitlab.graph.edges import LARGE, Edges, FloatArray, Synapses, coalesce
from circuitlab.graph.formats import read_edges, read_weights
from circuitlab.graph.junctions import agreed, check_junctions
from circuitlab.graph.memory import refuse_too_large
from circuitlab.graph.neurons import (
    grid_positions,
    hold_to_layer,
    read_attributes,
    read_bias,
    read_names,
    read_positions,
    shifted,
    with_depth,
)
from circuitlab.graph.rules import draw, expected_edges, transposed
from circuitlab.graph.streams import stream
from circuitlab.graph.weights import RANDOM_WEIGHTS, check_weights, initial_bias, of_rank, random_weights
from circuitlab.spec.circuit import CircuitSpec, PopulationSpec, ProjectionSpec, WeightsSpec
from circuitlab.spec.layers import LayerSpec


def build(spec: CircuitSpec, seed: int = 0) -> Circuit:
    """Draw a circuit's neurons, edges and initial weights.

    Each draw has its own stream, from the seed and the name of the population or projection: adding a
    projection or reordering the file changes no other's edges or weights.

    Args:
        spec: a loaded circuit file.
        seed: used where the file has none.

    Raises:
        CircuitError: a rule cannot be satisfied, Dale's law is broken, or the circuit does not fit into
            memory.
        FormatError: a file of edges, weights, names or positions is damaged.
    """
    try:
        return _build(spec, seed if spec.seed is None else spec.seed)
    except CircuitError as error:
        raise CircuitError(spec.located(str(error))) from error


def _build(spec: CircuitSpec, seed: int) -> Circuit:
    populations = {}
    for name, population in spec.populations.items():
        with _located(f"populations.{name}"):
            layer = None if population.layer is None else spec.layers[population.layer]
            populations[name] = _population(name, population, seed, spec.folder, layer)
    order = _order(spec)
    files = {
        name: _edge_file(projection, populations, spec.folder)
        for name, projection in spec.projections.items()
        if projection.connect.rule == "explicit"
    }
    refuse_too_large(_expected(spec, order, populations, files))
    built: dict[str, Projection] = {}
    for name in order:
        with _located(f"projections.{name}"):
            built[name] = _projection(name, spec, populations, built, files, seed)
    return Circuit(
        spec.circuit, spec.description, seed, populations, {name: built[name] for name in spec.projections}
    )


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Let an error in here say which population or projection it is about."""
    try:
        yield
    except CircuitError as error:
        raise CircuitError(f"{where}: {error}") from error


def _population(
    name: str, spec: PopulationSpec, seed: int, folder: Path, layer: LayerSpec | None
) -> Population:
    names = None
    if spec.names is not None:
        names = read_names(folder / spec.names.file, spec.size) if spec.names.file else spec.names.values
    bias = None
    if spec.bias is not None and spec.type != "input":
        if spec.bias.init == "file":
            bias = read_bias(folder / str(spec.bias.file), spec.size, names)
        else:
            bias = initial_bias(stream(seed, "bias", name), spec.size, spec.bias)
    return Population(
        name=name,
        type=spec.type,
        size=spec.size,
        shape=spec.shape,
        activation=spec.activation,
        tau_ms=spec.tau_ms,
        sign=spec.sign,
        controlled=spec.controlled and spec.type != "input",
        bias=bias,
        bias_plastic=spec.bias is not None and spec.bias.plastic,
        names=names,
        positions=_positions(name, spec, seed, folder, names, layer),
        layer=spec.layer,
        attributes=read_attributes(folder / spec.attributes.file, spec.size, names)
        if spec.attributes
        else {},
        gain=spec.gain,
        threshold=spec.threshold,
        noise=Noise(spec.noise.std, spec.noise.tau_ms) if spec.noise is not None else None,
    )


def _positions(
    name: str,
    spec: PopulationSpec,
    seed: int,
    folder: Path,
    names: tuple[str, ...] | None,
    layer: LayerSpec | None,
) -> FloatArray | None:
    """Positions [unit, dimension] with their origin, in their layer."""
    positions = spec.positions
    if positions is None:
        return None
    places = shifted(_places(name, spec, seed, folder, names), positions.origin)
    if layer is None:
        return places
    if positions.random is not None:
        return with_depth(places, stream(seed, "depth", name), layer)
    hold_to_layer(places, layer, str(spec.layer), names)
    return places


def _places(
    name: str, spec: PopulationSpec, seed: int, folder: Path, names: tuple[str, ...] | None
) -> FloatArray:
    """Positions [unit, dimension]: listed, from a file, on a grid, or uniform in a box."""
    positions = spec.positions
    assert positions is not None
    if positions.file is not None:
        return read_positions(folder / positions.file, spec.size, names)
    if positions.grid is not None:
        return grid_positions(positions.grid, positions.spacing, spec.size)
    if positions.random is not None:
        extent = np.asarray(positions.random.extent, dtype=np.float64)
        return stream(seed, "positions", name).random((spec.size, extent.size)) * extent
    points = positions.values or ()
    if len(points) != spec.size or len({len(point) for point in points}) > 1:
        raise CircuitError(
            f"positions: {len(points)} points for {spec.size} units, each with the same dimensions"
        )
    return np.array(points, dtype=np.float64)


def _order(spec: CircuitSpec) -> list[str]:
    """Projections in file order, but each transpose after the one it mirrors."""
    order: list[str] = []
    for name in spec.projections:
        chain = [name]
        while chain[-1] not in order and spec.projections[chain[-1]].connect.rule == "transpose":
            of = spec.projections[chain[-1]].connect.parameters["of"]
            if of not in spec.projections:
                raise CircuitError(f"projections.{chain[-1]}: no projection '{of}' to transpose")
            if of in chain:
                raise CircuitError(
                    f"projections.{name}: its transposes go in a circle: {' of '.join([*chain, of])}"
                )
            chain.append(of)
        order += [link for link in reversed(chain) if link not in order]
    return order


def _edge_file(spec: ProjectionSpec, populations: Mapping[str, Population], folder: Path) -> Synapses:
    parameters = spec.connect.parameters
    return read_edges(
        folder / parameters["file"],
        populations[spec.source],
        populations[spec.target],
        parameters.get("where"),
        bool(parameters.get("skip_unknown")),
        parameters.get("population"),
    )


def _expected(
    spec: CircuitSpec, order: list[str], populations: Mapping[str, Population], files: Mapping[str, Synapses]
) -> dict[str, tuple[str, float]]:
    """Rule and expected number of synapses of every projection."""
    expected: dict[str, tuple[str, float]] = {}
    for name in order:
        projection = spec.projections[name]
        rule, parameters = projection.connect.rule, projection.connect.parameters
        if rule == "transpose":
            count = expected[parameters["of"]][1]
        elif rule == "explicit":
            count = len(files[name])
        else:
            with _located(f"projections.{name}"):
                count = expected_edges(
                    rule, populations[projection.source], populations[projection.target], parameters
                )
        expected[name] = rule, count
    return expected


def _projection(
    name: str,
    spec: CircuitSpec,
    populations: Mapping[str, Population],
    built: Mapping[str, Projection],
    files: Mapping[str, Synapses],
    seed: int,
) -> Projection:
    projection = spec.projections[name]
    source, target = populations[projection.source], populations[projection.target]
    rule, parameters = projection.connect.rule, projection.connect.parameters
    if rule == "transpose":
        mirrored = built[parameters["of"]]
        if (mirrored.source, mirrored.target) != (projection.target, projection.source):
            raise CircuitError(
                f"transpose of '{mirrored.name}' goes from '{mirrored.target}' to '{mirrored.source}', "
                f"not from '{projection.source}' to '{projection.target}'"
            )
        synapses = transposed(mirrored.edges)
    elif rule == "explicit":
        synapses = files[name]
    else:
        synapses = draw(rule, stream(seed, "edges", name), source, target, parameters)
    junctions = projection.kind == "electrical"
    sender = replace(source, sign="excitatory") if junctions else source  # conductances know no Dale's law
    edges = _edges(name, rule, projection.weights, synapses, sender, target, spec.folder, seed)
    if junctions and source is target and _drawn(projection.weights):
        edges = agreed(edges)
    if projection.rank is not None:
        edges = replace(edges, weight=of_rank(edges.weight, target.size, source.size, projection.rank))
    made = Projection(
        name=name,
        source=projection.source,
        target=projection.target,
        site=projection.site,
        carries=projection.carries,
        plastic=projection.plastic,
        kernel=projection.kernel,
        edges=edges,
        geometry=synapses.geometry,
        rank=projection.rank,
        kind=projection.kind,
        delay_ms=projection.delay_ms,
    )
    if junctions:
        check_junctions(made, source, target)
    return made


def _drawn(weights: WeightsSpec) -> bool:
    """Whether weights are not written down anywhere."""
    return weights.init in RANDOM_WEIGHTS or weights.init == "constant"


def _edges(
    name: str,
    rule: str,
    weights: WeightsSpec,
    synapses: Synapses,
    source: Population,
    target: Population,
    folder: Path,
    seed: int,
) -> Edges:
    """Unique edges with initial weights: drawn, given with the edges, constant, or from a file."""
    shared = synapses.parameter_index is not None
    given = synapses.parameters if shared else synapses.weight
    size = int(np.prod(synapses.parameter_shape)) if synapses.parameter_shape is not None else len(synapses)
    own = weights.init == "transpose" or (weights.init == "file" and weights.file is None)
    dtype = np.float32 if len(synapses) >= LARGE and not shared else np.float64
    values = np.zeros(size, dtype=dtype)
    if weights.init == "transpose" and rule != "transpose":
        raise CircuitError(
            "weights.init: transpose copies another projection's weights; it needs {rule: transpose, of: ..}"
        )
    if given is not None and (own or (rule == "pool" and weights.init == "torch_linear")):
        values = given * weights.scale
    elif weights.init == "constant":
        values = np.full(size, float(weights.value or 0.0) * weights.scale, dtype=dtype)
        if synapses.multiplicity is not None and not shared:
            values *= synapses.multiplicity
    elif weights.init in RANDOM_WEIGHTS or own:
        drawn = (
            weights if weights.init in RANDOM_WEIGHTS else weights.model_copy(update={"init": "torch_linear"})
        )
        count = None if shared else synapses.multiplicity
        total = size if count is None else int(count.sum())
        values = random_weights(stream(seed, "weights", name), synapses, total, drawn, source.sign, dtype)
        if count is not None and size:
            values = np.add.reduceat(values, np.cumsum(count) - count)
    edges = coalesce(
        synapses.source,
        synapses.target,
        values[synapses.parameter_index] if synapses.parameter_index is not None else values,
        synapses.multiplicity,
        synapses.attributes,
        synapses.parameter_index,
        values if shared else None,
    )
    if weights.init == "file" and weights.file is not None:
        read = read_weights(folder / weights.file, edges, source, target) * weights.scale
        if edges.parameter_index is not None:
            edges = replace(edges, weight=read[edges.parameter_index], parameters=read)
        else:
            edges = replace(edges, weight=read)
    check_weights(source, target, edges, edges.weight)
    return edges
