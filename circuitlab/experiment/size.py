"""How much a training run will write."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from circuitlab.experiment.assemble import Assembled
from circuitlab.learn.train import Trainer
from circuitlab.record.chunks import CHUNK_BYTES
from circuitlab.record.probes import Probe
from circuitlab.record.space import Size, grown, probe_bytes

OPTIMIZER_STATES = 2
"""Numbers that an optimizer keeps of each parameter (Adam's two moments)."""
STEP_METRICS, EPOCH_METRICS = 4, 24
"""Numbers written at every update, and at every epoch."""
HEADER = 1024
"""Bytes that HDF5 takes for a dataset beside its numbers."""
EDGE_COLUMNS, NODE_COLUMNS = 4, 6
"""Numbers of 8 bytes written of every edge and neuron at the beginning."""


def size_of(assembled: Assembled, trainer: Trainer, probes: Sequence[Probe], steps: int) -> Size:
    """What a run will write, in bytes, before compression: an estimate from above.

    Args:
        steps: updates of the whole run.

    Raises:
        CircuitError: one frame of a probe is too large for the memory.
    """
    spec, compiled, circuit = assembled.spec, assembled.compiled, assembled.circuit
    item = torch.empty(0, dtype=compiled.dtype).element_size()
    epochs, every = spec.learn.epochs, spec.learn.snapshots_every
    own = list(assembled.task.pathway.parameters().values())
    values = [
        len(compiled.links[name].projection.edges)
        if name in compiled.links and compiled.links[name].projection.rank is not None
        else value.numel()
        for name, value in compiled.parameters_by_name().items()
    ]
    values += [value.numel() for value in own]
    kept = sum(value.numel() for value in compiled.state_by_name().values())
    kept += sum(value.numel() for value in own)
    starts = 0
    if trainer.starts is not None:
        starts = sum(v.nbytes for v in trainer.starts.state().values() if isinstance(v, torch.Tensor))
    edges = sum(len(projection.edges) for projection in circuit.projections.values())
    nodes = sum(population.size for population in circuit.populations.values())
    recorded = probe_bytes(probes, steps=steps, epochs=epochs, dtype=spec.dtype)
    snapshots = 1 + -(-epochs // every)
    state = 2 * ((1 + OPTIMIZER_STATES) * kept * item + starts)
    datasets = 40 + 7 * len(circuit.populations) + 10 * len(circuit.projections) + 6 * len(probes)
    structure = 8 * (EDGE_COLUMNS * edges + NODE_COLUMNS * nodes) + HEADER * datasets
    metrics = STEP_METRICS * grown(steps, (), 8) + EPOCH_METRICS * grown(epochs + 1, (), 8)
    first = probe_bytes(probes, steps=1, epochs=1, dtype=spec.dtype)
    begun = sum(max(first[name], min(size, 4 * CHUNK_BYTES)) for name, size in recorded.items())
    return Size(
        recorded,
        weights=sum(grown(snapshots, (count,), item) for count in values),
        state=state,
        metrics=metrics,
        structure=structure,
        early=begun + sum(values) * item + state + structure + metrics,
    )
