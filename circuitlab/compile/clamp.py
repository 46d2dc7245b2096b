"""A compiled circuit whose apical potentials are held at zero in some populations, with the same parameters."""

from __future__ import annotations

import copy
from collections.abc import Collection

from circuitlab.compile.compiled import CompiledCircuit


def clamped(compiled: CompiledCircuit, populations: Collection[str]) -> CompiledCircuit:
    """The circuit with the apical potential of pyramidal populations held at zero.

    Neither rate-coded apical input nor the control reaches their somata: such projections leave the dynamics, psi is
    zero there, and so is the update of every synapse onto them. The neurons send bursts of zero. Kernels, biases
    and the order of populations are those of the circuit itself, so what learns here learns there.

    Args:
        compiled: not changed.
        populations: names of pyramidal populations.
    """
    if not populations:
        return compiled
    view = copy.copy(compiled)
    view._buffers = dict(compiled._buffers)
    view.controlled = compiled.controlled.clone()
    for name in populations:
        view.controlled[compiled.units[name]] = 0
    view.all_controlled = False
    view.held = [
        link
        for link in (*compiled.feedforward, *compiled.recurrent)
        if link.projection.site == "apical" and link.projection.target in populations
    ]
    view.feedforward = [link for link in compiled.feedforward if link not in view.held]
    view.recurrent = [link for link in compiled.recurrent if link not in view.held]
    return view
