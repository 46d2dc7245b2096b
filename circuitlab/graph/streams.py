"""Independent random streams: each named draw has its own, so that adding one never changes another."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(seed: int, *names: str) -> np.random.Generator:
    """The random generator of one named draw, such as `stream(0, "edges", "l4_l23")`.

    The seed and the names are hashed with sha256 into the entropy of a numpy SeedSequence (PCG64): equal
    arguments give the same numbers in every process, on every platform and in any order of the file;
    different ones are independent.

    Args:
        seed: the circuit's seed, any integer.
        names: what is drawn, from the general to the particular.
    """
    text = json.dumps([int(seed), *names], ensure_ascii=True)
    entropy = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
