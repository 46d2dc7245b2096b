"""Noise: statistics over many neurons beside theory, streams of their own, and strong convergence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from circuitlab.graph.circuit import Noise
from circuitlab.simulation.noise import Source
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.simulation.conftest import simulator, trace

STD, TAU, TAU_NOISE = 0.3, 10.0, 5.0


def noisy(made, **noises: Noise):
    populations = {n: replace(p, noise=noises.get(n)) for n, p in made.populations.items()}
    return replace(made, populations=populations)


def leaky(size: int = 4):
    """Units that nothing reaches but noise."""
    return circuit(
        [population("x", "input", 1, activation="linear"), population("y", "output", size, tau_ms=TAU)],
        [projection("x_y", "x", "y", sparse(np.random.default_rng(0), size, 1, 1.0, 1.0))],
    )


def test_variance_and_autocorrelation_are_those_of_theory() -> None:
    """tau dphi/dt = -phi + eps: 4,000 neurons over five seeds, against the stationary covariance of the discrete system
    (Lyapunov) to four standard errors, and that against the continuous one, std^2 tau_eps / (tau_eps + tau), to 2%."""
    dt, lag, start = 0.5, 16, 200
    keep, stay = np.exp(-dt / TAU_NOISE), np.exp(-dt / TAU)
    step = np.array([[stay, (1 - stay) * STD], [0.0, keep]])
    stationary = solve_discrete_lyapunov(step, np.diag([0.0, 1 - keep**2]))
    variance, shifted = stationary[0, 0], (np.linalg.matrix_power(step, lag) @ stationary)[0, 0]
    assert variance == pytest.approx(STD**2 * TAU_NOISE / (TAU_NOISE + TAU), rel=0.02)
    pairs = []
    for seed in range(5):
        run = simulator(
            noisy(leaky(), y=Noise(STD, TAU_NOISE)),
            np.zeros((1, 200, 1)),
            dt,
            "exponential_euler",
            noise=seed,
        )
        frames = trace(run, start + lag)
        pairs.append((frames[start].ravel(), frames[start + lag].ravel()))
    now, later = (np.concatenate(part) for part in zip(*pairs, strict=True))
    count = len(now)
    assert abs(now.mean()) < 4 * np.sqrt(variance / count)
    assert abs(now.var() - variance) < 4 * variance * np.sqrt(2 / count)
    error = np.sqrt((variance**2 + shifted**2) / count)
    assert abs((now * later).mean() - shifted) < 4 * error
    assert 0.2 < shifted / variance < 0.8


def test_each_population_has_a_stream_of_its_own() -> None:
    made, x = random_circuit(), np.zeros((1, 3, 4))
    e, both = noisy(made, e=Noise(0.2, 5.0)), noisy(made, e=Noise(0.2, 5.0), i=Noise(0.4, 2.0))

    def drawn(which, seed: int) -> dict[str, np.ndarray]:
        run = simulator(which, x, 1.0, noise=seed)
        names = {rows.start: name for name, rows in run.system.compiled.units.items()}
        found: dict[str, list] = {}
        for _ in run.run(5):
            for source in run.noise:
                found.setdefault(names[source.rows.start], []).append(source.process.value.numpy().copy())
        return {name: np.stack(values) for name, values in found.items()}

    one, two = drawn(e, 1), drawn(both, 1)
    assert set(one) == {"e"}
    assert set(two) == {"e", "i"}
    assert (one["e"] == two["e"]).all()
    assert not np.isclose(one["e"], drawn(e, 2)["e"]).any()
    assert not np.isclose(two["e"][:, :4], two["i"]).any()
    every = one["e"].reshape(len(one["e"]), -1)
    assert len(np.unique(every[0])) == every.shape[1]  # neurons and samples have their own


def test_without_noise_nothing_is_drawn() -> None:
    assert not simulator(random_circuit(), np.zeros((1, 1, 4)), 1.0, noise=3).noise


class Path:
    """A process whose values are known."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.number = torch.as_tensor(values), 0

    @property
    def value(self) -> torch.Tensor:
        return self.values[self.number]

    def step(self) -> torch.Tensor:
        self.number += 1
        return self.value


@pytest.mark.parametrize("method", ["euler", "exponential_euler", "rk4"])
def test_strong_convergence_of_first_order(method: str) -> None:
    """On one and the same path of the noise, coarser steps see every so many of its values: halving the step halves the
    root mean square distance from the path's finest solution, whatever the method's order without noise."""
    made, samples, finest, length = random_circuit(), 200, 1 / 64, 16.0
    rng, count = np.random.default_rng(0), round(length * 64) + 1
    keep = np.exp(-finest / TAU_NOISE)
    path = np.empty((count, 14, samples))
    path[0] = rng.standard_normal((14, samples))
    for step in range(1, count):
        path[step] = keep * path[step - 1] + np.sqrt(1 - keep**2) * rng.standard_normal((14, samples))

    def end(every: int, how: str) -> np.ndarray:
        source = Source(slice(0, 14), 0.5, Path(path[::every]))
        run = simulator(made, np.ones((1, samples, 4)), every * finest, how, noise=[source])
        for _ in range((count - 1) // every):
            run.advance()
        return run.fields.phi.numpy()

    exact = end(1, "rk4")
    errors = [np.sqrt(np.square(end(every, method) - exact).mean()) for every in (64, 32, 16)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(rates - 1).max() < 0.25, (errors, rates)
