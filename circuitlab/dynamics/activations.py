"""Activation functions sigma, their slopes sigma' and bends sigma'', elementwise, without autograd.

A function with a kink at zero (relu, leaky_relu) has a slope that jumps from `low` to `high` there. A neuron may rest
exactly on its kink under control; the equations then ask for a slope somewhere in [low, high].

A population's gain and threshold make sigma(phi) = activation(gain (phi - threshold)): slopes grow by the gain, bends
by its square, and a kink is at the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.compile import loops


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Args:
        rate: sigma(phi), written into `out`.
        slope_into: sigma'(phi) from phi and the rate, written into `out`.
        bend: sigma''(phi) from phi and the rate.
        kink: slopes below and above a kink at the threshold, or None for a smooth function.
        gain, threshold: of sigma(phi) = activation(gain (phi - threshold)).
    """

    name: str
    rate: Callable[[Tensor, Tensor], Tensor]
    slope_into: Callable[[Tensor, Tensor, Tensor], Tensor]
    bend: Callable[[Tensor, Tensor], Tensor]
    kink: tuple[float, float] | None = None
    gain: float = 1.0
    threshold: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether gain and threshold change nothing."""
        return self.gain == 1 and self.threshold == 0

    def above(self, phi: Tensor) -> Tensor:
        """How far potentials are above the threshold, exactly zero on it; phi itself where the threshold is zero."""
        return phi if self.threshold == 0 else phi - self.threshold

    def slope(self, phi: Tensor, rate: Tensor) -> Tensor:
        """sigma'(phi), the shape of phi."""
        return self.slope_into(phi, rate, torch.empty_like(phi))


LEAK = 0.01
"""Slope of leaky_relu below zero (torch's default)."""


def _flat(phi: Tensor, rate: Tensor) -> Tensor:
    return torch.zeros_like(phi)


def _compiled(*tensors: Tensor) -> bool:
    """Whether the compiled tanh takes these tensors."""
    first = tensors[0]
    return loops.usable(first) and first.dtype == torch.float32 and all(t.is_contiguous() for t in tensors)


def _tanh(phi: Tensor, out: Tensor) -> Tensor:
    if _compiled(phi, out):
        loops.call("tanh", phi, phi.numel(), phi.data_ptr(), 0, 0, out.data_ptr())
        return out
    return torch.tanh(phi, out=out)


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "tanh",
            rate=_tanh,
            slope_into=lambda phi, rate, out: torch.mul(rate, rate, out=out).neg_().add_(1),
            bend=lambda phi, rate: -2 * rate * (1 - rate * rate),
        ),
        Activation(
            "sigmoid",
            rate=lambda phi, out: torch.sigmoid(phi, out=out),
            slope_into=lambda phi, rate, out: torch.sub(rate, torch.mul(rate, rate, out=out), out=out),
            bend=lambda phi, rate: rate * (1 - rate) * (1 - 2 * rate),
        ),
        Activation(
            "softplus",
            rate=lambda phi, out: torch.ops.aten.softplus.out(
                phi, 1, 50, out=out
            ),  # beyond 50 it is the identity
            slope_into=lambda phi, rate, out: torch.sigmoid(phi, out=out),
            bend=lambda phi, rate: torch.sigmoid(phi) * torch.sigmoid(-phi),
        ),
        Activation(
            "elu",
            rate=lambda phi, out: torch.ops.aten.elu.out(phi, out=out),
            slope_into=lambda phi, rate, out: torch.add(rate, 1, out=out).clamp_(max=1),
            bend=lambda phi, rate: torch.where(phi > 0, torch.zeros_like(phi), rate + 1),
        ),
        Activation(
            "linear",
            rate=lambda phi, out: out.copy_(phi),
            slope_into=lambda phi, rate, out: out.fill_(1),
            bend=_flat,
        ),
        Activation(
            "relu",
            rate=lambda phi, out: torch.clamp(phi, min=0, out=out),
            slope_into=lambda phi, rate, out: torch.gt(phi, 0, out=out),
            bend=_flat,
            kink=(0.0, 1.0),
        ),
        Activation(
            "leaky_relu",
            rate=lambda phi, out: torch.ops.aten.leaky_relu.out(phi, LEAK, out=out),
            slope_into=lambda phi, rate, out: torch.gt(phi, 0, out=out).mul_(1 - LEAK).add_(LEAK),
            bend=_flat,
            kink=(LEAK, 1.0),
        ),
    )
}


