"""Interneurons that track pyramidal cells, one per unit, and what a cell and its interneuron send together.

    delta = W_I sigma(phi) + U_I x + b_I                                                            [supplement S6.4.1]
    e = (sigma(phi) - sigma(delta)) / max(sigma'(phi), sigma'(delta))

delta foresees what the cell's own synapses predict, W sigma(phi) + U x + b, so that phi - delta is the cell's control
psi where tracking is exact. The two send their rates to apical sites with opposite signs; divided by their gain, what
is left is psi to first order, and psi itself where rates are linear.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from circuitlab.compile.compiled import Link
from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.dynamics.activations import LEAK, Activation
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.graph.streams import stream


class Interneurons:
    """A copy of every unit's incoming rate-coded synapses and bias, with weights of its own.

    Args:
        system: the circuit.
        copied: start as exact copies; else uniform in +-1/sqrt(mean indegree), drawn from each projection's own
            stream with the sign that Dale's law gives it, and biases of zero.
        seed: of the random weights.
    """

    def __init__(self, system: CircuitSystem, copied: bool = True, seed: int = 0) -> None:
        compiled = system.compiled
        self.system, self.compiled = system, compiled
        self.links: list[tuple[Link, Kernel]] = [
            (link, self._kernel(link, copied, seed)) for link in (*compiled.feedforward, *compiled.recurrent)
        ]
        self.biases = {
            name: nn.Parameter(bias.detach().clone() if copied else torch.zeros_like(bias))
            for name, bias in compiled.biases.items()
        }
        self.twins = {id(link.kernel): kernel for link, kernel in self.links}

    def _kernel(self, link: Link, copied: bool, seed: int) -> Kernel:
        targets, sources = link.target.stop - link.target.start, link.source.stop - link.source.start
        kernel = compile_kernel(link.projection, (targets, sources), self.compiled.dtype)
        kernel = kernel.to(self.compiled.device).requires_grad_(True)
        values = kernel.values.detach()
        if copied:
            values.copy_(link.kernel.values.detach())
            return kernel
        draw = stream(seed, "interneurons", link.projection.name)
        bound = max(len(link.projection.edges.source) / targets, 1.0) ** -0.5
        drawn = draw.uniform(-bound, bound, len(values))
        sign = self.compiled.sign[link.projection.name]
        values.copy_(torch.as_tensor(np.abs(drawn) * sign if sign else drawn))
        return kernel

    @torch.no_grad()
    def drive(self, x: Tensor) -> Tensor:
        """U_I x + b_I, [unit, sample]."""
        out = torch.zeros(self.compiled.size, x.shape[1], dtype=x.dtype, device=x.device)
        for name, bias in self.biases.items():
            out[self.compiled.units[name]] += bias.detach().unsqueeze(1)
        for link, kernel in self.links[: len(self.compiled.feedforward)]:
            kernel.add_product(x[link.source], out[link.target])
        return out

    @torch.no_grad()
    def potentials(self, drive: Tensor, rate: Tensor) -> Tensor:
        """delta from U_I x + b_I and the cells' rates, [unit, sample]."""
        out = drive.clone()
        for link, kernel in self.links[len(self.compiled.feedforward) :]:
            kernel.add_product(rate[link.source], out[link.target])
        return out

    def sent(self, delta: Tensor, error: Tensor) -> Tensor:
        """e of cells at phi = delta + error, all [unit, sample]."""
        out = torch.empty_like(delta)
        for rows, activation in self.system.activations:
            out[rows] = sent(activation, delta[rows], error[rows])
        return out

    def parameters(self) -> dict[str, nn.Parameter]:
        """All of their weights by name, `I/<projection>` and `I/<population>_bias`."""
        biases = {f"I/{name}_bias": value for name, value in self.biases.items()}
        return {f"I/{link.projection.name}": kernel.values for link, kernel in self.links} | biases

    def weights(self) -> dict[str, Tensor]:
        """The same, each projection's [edge]."""
        biases = {f"I/{name}_bias": value.detach() for name, value in self.biases.items()}
        return {f"I/{link.projection.name}": kernel.edge_values for link, kernel in self.links} | biases

    def hold_signs(self) -> None:
        """Clamp every weight to the sign of its source population (Dale's law)."""
        for link, kernel in self.links:
            sign = self.compiled.sign[link.projection.name]
            if sign:
                kernel.values.detach().clamp_(**({"min": 0} if sign > 0 else {"max": 0}))


def sent(activation: Activation, delta: Tensor, error: Tensor) -> Tensor:
    """e of cells of one population at phi = delta + error, all [unit, sample]: with a gain g, potentials from the
    threshold on count g times, and e, which is divided by slopes, g times less."""
    send = SENT[activation.name]
    if activation.plain:
        return send(delta, error)
    gain = activation.gain
    return send(gain * activation.above(delta), gain * error) / gain


def _linear(delta: Tensor, error: Tensor) -> Tensor:
    return error


def _tanh(delta: Tensor, error: Tensor) -> Tensor:
    """sinh(phi - delta) min(cosh phi / cosh delta, cosh delta / cosh phi): no digit is lost near saturation."""
    return torch.sinh(error) * torch.exp(-(_log_cosh(delta + error) - _log_cosh(delta)).abs())


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x, up to log 2."""
    return x.abs() + torch.log1p(torch.exp(-2 * x.abs()))


def _softplus(delta: Tensor, error: Tensor) -> Tensor:
    gain = torch.sigmoid(torch.maximum(delta, delta + error))
    return torch.sign(error) * -torch.log1p(gain * torch.expm1(-error.abs())) / gain


def _elu(delta: Tensor, error: Tensor) -> Tensor:
    phi = delta + error
    below = torch.sign(error) * -torch.expm1(-error.abs())
    across = (
        phi.clamp(min=0)
        + torch.expm1(phi.clamp(max=0))
        - delta.clamp(min=0)
        - torch.expm1(delta.clamp(max=0))
    )
    return _by_side(phi, delta, error, below, across)


def _relu(delta: Tensor, error: Tensor) -> Tensor:
    phi = delta + error
    return _by_side(phi, delta, error, torch.zeros_like(error), phi.clamp(min=0) - delta.clamp(min=0))


def _leaky_relu(delta: Tensor, error: Tensor) -> Tensor:
    phi = delta + error
    across = torch.where(phi > 0, phi - LEAK * delta, LEAK * phi - delta)
    return _by_side(phi, delta, error, error, across)


def _by_side(phi: Tensor, delta: Tensor, above: Tensor, below: Tensor, across: Tensor) -> Tensor:
    """What is sent where both are above zero, both are not, or each is on its own side."""
    return torch.where((phi > 0) != (delta > 0), across, torch.where(phi > 0, above, below))


SENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": _linear,
    "tanh": _tanh,
    "sigmoid": lambda delta, error: 2 * _tanh(delta / 2, error / 2),
    "softplus": _softplus,
    "elu": _elu,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
}
"""(sigma(delta + error) - sigma(delta)) over the larger slope of the two, by activation; 0 where both slopes are 0."""
