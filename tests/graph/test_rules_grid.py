"""Convolution and pooling edges against scipy's correlation of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses, coalesce
from circuitlab.graph.rules import draw, expected_edges, transposed

Pair = tuple[int, int]


def image(name: str, *shape: int) -> Population:
    return Population(name, "unit", int(np.prod(shape)), shape=shape)


def drawn(rule: str, source: Population, target: Population, **parameters: Any) -> Synapses:
    return draw(rule, np.random.default_rng(0), source, target, parameters)


def sides(height: int, kernel: int, stride: int, padding: int) -> int:
    return (height + 2 * padding - kernel) // stride + 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(0, 2**32),
)
def test_convolution_is_scipy_s_correlation(
    channels: int, outputs: int, size: Pair, kernel: Pair, stride: Pair, padding: Pair, seed: int
) -> None:
    out = tuple(sides(*args) for args in zip(size, kernel, stride, padding, strict=True))
    assume(min(out) >= 1)
    source, target = image("a", channels, *size), image("b", outputs, *out)
    synapses = drawn("convolution", source, target, kernel=kernel, stride=stride, padding=padding)
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(outputs, channels, *kernel))
    x = generator.normal(size=(channels, *size))
    assert synapses.parameter_shape == weights.shape
    assert synapses.parameter_index is not None

    edges = coalesce(
        synapses.source,
        synapses.target,
        weights.ravel()[synapses.parameter_index],
        parameter_index=synapses.parameter_index,
        parameters=weights.ravel(),
    )
    y = np.zeros(target.size)
    np.add.at(y, edges.target, edges.weight * x.ravel()[edges.source])

    padded = np.pad(x, ((0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    expected = [
        sum(correlate2d(padded[i], weights[o, i], mode="valid") for i in range(channels))
        for o in range(outputs)
    ]
    strided = np.array(expected)[:, :: stride[0], :: stride[1]]
    assert np.allclose(y.reshape(outputs, *out), strided, atol=1e-12)
    assert edges.parameters is not None
    assert edges.parameter_index is not None
    assert np.array_equal(edges.weight, edges.parameters[edges.parameter_index])
    assert edges.multiplicity.max(initial=1) == 1


def test_geometry_is_kept() -> None:
    synapses = drawn(
        "convolution", image("a", 2, 8, 6), image("b", 3, 4, 3), kernel=(3, 3), stride=2, padding=1
    )
    assert synapses.geometry == {
        "in_shape": (2, 8, 6),
        "out_shape": (3, 4, 3),
        "kernel": (3, 3),
        "stride": (2, 2),
        "padding": (1, 1),
    }


def test_channels_follow_from_the_size_and_two_numbers_are_one_channel() -> None:
    target = Population("b", "unit", 2 * 6 * 6)
    synapses = drawn("convolution", image("a", 8, 8), target, kernel=3)
    assert synapses.parameter_shape == (2, 1, 3, 3)


@pytest.mark.parametrize(("kernel", "stride"), [(2, None), ((2, 3), None), (3, 1)])
def test_pool_is_the_mean_of_each_window(kernel: Any, stride: Any) -> None:
    ky, kx = (kernel, kernel) if isinstance(kernel, int) else kernel
    sy, sx = (ky, kx) if stride is None else (stride, stride)
    out = sides(6, ky, sy, 0), sides(6, kx, sx, 0)
    source, target = image("a", 2, 6, 6), image("b", 2, *out)
    synapses = drawn("pool", source, target, kernel=kernel, stride=stride)
    x = np.random.default_rng(0).normal(size=(2, 6, 6))
    y = np.zeros(target.size)
    assert synapses.weight is not None
    np.add.at(y, synapses.target, synapses.weight * x.ravel()[synapses.source])
    windows = np.lib.stride_tricks.sliding_window_view(x, (ky, kx), axis=(1, 2))[:, ::sy, ::sx]
    assert np.allclose(y.reshape(2, *out), windows.mean(axis=(3, 4)))


def test_without_padding_the_expected_edges_are_exact() -> None:
    source, target = image("a", 3, 7, 7), image("b", 4, 3, 3)
    parameters = {"kernel": (3, 3), "stride": (2, 2)}
    assert expected_edges("convolution", source, target, parameters) == len(
        drawn("convolution", source, target, **parameters)
    )
    assert expected_edges("pool", image("a", 2, 6, 6), image("b", 2, 3, 3), {"kernel": 2}) == 72


def test_transposed_convolution_shares_the_same_parameters() -> None:
    source, target = image("a", 2, 5, 5), image("b", 3, 3, 3)
    synapses = drawn("convolution", source, target, kernel=3)
    parameters = np.arange(54.0)
    assert synapses.parameter_index is not None
    edges = coalesce(
        synapses.source,
        synapses.target,
        parameters[synapses.parameter_index],
        parameter_index=synapses.parameter_index,
        parameters=parameters,
    )
    back = transposed(edges)
    there = {(s, t): q for s, t, q in zip(edges.source, edges.target, edges.weight, strict=True)}
    assert back.weight is not None
    assert {(t, s): q for s, t, q in zip(back.source, back.target, back.weight, strict=True)} == there
    assert back.parameters is parameters


@pytest.mark.parametrize(
    ("source", "target", "parameters", "message"),
    [
        (
            Population("a", "unit", 16),
            image("b", 1, 2, 2),
            {"kernel": 3},
            "'a' needs a shape [channels, height, width]; it has none",
        ),
        (
            image("a", 1, 4, 4),
            image("b", 1, 3, 3),
            {"kernel": 3},
            "the window makes images of 2 x 2 from 'a' [1, 4, 4], but 'b' has the shape [1, 3, 3]",
        ),
        (
            image("a", 1, 4, 4),
            Population("b", "unit", 5),
            {"kernel": 3},
            "the window makes images of 2 x 2 from 'a' [1, 4, 4], but 'b' has 5 units",
        ),
        (
            image("a", 1, 4, 4),
            image("b", 1, 1, 1),
            {"kernel": 6},
            "the kernel [6, 6] is larger than the image of 'a', [4, 4] with padding [0, 0]",
        ),
        (
            image("a", 1, 4, 4),
            image("b", 1, 2, 2),
            {"kernel": 0},
            "kernel is 0; it is one or two whole numbers, at least 1",
        ),
        (image("a", 1, 4, 4), image("b", 1, 2, 2), {}, "the parameter 'kernel' is missing"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    source: Population, target: Population, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(CircuitError) as refusal:
        drawn("convolution", source, target, **parameters)
    assert str(refusal.value) == message


def test_pool_keeps_the_channels() -> None:
    with pytest.raises(CircuitError, match="pool keeps the channels, but 'a' has 2 and 'b' 1"):
        drawn("pool", image("a", 2, 4, 4), image("b", 1, 2, 2), kernel=2)
