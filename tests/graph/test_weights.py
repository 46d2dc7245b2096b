"""Initial weights: distributions against theory, fans of the graph itself, Dale's law."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses
from circuitlab.graph.weights import RANDOM_WEIGHTS, check_weights, fans, initial_bias, random_weights

P_VALUE = 1e-3


def settings(init: str, **given: Any) -> Any:
    default = {
        "scale": 1.0,
        "gain": None,
        "mean": None,
        "std": None,
        "low": None,
        "high": None,
        "value": None,
    }
    return SimpleNamespace(init=init, **{**default, **given})


def bundle(sources: int, targets: int) -> Synapses:
    """All to all: fan-in `sources`, fan-out `targets`."""
    return Synapses(np.tile(np.arange(sources), targets), np.repeat(np.arange(targets), sources))


def uniform(bound: float) -> Any:
    return stats.uniform(-bound, 2 * bound)


# Fan-in 50 and fan-out 30: Glorot's, He's and torch's formulas by hand.
LAWS: dict[str, tuple[dict[str, float], Any]] = {
    "xavier_uniform": ({}, uniform(np.sqrt(6 / 80))),
    "xavier_normal": ({"gain": 2.0}, stats.norm(0, 2 * np.sqrt(2 / 80))),
    "kaiming_uniform": ({}, uniform(np.sqrt(6 / 50))),
    "kaiming_normal": ({}, stats.norm(0, np.sqrt(2 / 50))),
    "torch_linear": ({}, uniform(1 / np.sqrt(50))),
    "normal": ({"mean": 1.0, "std": 0.5}, stats.norm(1.0, 0.5)),
    "uniform": ({"low": -1.0, "high": 3.0}, stats.uniform(-1, 4)),
    "lognormal": ({"mean": -1.0, "std": 0.4}, stats.lognorm(0.4, scale=np.exp(-1))),
}


def test_every_initialisation_has_its_law_below() -> None:
    assert LAWS.keys() == RANDOM_WEIGHTS.keys()


@pytest.mark.parametrize("init", sorted(LAWS))
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_weights_follow_their_law(init: str, scale: float) -> None:
    given, law = LAWS[init]
    weights = settings(init, scale=scale, **given)
    drawn = random_weights(np.random.default_rng(0), bundle(50, 30), 20_000, weights, None)
    assert stats.kstest(drawn / scale, law.cdf).pvalue > P_VALUE


@pytest.mark.parametrize("init", sorted(LAWS))
@pytest.mark.parametrize(("sign", "factor"), [("excitatory", 1), ("inhibitory", -1)])
def test_under_dale_s_law_weights_are_the_absolute_value_times_the_sign(
    init: str, sign: str, factor: int
) -> None:
    weights = settings(init, **LAWS[init][0])
    plain = random_weights(np.random.default_rng(3), bundle(5, 4), 500, weights, None)
    signed = random_weights(np.random.default_rng(3), bundle(5, 4), 500, weights, sign)
    assert np.array_equal(signed, factor * np.abs(plain))


def test_fans_are_mean_degrees_of_the_neurons_that_have_any() -> None:
    # Target 0 gets three synapses, target 4 one, others none; sources 0, 1, 2 send 2, 1, 1.
    synapses = Synapses(np.array([0, 1, 2, 0]), np.array([0, 0, 0, 4]))
    assert fans(synapses) == (2.0, pytest.approx(4 / 3))
    assert fans(Synapses(np.empty(0, dtype=int), np.empty(0, dtype=int))) == (1.0, 1.0)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"weights\.low is 2, above weights\.high, 1"):
        random_weights(
            np.random.default_rng(0), bundle(2, 2), 4, settings("uniform", low=2.0, high=1.0), None
        )
    with pytest.raises(CircuitError, match=r"weights\.std is -1; a standard deviation is at least 0"):
        random_weights(np.random.default_rng(0), bundle(2, 2), 4, settings("normal", std=-1.0), None)


@pytest.mark.parametrize(
    ("sign", "weights", "message"),
    [
        (
            "excitatory",
            [0.0, -0.25],
            "Dale's law: the weight of l4/b -> l23/1 is -0.25, "
            "but 'l4' is excitatory; its weights are at least 0",
        ),
        (
            "inhibitory",
            [0.5, -0.25],
            "Dale's law: the weight of l4/a -> l23/0 is 0.5, "
            "but 'l4' is inhibitory; its weights are at most 0",
        ),
        (None, [0.5, np.nan], "the weight of l4/b -> l23/1 is nan; weights are finite numbers"),
        ("excitatory", [-np.inf, 1.0], "the weight of l4/a -> l23/0 is -inf; weights are finite numbers"),
    ],
)
def test_given_weights_are_checked(sign: str | None, weights: list[float], message: str) -> None:
    source, target = (
        Population("l4", "pyramidal", 2, sign=sign, names=("a", "b")),
        Population("l23", "unit", 2),
    )
    synapses = Synapses(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(CircuitError) as refusal:
        check_weights(source, target, synapses, np.array(weights))
    assert str(refusal.value) == message


def test_zero_is_allowed_under_either_sign() -> None:
    for sign in ("excitatory", "inhibitory"):
        check_weights(
            Population("a", "unit", 1, sign=sign), Population("b", "unit", 1), bundle(1, 1), np.zeros(1)
        )


def test_biases() -> None:
    def drawn(init: str, value: float | None = None, scale: float | None = None) -> np.ndarray:
        bias = SimpleNamespace(init=init, value=value, scale=scale)
        return initial_bias(np.random.default_rng(0), 5000, bias)

    assert np.array_equal(drawn("zeros"), np.zeros(5000))
    assert np.array_equal(drawn("constant", value=-0.5), np.full(5000, -0.5))
    assert stats.kstest(drawn("uniform", scale=0.2), uniform(0.2).cdf).pvalue > P_VALUE
    assert stats.kstest(drawn("normal", scale=0.3), stats.norm(0, 0.3).cdf).pvalue > P_VALUE
