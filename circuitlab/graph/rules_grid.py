"""Convolution and pooling as edges between populations that form images of shape [channel, height, width]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses
from circuitlab.graph.rule import Parameters, Rule, need, option

Shape = tuple[int, ...]


def convolution(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Every output unit from its window in all input channels, weights shared in torch's conv2d order.

    y[o, r, c] = sum over i, u, v of weight[o, i, u, v] x[i, r stride + u - padding, c stride + v - padding]

    A cross-correlation, as in torch; what falls into the padding is zero and makes no edge.
    """
    geometry = _geometry(source, target, parameters)
    (channels, height, width), (out_channels, *_) = geometry["in_shape"], geometry["out_shape"]
    ky, kx = geometry["kernel"]
    here, there, tap = _windows(geometry)
    outputs, inputs = np.arange(out_channels)[:, None, None], np.arange(channels)[None, :, None]
    area = geometry["out_shape"][1] * geometry["out_shape"][2]
    shape = (out_channels, channels, here.size)
    return Synapses(
        source=np.broadcast_to(inputs * (height * width) + here, shape).astype(np.int32).ravel(),
        target=np.broadcast_to(outputs * area + there, shape).astype(np.int32).ravel(),
        parameter_index=((outputs * channels + inputs) * (ky * kx) + tap).astype(np.int64).ravel(),
        parameter_shape=(out_channels, channels, ky, kx),
        geometry=geometry,
    )


def pool(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """The mean of each window, channel by channel: weights 1 / (height * width of the window)."""
    geometry = _geometry(
        source, target, {**parameters, "stride": option(parameters, "stride", parameters.get("kernel"))}
    )
    (channels, height, width), (out_channels, *out) = geometry["in_shape"], geometry["out_shape"]
    if channels != out_channels:
        raise CircuitError(
            f"pool keeps the channels, but '{source.name}' has {channels} and '{target.name}' {out_channels}"
        )
    here, there, _ = _windows(geometry)
    channel = np.arange(channels)[:, None]
    sources = (channel * (height * width) + here).astype(np.int32).ravel()
    targets = (channel * (out[0] * out[1]) + there).astype(np.int32).ravel()
    ky, kx = geometry["kernel"]
    return Synapses(sources, targets, weight=np.full(sources.size, 1 / (ky * kx)), geometry=geometry)


def _windows(geometry: dict[str, Shape]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Input pixel, output pixel and window position of every edge of one pair of channels, flat indices."""
    (_, height, width), (_, out_y, out_x) = geometry["in_shape"], geometry["out_shape"]
    (ky, kx), (stride_y, stride_x), (pad_y, pad_x) = (
        geometry["kernel"],
        geometry["stride"],
        geometry["padding"],
    )
    row = (np.arange(out_y) * stride_y - pad_y)[:, None, None, None] + np.arange(ky)[None, None, :, None]
    column = (np.arange(out_x) * stride_x - pad_x)[None, :, None, None] + np.arange(kx)[None, None, None, :]
    inside = ((row >= 0) & (row < height)) & ((column >= 0) & (column < width))
    y, x, u, v = np.nonzero(inside)
    return row[y, 0, u, 0] * width + column[0, x, 0, v], y * out_x + x, u * kx + v


def _geometry(source: Population, target: Population, parameters: Parameters) -> dict[str, Shape]:
    """Shapes of input and output, from the populations' shapes and the window.

    Raises:
        CircuitError: they do not fit.
    """
    in_shape = _image(option(parameters, "in_shape", source.shape), source)
    kernel, stride = (
        _pair(need(parameters, "kernel"), "kernel"),
        _pair(option(parameters, "stride", 1), "stride"),
    )
    padding = _pair(option(parameters, "padding", 0), "padding", at_least=0)
    out = tuple(
        (n + 2 * q - k) // s + 1 for n, k, s, q in zip(in_shape[1:], kernel, stride, padding, strict=True)
    )
    if min(out) < 1:
        raise CircuitError(
            f"the kernel {list(kernel)} is larger than the image of '{source.name}', {list(in_shape[1:])} "
            f"with padding {list(padding)}"
        )
    channels = target.size // (out[0] * out[1])
    found = None if target.shape is None else _image(target.shape, target)
    if channels * out[0] * out[1] != target.size or (found is not None and found != (channels, *out)):
        shape = f"{target.size} units" if found is None else f"the shape {list(found)}"
        raise CircuitError(
            f"the window makes images of {out[0]} x {out[1]} from '{source.name}' {list(in_shape)}, "
            f"but '{target.name}' has {shape}"
        )
    return {
        "in_shape": in_shape,
        "out_shape": (channels, *out),
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
    }


def _image(shape: Shape | None, population: Population) -> tuple[int, int, int]:
    """A shape [channel, height, width]; one channel where there are two numbers."""
    if shape is None or len(shape) not in (2, 3):
        found = "none" if shape is None else str(list(shape))
        raise CircuitError(f"'{population.name}' needs a shape [channels, height, width]; it has {found}")
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    if channels * height * width != population.size:
        raise CircuitError(
            f"the shape {list(shape)} is not {population.size} units, the size of '{population.name}'"
        )
    return int(channels), int(height), int(width)


def _pair(value: int | Shape, name: str, at_least: int = 1) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < at_least:
        raise CircuitError(f"{name} is {value}; it is one or two whole numbers, at least {at_least}")
    return int(pair[0]), int(pair[1])


def _expected(source: Population, target: Population, parameters: Parameters, same_channel: bool) -> float:
    """Window size times input channels for each output unit (padding counted as if it were image)."""
    ky, kx = _pair(need(parameters, "kernel"), "kernel")
    channels = 1 if same_channel else _image(option(parameters, "in_shape", source.shape), source)[0]
    return target.size * ky * kx * channels


RULES = {
    "convolution": Rule(convolution, lambda s, t, q: _expected(s, t, q, same_channel=False)),
    "pool": Rule(pool, lambda s, t, q: _expected(s, t, q, same_channel=True)),
}
