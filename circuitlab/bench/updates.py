"""How far two states of a circuit differ in the update they make, sample by sample, without big outer products."""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.compile.compiled import Link
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Fields


def outer_difference(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """|a b^T - c d^T|^2 (Frobenius) of every sample, [sample], for a, c [post, sample] and b, d [pre, sample].

    Equal to |a|^2 |b|^2 + |c|^2 |d|^2 - 2 (a.c)(b.d), written with a - c and b - d so that nothing cancels where the
    two products are nearly equal: |a - c|^2 |b|^2 + |c|^2 |b - d|^2 + 2 ((a - c).c)(b.(b - d)).
    """
    post, pre = a - c, b - d
    squares = post.square().sum(0) * b.square().sum(0) + c.square().sum(0) * pre.square().sum(0)
    return (squares + 2 * (post * c).sum(0) * (b * pre).sum(0)).clamp(min=0)


@torch.no_grad()
def update_errors(system: CircuitSystem, found: Fields, true: Fields, x: Tensor) -> tuple[Tensor, Tensor]:
    """Norm of the difference of each sample's update from the true one, and the norm of that, each [sample].

    The update is psi sigma(phi)^T, psi x^T and psi, of every plastic projection and bias [eq. 12, 116, 117].

    Args:
        system: in double precision.
        found, true: states of the same samples; phi and psi are taken in double precision.
        x: [input unit, sample].
    """
    psi, psi_true, x = found.psi.double(), true.psi.double(), x.double()
    rate, rate_true = system.rates(found.phi.double()), system.rates(true.phi.double())
    compiled = system.compiled
    difference = torch.zeros(psi.shape[1], dtype=torch.float64)
    size = torch.zeros_like(difference)
    for links, pre, pre_true in ((compiled.feedforward, x, x), (compiled.recurrent, rate, rate_true)):
        for link in links:
            if link.projection.plastic:
                parts = (psi[link.target], pre[link.source], psi_true[link.target], pre_true[link.source])
                squares = _full if _complete(link) else _on_synapses
                apart, whole = squares(link, *parts)
                difference += apart
                size += whole
    for name, bias in compiled.biases.items():
        if bias.requires_grad:
            rows = compiled.units[name]
            difference += (psi[rows] - psi_true[rows]).square().sum(0)
            size += psi_true[rows].square().sum(0)
    return difference.sqrt(), size.sqrt()


def _complete(link: Link) -> bool:
    """Whether every pair is a synapse with a weight of its own."""
    edges = link.projection.edges
    pairs = (link.source.stop - link.source.start) * (link.target.stop - link.target.start)
    return len(edges) == pairs and edges.parameter_index is None


def _full(link: Link, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    return outer_difference(a, b, c, d), c.square().sum(0) * d.square().sum(0)


def _on_synapses(link: Link, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Only what exists counts: products of each sample at the circuit's synapses, one sample at a time."""
    apart, whole = [], []
    for k in range(a.shape[1]):
        one = slice(k, k + 1)
        true = link.kernel.outer(c[:, one], d[:, one]).clone()
        apart.append((link.kernel.outer(a[:, one], b[:, one]) - true).square().sum())
        whole.append(true.square().sum())
    return torch.stack(apart), torch.stack(whole)