def with_gain(activation: Activation, gain: float, threshold: float) -> Activation:
    """activation(gain (phi - threshold)); the activation itself where that changes nothing."""
    if gain == 1 and threshold == 0:
        return activation

    def scaled(phi: Tensor, out: Tensor) -> Tensor:
        return torch.sub(phi, threshold, out=out).mul_(gain)

    kink = activation.kink
    return Activation(
        activation.name,
        rate=lambda phi, out: activation.rate(scaled(phi, out), out),
        slope_into=lambda phi, rate, out: activation.slope_into(scaled(phi, out), rate, out).mul_(gain),
        bend=lambda phi, rate: gain**2 * activation.bend(scaled(phi, torch.empty_like(phi)), rate),
        kink=None if kink is None else (gain * kink[0], gain * kink[1]),
        gain=gain,
        threshold=threshold,
    )


def rate_of_sum(activation: Activation, a: Tensor, b: Tensor, potential: Tensor, rate: Tensor) -> None:
    """potential = a + b and rate = sigma(potential), written in place; all [unit, sample]."""
    if activation.name == "tanh" and activation.plain and _compiled(a, b, potential, rate):
        pointers = (tensor.data_ptr() for tensor in (a, b, potential, rate))
        loops.call("tanh", a, a.numel(), *pointers)
        return
    activation.rate(torch.add(a, b, out=potential), rate)


def at_kink(kink: tuple[float, float], raw: Tensor, prediction: Tensor) -> Tensor:
    """Where control holds a neuron exactly on its kink: its potential would be above it with the control that the
    slope below gives, and below it with the one that the slope above gives.

    Args:
        raw, prediction: [unit, sample]: S psi, and W sigma(phi) + U x + b from the threshold on.
    """
    low, high = kink
    return (raw < 0) & (prediction + low * raw > 0) & (prediction + high * raw < 0)


def kinked_control(kink: tuple[float, float], phi: Tensor, raw: Tensor, prediction: Tensor) -> Tensor:
    """The control psi = g raw with g the slope at the neuron's own potential phi = prediction + psi, solved per neuron.

    For negative feedback `raw` the solution is unique: psi = -prediction clamped to [high raw, low raw] (the resolvent
    of a monotone map; on the kink phi is exactly zero). For positive feedback both slopes can be consistent; the side
    on which the neuron is now decides.

    Args:
        phi, raw, prediction: [unit, sample]: potential from the threshold on, S psi, and W sigma(phi) + U x + b from
            the threshold on.
    """
    low, high = kink
    unique = torch.minimum(torch.maximum(-prediction, high * raw), low * raw)
    above = (prediction + low * raw > 0) | ((phi > 0) & (prediction + high * raw > 0))
    return torch.where(raw < 0, unique, torch.where(above, high * raw, low * raw))


def kink_distance(kink: tuple[float, float], phi: Tensor, raw: Tensor, psi: Tensor) -> Tensor:
    """Signed distance of the control from what the equations allow: psi in [low, high] raw where phi, which counts
    from the threshold on, is exactly zero, psi = sigma'(phi) raw elsewhere."""
    low, high = kink
    least, most = torch.minimum(low * raw, high * raw), torch.maximum(low * raw, high * raw)
    slope = torch.where(phi > 0, torch.full_like(phi, high), low)
    inside = torch.minimum(torch.maximum(psi, least), most)
    return torch.where(phi == 0, inside, slope * raw) - psi
