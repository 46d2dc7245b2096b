"""Taking what probes record: of minibatches before their update, of everything else after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.experiment.activity import Activity
from circuitlab.experiment.trajectories import Scene, values_of
from circuitlab.learn.base import Batch, Outcome
from circuitlab.learn.evaluate import PORTION, Split
from circuitlab.learn.feedback.base import PREFIX
from circuitlab.learn.train import Trainer
from circuitlab.record.probes import SOLUTION, STATE, Probe
from circuitlab.record.run_file import RunWriter
from circuitlab.record.storage import link_name
from circuitlab.solve.base import Solution


class Probing:
    """Probes at work.

    Args:
        writer: of the run file.
        system: the circuit that learns.
        splits, labels: samples and their classes by split.
        probes: what to record.
    """

    def __init__(
        self,
        writer: RunWriter,
        system: CircuitSystem,
        splits: Mapping[str, Split],
        labels: Mapping[str, np.ndarray],
        probes: Sequence[Probe],
    ) -> None:
        self.writer, self.system, self.splits, self.probes = writer, system, splits, probes
        for probe in probes:
            probe.start(writer)
            if probe.sampled and probe.sample_ids is not None and probe.spec.of in labels:
                writer.put(
                    f"activity/{link_name(probe.name)}/labels",
                    labels[probe.spec.of][probe.sample_ids],
                    units="class",
                    description="[sample] class of the recorded sample",
                )

    def _due(self, trainer: Trainer) -> list[Probe]:
        """Probes of the minibatch that is about to be learned."""
        at = trainer.at
        done = at.epoch + 1 if at.step_in_epoch + 1 == trainer.steps_per_epoch else None
        return [probe for probe in self.probes if probe.of_minibatch and probe.due(at.step, done)]

    def wants_activity(self, trainer: Trainer) -> bool:
        """Whether a probe of the next minibatch needs its equilibria."""
        return any(
            probe.variable in STATE
            or (probe.variable in SOLUTION and probe.spec.phase == "controlled" and not trainer.rule.controls)
            for probe in self._due(trainer)
        )

    def before_update(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        """Record the minibatch as the rule found it, with the weights of before the update, and the update."""
        due = self._due(trainer)
        if not due:
            return
        step, scene = trainer.at.step + 1, _Minibatch(trainer, batch, outcome)
        for probe in due:
            if probe.variable == "updates":
                probe.record(self.writer, step, self._update(probe, outcome))
            elif probe.variable in SOLUTION:
                probe.record(
                    self.writer, step, _of_solution(probe, scene.solution(probe.spec.phase)), sample_ids
                )
            else:
                activity = scene.activity(probe.spec.phase)
                probe.record(self.writer, step, values_of(probe, activity), sample_ids)

    def after_update(self, trainer: Trainer, epochs: bool) -> None:
        """Record what needs no minibatch, with the weights as they are now.

        Args:
            epochs: whether those are meant that are recorded by epochs, else by steps.
        """
        at = trainer.at
        due = [
            probe
            for probe in self.probes
            if not probe.of_minibatch
            and (probe.spec.every.epochs is not None) == epochs
            and (probe.due(at.step, at.epoch) if epochs else probe.due(at.step - 1, None))
        ]
        fixed: dict[tuple[str, bytes], list[Probe]] = {}
        for probe in due:
            if probe.sample_ids is None:
                probe.record(self.writer, at.step, self._parameter(trainer, probe))
            else:
                fixed.setdefault((probe.spec.of, probe.sample_ids.tobytes()), []).append(probe)
        for probes in fixed.values():
            self._of_samples(trainer, probes)

    def _of_samples(self, trainer: Trainer, probes: Sequence[Probe]) -> None:
        """Probes of the same fixed samples, which are run a portion after the other."""
        ids = probes[0].sample_ids
        assert ids is not None
        parts: dict[str, list[np.ndarray]] = {probe.name: [] for probe in probes}
        beside: dict[str, list[dict[str, np.ndarray]]] = {probe.name: [] for probe in probes}
        for start in range(0, len(ids), PORTION):
            batch = self.splits[probes[0].spec.of].batch(ids[start : start + PORTION])
            scene = Scene(trainer.testing, batch)
            for name, values, more in _frames(scene, probes):
                parts[name].append(values)
                beside[name].append(more)
        for probe in probes:
            axis = probe.axes.index("sample")
            more = {
                name: np.concatenate([part[name] for part in beside[probe.name]], -1)
                for name in beside[probe.name][0]
            }
            values = np.concatenate(parts[probe.name], axis)
            probe.record(self.writer, trainer.at.step, values, ids, more)

    def _update(self, probe: Probe, outcome: Outcome) -> np.ndarray:
        if probe.projection is None:
            values = outcome.updates[f"{probe.population}_bias"]
            return _some(values, probe)
        burst = f"{PREFIX}S/{probe.projection}"
        name = burst if burst in outcome.updates else probe.projection
        return _some(outcome.updates[name], probe)

    def _parameter(self, trainer: Trainer, probe: Probe) -> np.ndarray:
        compiled = self.system.compiled
        if probe.variable == "bias":
            assert probe.population is not None
            return _some(compiled.biases[probe.population], probe)
        if probe.variable == "weights":
            return self._weights(probe)
        own = trainer.task.pathway.feedback_weights()
        if probe.projection is None:
            return _some(own[f"Q/{probe.population}"], probe)
        if f"S/{probe.projection}" not in own:  # the circuit's own apical projections
            return self._weights(probe)
        return _some(own[f"S/{probe.projection}"], probe)

    def _weights(self, probe: Probe) -> np.ndarray:
        assert probe.projection is not None
        kernel = self.system.compiled.links[probe.projection].kernel
        shared = probe.parameter_ids is not None
        return _some(kernel.values if shared else kernel.edge_values, probe)


class _Minibatch:
    """A minibatch's equilibria, as its update was made from them."""

    def __init__(self, trainer: Trainer, batch: Batch, outcome: Outcome) -> None:
        self.trainer, self.batch, self.outcome = trainer, batch, outcome
        self.found: dict[str, Solution] = {"free": outcome.free}
        if trainer.rule.controls:
            self.found["controlled"] = outcome.credit
        self.activities: dict[str, Activity] = {}

    def solution(self, phase: str) -> Solution:
        if phase not in self.found:
            task, batch = self.trainer.task, self.batch
            drive = task.system.drive(batch.x)
            self.found[phase] = task.controlled(drive, batch.target, self.outcome.free, batch.x)
        return self.found[phase]

    def activity(self, phase: str) -> Activity:
        if phase not in self.activities:
            system = self.trainer.task.system
            assert isinstance(system, CircuitSystem)
            fields = self.solution(phase).fields
            self.activities[phase] = Activity(system, fields, self.batch.x, self.outcome.drive)
        return self.activities[phase]


