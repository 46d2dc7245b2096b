"""Peak memory of a process that builds a circuit, and of one training step on it, beyond Python and torch themselves.

    python -m tests.oracles.peak CIRCUIT.yaml RULE BATCH MAX_ITERATIONS [KEY=VALUE ...]

A small circuit is built and trained first, so that every library is loaded and has its workspaces. Peaks are the
kernel's own high-water mark (VmHWM), set back before each part; Linux only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = """
circuit: small
populations:
  x: {type: input, size: 20}
  h: {type: unit, size: 60, activation: tanh}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, connect: {rule: pairwise_bernoulli, p: 0.05}}
  h_y: {source: h, target: y}
"""


def peaks(
    circuit: Path, rule: str, batch: int, *options: str, steps: int = 3, compiled: bool = True
) -> dict[str, float]:
    """Bytes by part, `building` and `step`, measured in a process of its own with one thread.

    Args:
        options: changes of the experiment, as `solve.method=anderson`.
        compiled: with the compiled loops where this machine has them, or without.
    """
    command = [
        sys.executable,
        "-m",
        "tests.oracles.peak",
        str(circuit),
        rule,
        str(batch),
        str(steps),
        *options,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CIRCUITLAB_NATIVE": str(int(compiled))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def _resident(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _main() -> None:
    import torch

    from circuitlab.experiment.assemble import assemble
    from circuitlab.learn.base import Batch
    from circuitlab.learn.evaluate import Split
    from circuitlab.learn.optimizer import make_optimizer
    from circuitlab.learn.rules import RULES
    from circuitlab.learn.train import Schedule, Trainer
    from circuitlab.spec.circuit import load_circuit
    from circuitlab.spec.experiment import experiment_from

    torch.set_num_threads(1)
    path, rule, size, steps, *options = sys.argv[1:]

    def train(spec_of, batch: int, count: int, mark) -> object:
        spec = experiment_from(spec_of, options)
        made = assemble(spec)
        mark("building")
        compiled = made.compiled
        x = torch.rand(batch, compiled.input_size, dtype=compiled.dtype)
        target = torch.zeros(batch, compiled.output_size, dtype=compiled.dtype)
        target[:, 0] = 1
        split = Split(x, target)
        optimizer = make_optimizer(compiled.plastic().values(), "adam", {"lr": 1e-3})
        trainer = Trainer(
            compiled, made.task, RULES[rule], {"train": split}, Schedule(1, lambda _: []), optimizer
        )
        for _ in range(count):
            trainer._step(list(range(batch)))  # type: ignore[arg-type]
        mark("step")
        return trainer

    train(load_circuit("small.yaml", text=SMALL), 8, 2, lambda _: None)
    found: dict[str, float] = {}
    before = _resident("VmRSS")
    _reset()

    def mark(part: str) -> None:
        found[part] = _resident("VmHWM") - before
        found[f"{part}_left"] = _resident("VmRSS") - before
        _reset()

    kept = train(load_circuit(path), int(size), int(steps), mark)
    assert kept is not None and Batch is not None
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
