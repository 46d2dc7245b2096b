"""A circuit as SONATA nodes and edges in the run file, readable by SONATA's own libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record.storage import as_array, link_name, set_attributes, store

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit, Population, Projection

LARGE = 1_000_000
"""Edges from which a projection is compressed; SONATA's readers take uncompressed datasets only."""

_OWN_FIELDS = ("bias", "name", "x", "y", "z", "syn_weight", "multiplicity", "parameter_index")


def _put(
    group: h5py.Group, name: str, array: np.ndarray, units: str, description: str, compress: bool = False
) -> None:
    store(group, name, array, {"units": units, "description": description}, compress=compress)


def _put_attributes(
    group: h5py.Group, owner: str, axis: str, columns: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    for name, values in columns.items():
        if name in _OWN_FIELDS:
            raise RunFileError(
                f"{owner}: attribute '{name}' has a name that the run file itself uses; rename the column"
            )
        array = as_array(values, f"{owner}: attribute '{name}'")
        _put(
            group,
            link_name(name),
            array,
            "none",
            f"[{axis}] {name}, a further attribute of the circuit file",
            compress,
        )


def _write_nodes(group: h5py.Group, population: Population, type_id: int) -> None:
    ids = np.arange(population.size, dtype=np.int64)
    _put(group, "node_id", ids, "dimensionless", "[unit] index of the neuron within its population")
    _put(
        group,
        "node_type_id",
        np.full_like(ids, type_id),
        "dimensionless",
        "[unit] type of the neuron: its population's place",
    )
    _put(
        group,
        "node_group_id",
        np.zeros_like(ids),
        "dimensionless",
        "[unit] group that holds the neuron's attributes, always 0",
    )
    _put(group, "node_group_index", ids, "dimensionless", "[unit] row of the neuron in group 0")
    inner = group.create_group("0")
    if population.bias is not None:
        _put(inner, "bias", np.asarray(population.bias), "dimensionless", "[unit] bias before training")
    if population.names is not None:
        _put(
            inner, "name", np.array(list(population.names), dtype=object), "none", "[unit] the neuron's name"
        )
    if population.positions is not None:
        for axis, column in zip("xyz", np.asarray(population.positions, dtype=np.float64).T, strict=False):
            _put(
                inner,
                axis,
                np.ascontiguousarray(column),
                "unit of length of the circuit file",
                f"[unit] position along {axis}",
            )
    _put_attributes(inner, f"populations.{population.name}", "unit", population.attributes)
    attributes: dict[str, Any] = {
        "type": population.type,
        "size": population.size,
        "activation": population.activation,
        "gain": population.gain,
        "threshold": population.threshold,
        "tau_ms": population.tau_ms,
        "sign": population.sign or "",
        "controlled": bool(population.controlled),
        "bias_plastic": bool(population.bias_plastic),
    }
    if population.noise is not None:
        attributes |= {"noise_std": population.noise.std, "noise_tau_ms": population.noise.tau_ms}
    if population.layer is not None:
        attributes["layer"] = population.layer
    if population.shape is not None:
        attributes["shape"] = np.array(population.shape, dtype=np.int64)
    set_attributes(group, attributes)


def _write_edges(group: h5py.Group, projection: Projection, type_id: int) -> None:
    edges = projection.edges
    count = len(edges.source)
    large = count > LARGE
    ids = np.arange(count, dtype=np.int64)

    def put(where: h5py.Group, name: str, array: np.ndarray, description: str) -> None:
        _put(where, name, array, "dimensionless", description, compress=large)

    put(
        group,
        "source_node_id",
        edges.source.astype(np.int64),
        "[edge] index of the sending neuron; edges are sorted by target, then source",
    )
    put(group, "target_node_id", edges.target.astype(np.int64), "[edge] index of the receiving neuron")
    set_attributes(group["source_node_id"], {"node_population": projection.source})  # type: ignore[arg-type]
    set_attributes(group["target_node_id"], {"node_population": projection.target})  # type: ignore[arg-type]
    put(
        group,
        "edge_type_id",
        np.full_like(ids, type_id),
        "[edge] type of the synapse: its projection's place",
    )
    put(
        group,
        "edge_group_id",
        np.zeros_like(ids),
        "[edge] group that holds the synapse's attributes, always 0",
    )
    put(group, "edge_group_index", ids, "[edge] row of the synapse in group 0")
    inner = group.create_group("0")
    put(
        inner,
        "syn_weight",
        np.asarray(edges.weight),
        "[edge] conductance before training, relative to the leak; of the pair, in both directions"
        if projection.kind == "electrical"
        else "[edge] weight before training, parallel synapses summed",
    )
    put(
        inner,
        "multiplicity",
        np.asarray(edges.multiplicity, dtype=np.int64),
        "[edge] number of parallel synapses the edge stands for",
    )
    if edges.parameter_index is not None:
        put(
            inner,
            "parameter_index",
            np.asarray(edges.parameter_index),
            "[edge] which shared weight the edge uses",
        )
    _put_attributes(inner, f"projections.{projection.name}", "edge", edges.attributes, large)
    attributes: dict[str, Any] = {
        "source": projection.source,
        "target": projection.target,
        "kind": projection.kind,
        "site": projection.site,
        "carries": projection.carries,
        "plastic": bool(projection.plastic),
        "kernel": projection.kernel,
        "delay_ms": projection.delay_ms,
    }
    if projection.rank is not None:
        attributes["rank"] = projection.rank
    if projection.geometry is not None:
        attributes["geometry"] = json.dumps(projection.geometry, sort_keys=True, default=list)
    set_attributes(group, attributes)


def write_structure(file: h5py.File, circuit: Circuit) -> None:
    """Writes /nodes and /edges.

    Raises:
        RunFileError: an attribute of a population has a name or a type that the file cannot hold.
    """
    nodes = file.create_group("nodes")
    for type_id, population in enumerate(circuit.populations.values()):
        _write_nodes(nodes.create_group(link_name(population.name)), population, type_id)
    edges = file.create_group("edges")
    for type_id, projection in enumerate(circuit.projections.values()):
        _write_edges(edges.create_group(link_name(projection.name)), projection, type_id)
