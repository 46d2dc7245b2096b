"""What a torch module must be to have an equilibrium for every sample: shapes that fit, a function of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from circuitlab.errors import CircuitError

SAMPLES = 3
"""Samples on which modules are tried out."""
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""How far, relative to the largest number, answers for a sample alone and in a batch may lie apart."""


def check(model: nn.Module, state_shape: tuple[int, ...], input_shape: tuple[int, ...]) -> tuple[Any, int]:
    """Refuse modules that do not fit together; the shape of one sample's encoding, and the number of output units.

    Args:
        model: a TorchModel.
        state_shape, input_shape: of one sample.

    Raises:
        CircuitError: what is wrong, in one line.
    """
    _check_parts(model)
    for name, shape in (("state_shape", state_shape), ("input_shape", input_shape)):
        if not shape or any(not isinstance(n, int) or n < 1 for n in shape):
            raise CircuitError(f"{name}: {shape} is no shape of one sample; allowed: numbers of at least 1")
    model.eval()
    first = next(model.parameters())
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator, dtype=first.dtype).to(first.device)

    x, phi = draw(*input_shape), draw(*state_shape)
    with torch.no_grad():
        e = _tried("encoder", lambda: encoding_of(model, x))
        image, y = _tried("implicit module or decoder", lambda: model("predict", phi, e))
        for who, value in (("encoder", e), ("implicit", image), ("decoder", y)):
            _check_value(who, value, first)
        if image.shape != phi.shape:
            raise CircuitError(
                f"implicit: gives {tuple(image.shape[1:])} for a state of {state_shape}; allowed: the state's own shape"
            )
        if y.ndim != 2:
            raise CircuitError(
                f"decoder: gives {tuple(y.shape[1:])} per sample; allowed: one row of output units "
                "(end it with Flatten or a Linear)"
            )
        again = model("predict", phi, e)
        _same("implicit", image, again[0], first.dtype, "gives another answer for the same state each time")
        _same("decoder", y, again[1], first.dtype, "gives another answer for the same state each time")
        for one in range(SAMPLES):
            own = slice(one, one + 1)
            alone_e = encoding_of(model, x[own])
            alone = model("predict", phi[own], e[own])
            for who, whole, part in (
                ("encoder", e, alone_e),
                ("implicit", image, alone[0]),
                ("decoder", y, alone[1]),
            ):
                _same(who, whole[own], part, first.dtype, "mixes the samples of a batch, which must be apart")
    return tuple(e.shape[1:]), y.shape[1]


def encoding_of(model: nn.Module, x: Tensor) -> Tensor:
    """g(x), [sample, ...]."""
    return model("encode", x)


def _check_parts(model: nn.Module) -> None:
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise CircuitError("module: no parameter requires a gradient, so nothing can learn")
    kinds = {(p.dtype, p.device) for p in parameters}
    dtype = parameters[0].dtype
    if len(kinds) > 1 or dtype not in CLOSE:
        raise CircuitError(
            "module: its parameters must be all float32 or all float64, and on one device; found "
            + ", ".join(sorted(f"{d} on {place}" for d, place in kinds))
        )
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and not part.track_running_stats:
            raise CircuitError(
                f"{name}: normalises by the statistics of each batch, which mixes samples; allowed: "
                "track_running_stats=True, GroupNorm, LayerNorm"
            )
        if isinstance(part, _BatchNorm) and name.startswith("implicit"):
            raise CircuitError(
                f"{name}: batch normalisation within the implicit module mixes the equilibria of a batch; allowed "
                "there: GroupNorm, LayerNorm, InstanceNorm"
            )
        if isinstance(part, _DropoutNd) and part.p > 0:
            raise CircuitError(f"{name}: dropout is no one function with an equilibrium; allowed: p=0")


def _tried(who: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CircuitError(f"{who}: cannot be evaluated on {SAMPLES} random samples: {reason}") from error


def _check_value(who: str, value: Any, like: Tensor) -> None:
    if not isinstance(value, Tensor) or value.ndim < 1 or value.shape[0] != SAMPLES:
        raise CircuitError(f"{who}: must give a tensor [sample, ...]; found {_described(value)}")
    if value.dtype != like.dtype:
        raise CircuitError(f"{who}: gives {value.dtype}, but its parameters are {like.dtype}")
    if not bool(torch.isfinite(value).all()):
        raise CircuitError(f"{who}: gives numbers that are not finite for a random state")


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _same(who: str, one: Tensor, other: Tensor, dtype: torch.dtype, problem: str) -> None:
    scale = 1.0 + float(one.abs().max()) if one.numel() else 1.0
    if one.shape != other.shape or float((one - other).abs().max()) > CLOSE[dtype] * scale:
        raise CircuitError(f"{who}: {problem}")
