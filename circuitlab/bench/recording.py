"""What recording costs: training with and without every step's compartments of many neurons, and the memory of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from circuitlab.bench.machine import reset_peak, resident
from circuitlab.bench.nets import experiment
from circuitlab.bench.results import Cell, Table
from circuitlab.errors import CircuitError
from circuitlab.experiment.assemble import begin_file
from circuitlab.experiment.recording import Recording
from circuitlab.experiment.training import Prepared, prepare, train
from circuitlab.learn.train import Observer, Stopped, Trainer
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.probes import ProbeSpec

VARIABLES = ("soma", "basal", "apical")
FIRST = 100
"""Updates after which the memory of learning is counted: libraries and buffers are in place by then."""
RUNS = ("pairs", "plain run, s", "recorded run, s", "ratio", "lowest to highest")
COLUMNS = ("time", "plain step, ms", "recorded step, ms", "ratio", "quartiles")
MEMORY = ("updates", "run file, MB", "peak memory, MB", "of it while learning, MB")


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        path: the experiment. population: whose neurons are recorded, made pyramidal.
        neurons: how many of them. stretch: updates between two turns.
        pairs: turns of each. lengths: updates of the two runs whose memory is compared.
        folder: where run files go, for a disk of one's own choice; a temporary folder where None.
        runs: whole runs of an epoch of each.
    """

    path: Path
    population: str = "recurrent"
    neurons: int = 200
    stretch: int = 100
    pairs: int = 40
    lengths: tuple[int, int] = (500, 5000)
    seed: int = 0
    threads: int = 1
    folder: Path | None = None
    runs: int = 0


class _Stretch(Observer):
    """Stops training after so many updates; it is told of them after the recording."""

    def __init__(self, updates: int) -> None:
        self.updates = self.left = updates

    def checkpoint(self, trainer: Trainer) -> None:
        self.left -= trainer.at.step > 0
        trainer.stop_requested = self.left <= 0


def _prepared(settings: Settings, recorded: bool, whole: bool = False) -> Prepared:
    """The experiment with pyramidal neurons, with or without its probes: one whole epoch, or updates without end and
    without evaluations."""
    options = [f"seed={settings.seed}", f"learn.epochs={1 if whole else 1000}"]
    spec = experiment(settings.path, options, settings.threads)
    populations = dict(spec.circuit.populations)
    if settings.population not in populations:
        raise CircuitError(f"{settings.path}: no population '{settings.population}' to record from")
    pyramidal = populations[settings.population].model_copy(update={"type": "pyramidal"})
    populations[settings.population] = pyramidal
    probes = {
        name: ProbeSpec.model_validate(
            {
                "population": settings.population,
                "variable": name,
                "units": [f"0:{settings.neurons}"],
                "every": "1 steps",
            }
        )
        for name in VARIABLES
    }
    circuit = spec.circuit.model_copy(update={"populations": populations})
    changed = spec.model_copy(update={"record": probes if recorded else {}})
    changed._circuit = circuit  # pyright: ignore[reportPrivateUsage]
    prepared = prepare(changed)
    trainer = prepared.trainer
    trainer.schedule = replace(trainer.schedule, stopping=None)
    if not whole:  # evaluations are the same with and without, and much longer than a stretch
        vars(trainer)["evaluate"] = dict
    return prepared


@contextmanager
def _place(settings: Settings) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        yield Path(folder)


def _begin(prepared: Prepared, path: Path) -> RunWriter:
    trainer = prepared.trainer
    writer = begin_file(prepared.assembled, path, command="circuitlab bench recording", overwrite=True)
    recording = Recording(writer, trainer.task, prepared.splits, prepared.labels, prepared.probes, 10**9)
    trainer.observers = (recording,)
    return writer


