"""Small torch modules in float64: a circuit written as one, a convolutional deep equilibrium model, and differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitlab.control.base import Controlled
from circuitlab.dynamics.module import ModuleSystem
from circuitlab.experiment.module import task as module_task
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.choose import SolveSettings, find
from tests.oracles.dense_twin import Twin

SIGMA = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": F.softplus}


class Recurrent(nn.Module):
    """F = W sigma(phi) + e."""

    def __init__(self, w: Tensor, sigma: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.sigma = nn.Parameter(w), sigma

    def forward(self, phi: Tensor, e: Tensor) -> Tensor:
        return self.sigma(phi) @ self.w.t() + e


class Readout(nn.Module):
    """h = W sigma(phi) + b."""

    def __init__(self, w: Tensor, b: Tensor, sigma: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.b, self.sigma = nn.Parameter(w), nn.Parameter(b), sigma

    def forward(self, phi: Tensor) -> Tensor:
        return self.sigma(phi) @ self.w.t() + self.b


def module_of(circuit: Circuit, activation: str) -> tuple[ModuleSystem, Twin]:
    """A circuit whose outputs are read from hidden units alone, as encoder, implicit module and decoder."""
    twin = Twin(circuit)
    h = twin.n - twin.k
    encoder = nn.Linear(twin.u_in.shape[1], h, dtype=torch.float64)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor(twin.u_in[:h]))
        encoder.bias.copy_(torch.tensor(twin.b[:h]))
    assert not twin.w[:, h:].any() and not twin.u_in[h:].any()
    system = ModuleSystem(
        Recurrent(torch.tensor(twin.w[:h, :h]), SIGMA[activation]),
        Readout(torch.tensor(twin.w[h:, :h]), torch.tensor(twin.b[h:]), SIGMA[activation]),
        encoder,
        state_shape=(h,),
        input_shape=(twin.u_in.shape[1],),
    )
    return system, twin


class Block(nn.Module):
    """-phi + norm(a(phi + norm(e + c2(norm(a(c1(phi)))))))  [eq. 152], or the same without -phi."""

    def __init__(
        self,
        channels: int,
        spread: float = 0.02,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        flow: bool = False,
    ) -> None:
        super().__init__()
        self.c1, self.c2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.n1, self.n2, self.n3 = (nn.GroupNorm(2, channels) for _ in range(3))
        self.activation, self.flow = activation, flow
        for convolution in (self.c1, self.c2):
            nn.init.normal_(convolution.weight, 0, spread)
        nn.init.constant_(self.n3.weight, 0.5)

    def forward(self, phi: Tensor, e: Tensor) -> Tensor:
        inner = self.n1(self.activation(self.c1(phi)))
        image = self.n3(self.activation(phi + self.n2(e + self.c2(inner))))
        return image - phi if self.flow else image


def small_model(
    *,
    decoder_in: str = "state",
    form: str = "fixed_point",
    side: int = 4,
    channels: int = 4,
    outputs: int = 3,
    dtype: torch.dtype = torch.float64,
    batch_norm: bool = False,
    seed: int = 0,
) -> ModuleSystem:
    """A convolutional deep equilibrium model on images of `side` x `side`."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1))
    decoder = nn.Sequential(nn.AvgPool2d(side // 2), nn.Flatten(), nn.Linear(4 * channels, outputs))
    if batch_norm:
        encoder.append(nn.BatchNorm2d(channels))
        decoder.insert(0, nn.BatchNorm2d(channels))
    return ModuleSystem(
        Block(channels, flow=form == "flow").to(dtype),
        decoder.to(dtype),
        encoder.to(dtype),
        state_shape=(channels, side, side),
        input_shape=(1, side, side),
        form=form,
        decoder_in=decoder_in,
    )


def tight(system: ModuleSystem, tolerance: float = 1e-12, **options) -> Task:
    """A task whose equilibria are found to many digits."""
    return module_task(system, solve=SolveSettings(tolerance=tolerance), **options)


def module_batch(system: ModuleSystem, samples: int = 4, seed: int = 0) -> Batch:
    """Normal inputs and one-hot targets."""
    rng = np.random.default_rng(seed)
    k = system.output_size
    target = np.eye(k)[np.arange(samples) % k].T
    x = rng.standard_normal((system.input_size, samples))
    return Batch(torch.tensor(x), torch.tensor(target))


def objective(task: Task, batch: Batch, at: Tensor) -> Callable[[], Tensor]:
    """Sum over samples of H + L/alpha (H alone without a leak) at the equilibria near `at`, as parameters move."""

    def value() -> Tensor:
        drive = task.system.drive(batch.x)
        phi = at[: task.system.size]
        problem = Controlled(task.system, drive, batch.target, task.loss, task.controller, phi)
        found = find(task.pathway.equations(problem), replace(task.settings, method="anderson"), at)
        assert bool(found.converged.all())
        cost = 0.5 * found.fields.psi.square().sum(0)
        alpha = task.controller.alpha
        if alpha:
            cost = cost + task.loss.value(task.outputs(found.fields.phi), batch.target) / alpha
        return cost.sum()

    return value


def differences(
    system: ModuleSystem, function: Callable[[], Tensor], each: int = 1, step: float = 1e-5
) -> dict[str, list[tuple[int, float]]]:
    """Central differences of a function of the parameters, at some entries of each."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, parameter in system.model.plastic().items():
        flat = parameter.detach().view(-1)
        found[name] = []
        for index in range(len(flat) // 3, len(flat), max(1, len(flat) // each)):
            values = []
            for sign in (1, -1):
                before = float(flat[index])
                flat[index] = before + sign * step
                values.append(float(function()))
                flat[index] = before
            found[name].append((index, (values[0] - values[1]) / (2 * step)))
    return found