def _frames(scene: Scene, probes: Sequence[Probe]) -> Iterable[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Name, values, and what stands beside them, of every probe of some samples."""
    ways: dict[tuple[str, bytes, float], list[Probe]] = {}
    for probe in probes:
        if probe.points is not None:
            grid = (probe.spec.phase, probe.points.tobytes(), -1.0 if probe.along_solver else probe.dt_ms)
            ways.setdefault(grid, []).append(probe)
    for group in ways.values():
        if group[0].along_solver:
            for probe, (values, beside) in zip(group, scene.settling(group), strict=True):
                yield probe.name, values, beside
        else:
            for probe, values in zip(group, scene.passing(group), strict=True):
                yield probe.name, values, {}
    for probe in probes:
        if probe.points is None and probe.variable in SOLUTION:
            yield probe.name, _of_solution(probe, scene.solution(probe.spec.phase)), {}
        elif probe.points is None:
            yield probe.name, values_of(probe, scene.activity(probe.spec.phase)), {}


def _of_solution(probe: Probe, solution: Solution) -> np.ndarray:
    return getattr(solution, probe.variable).cpu().numpy()


def _some(values: Tensor, probe: Probe) -> np.ndarray:
    """The rows of a parameter that a probe records: a copy, as learning goes on."""
    place, values = probe.place, values.detach()
    found = values[place if isinstance(place, slice) else torch.as_tensor(place, device=values.device)]
    return found.cpu().numpy().copy()