def _learn(trainer: Trainer, updates: int) -> dict[str, float]:
    """Seconds of an update, on the clock and of all threads' work, with what is written meanwhile."""
    observers, begun, worked = trainer.observers, time.perf_counter(), time.process_time()
    trainer.observers = (*observers, _Stretch(updates))
    try:
        trainer.run()
    except Stopped:
        pass
    finally:
        trainer.observers, trainer.stop_requested = observers, False
    clock, work = time.perf_counter() - begun, time.process_time() - worked
    return {"clock": clock / updates, "work": work / updates}


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Whole runs of an epoch, and stretches of updates alone, in turn with and without recording; then the memory of a
    short and a long run."""
    raw: dict[str, Any] = {}
    tables = [_runs(settings, raw)] if settings.runs else []
    return [*tables, _cost(settings, raw), _memory(settings, raw)], raw


def _runs(settings: Settings, raw: dict[str, Any]) -> Table:
    seconds: dict[str, list[float]] = {"plain": [], "recorded": []}
    with _place(settings) as folder:
        for pair in range(settings.runs):
            for name in ("plain", "recorded") if pair % 2 else ("recorded", "plain"):
                prepared = _prepared(settings, name == "recorded", whole=True)
                begun = time.perf_counter()
                train(prepared, folder / "run.h5", command="circuitlab bench recording", overwrite=True)
                seconds[name].append(time.perf_counter() - begun)
    raw["seconds per run"] = seconds
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["recorded"], strict=True)]
    medians = [statistics.median(values) for values in seconds.values()]
    row: list[Cell] = [
        settings.runs,
        *medians,
        statistics.median(ratios),
        f"{min(ratios):.3f} to {max(ratios):.3f}",
    ]
    title = (
        "Whole runs of one epoch, evaluations before and after it included, with and without the same probes"
    )
    return Table(title, RUNS, [row])


def _cost(settings: Settings, raw: dict[str, Any]) -> Table:
    plain, recorded = _prepared(settings, False), _prepared(settings, True)
    batch = recorded.assembled.spec.learn.batch_size
    size = len(VARIABLES) * settings.neurons * batch * recorded.assembled.compiled.dtype.itemsize
    with (
        _place(settings) as folder,
        _begin(plain, folder / "plain.h5"),
        _begin(recorded, folder / "recorded.h5"),
    ):
        for prepared in (plain, recorded):
            _learn(prepared.trainer, settings.stretch)  # the first is of loading, not of learning
        times: dict[str, list[dict[str, float]]] = {"plain": [], "recorded": []}
        for pair in range(settings.pairs):
            turns = [("plain", plain), ("recorded", recorded)]
            for name, prepared in turns if pair % 2 else reversed(turns):
                times[name].append(_learn(prepared.trainer, settings.stretch))
    raw["seconds per update"] = times
    rows: list[list[Cell]] = []
    for kind, words in (("clock", "on the clock"), ("work", "of the processor, all threads")):
        without, along = ([one[kind] for one in times[name]] for name in ("plain", "recorded"))
        ratios = [b / a for a, b in zip(without, along, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        medians = [1e3 * statistics.median(values) for values in (without, along)]
        rows.append([words, *medians, middle, f"{low:.3f} to {high:.3f}"])
    title = (
        f"Training with {', '.join(VARIABLES)} of {settings.neurons} neurons and {batch} samples recorded "
        f"at every update ({size / 1e6:.3g} MB), beside the same run without probes; stretches of "
        f"{settings.stretch} updates"
    )
    return Table(title, COLUMNS, rows)


def _memory(settings: Settings, raw: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    raw["memory"] = []
    for updates in settings.lengths:
        said = {**asdict(settings), "path": str(settings.path), "folder": None, "updates": updates}
        program = "import sys; from circuitlab.bench.recording import alone; alone(sys.argv[1])"
        command = [sys.executable, "-c", program, json.dumps(said)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CircuitError(f"a run of {updates} updates failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        raw["memory"].append({"updates": updates, **found})
        known = (found[key] for key in ("bytes", "peak", "learning"))
        rows.append([updates, *(None if value is None else value / 1e6 for value in known)])
    return Table("Peak memory of runs of two lengths, each in a process of its own", MEMORY, rows)


def alone(asked: str) -> None:
    """A run of so many updates in this process; prints, as JSON, the size of its file, the process's peak memory, and
    how far that lay above the memory after the first updates."""
    said = json.loads(asked)
    updates = said.pop("updates")
    settings = Settings(**{**said, "path": Path(said["path"]), "lengths": tuple(said["lengths"])})
    torch.set_num_threads(settings.threads)
    prepared = _prepared(settings, True)
    with _place(settings) as folder:
        path = folder / "recorded.h5"
        with _begin(prepared, path):
            first = min(FIRST, updates // 2)
            _learn(prepared.trainer, first)
            loaded = resident("VmHWM")
            reset_peak()
            before = resident("VmRSS")
            _learn(prepared.trainer, updates - first)
            after = resident("VmHWM")
        size = path.stat().st_size
    peaks: dict[str, int | None] = {"peak": None, "learning": None}
    if loaded is not None and before is not None and after is not None:
        peaks = {"peak": max(loaded, after), "learning": after - before}
    print(json.dumps({"bytes": size, **peaks}))
