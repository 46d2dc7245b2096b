"""A convolutional deep equilibrium model on digits, trained by least control or by recurrent backpropagation.

    python experiments/deq_digits.py --rule least_control
    python experiments/deq_digits.py --rule recurrent_backprop

The implicit module is f = -phi + norm(a(phi + norm(e + c2(norm(a(c1(phi))))))) (the least-control paper, eq. 152), with
group normalisation and a softplus a; the encoder is a convolution, the decoder pools and reads out. Encoder and decoder
normalise by batch (its running statistics).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn

import circuitlab
from circuitlab.data.datasets import load
from circuitlab.experiment.module import History, samples, task, trainer
from circuitlab.learn.least_control import LeastControl
from circuitlab.solve.choose import SolveSettings
from circuitlab.spec.settings import DataSpec


class Block(nn.Module):
    """The implicit module."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.c1, self.c2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.n1, self.n2, self.n3 = (nn.GroupNorm(channels // 4, channels) for _ in range(3))
        self.a = activation
        for convolution in (self.c1, self.c2):
            nn.init.normal_(convolution.weight, 0, 0.01)
        nn.init.constant_(self.n3.weight, 0.5)  # a contraction to begin with

    def forward(self, phi: Tensor, e: Tensor) -> Tensor:
        inner = self.n1(self.a(self.c1(phi)))
        return -phi + self.n3(self.a(phi + self.n2(e + self.c2(inner))))


ACTIVATIONS = {"softplus": nn.Softplus, "relu": nn.ReLU, "tanh": nn.Tanh}


def model(channels: int, activation: str, decoder_in: str) -> circuitlab.module:
    """Encoder, implicit module and decoder on 8 x 8 pixels."""
    encoder = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    decoder = nn.Sequential(
        nn.BatchNorm2d(channels), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * channels, 10)
    )
    return circuitlab.module(
        Block(channels, ACTIVATIONS[activation]()),
        decoder,
        encoder,
        state_shape=(channels, 8, 8),
        input_shape=(1, 8, 8),
        form="flow",
        decoder_in=decoder_in,
    )


def main() -> None:
    """Train and print every epoch."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rule", default="least_control", choices=["least_control", "recurrent_backprop"])
    options.add_argument("--presynaptic", default="free", choices=["controlled", "free"])
    options.add_argument("--decoder-in", default="state", choices=["state", "loss"])
    options.add_argument("--activation", default="softplus", choices=list(ACTIVATIONS))
    options.add_argument("--alpha", type=float, default=6.4)
    options.add_argument("--channels", type=int, default=8)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--lr", type=float, default=3e-3)
    options.add_argument("--limit", type=int, default=None)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    torch.manual_seed(given.seed)
    system = model(given.channels, given.activation, given.decoder_in)
    data = DataSpec(name="digits", validation=0.1, limit=given.limit)
    digits = load(data, None, generator=np.random.default_rng(given.seed))
    splits = {
        name: samples(system, part.arrays["image"], part.arrays["label"])
        for name, part in (("train", digits.train), ("validation", digits.validation), ("test", digits.test))
    }
    history = History(echo=True)
    rule = given.rule if given.rule != "least_control" else LeastControl(presynaptic=given.presynaptic)
    begun = time.perf_counter()
    trainer(
        task(system, control=given.alpha, solve=SolveSettings(tolerance=1e-4, max_iterations=100)),
        splits,
        rule=rule,
        lr=given.lr,
        scheduler="cosine",
        clip=10.0,
        epochs=given.epochs,
        seed=given.seed,
        observers=(history,),
    ).run()
    last = history.epochs[-1]
    print(
        f"{given.rule}, decoder in {given.decoder_in}: test accuracy {100 * last['test_accuracy']:.1f} %, "
        f"{time.perf_counter() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
