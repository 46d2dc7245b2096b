"""An experiment's circuit beside the theory: its samples, its weights (or a run's), its control and its rule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from circuitlab.control.base import Pathway
from circuitlab.errors import CircuitError, RunFileError
from circuitlab.experiment.assemble import Assembled, begin_file
from circuitlab.experiment.training import prepare
from circuitlab.record.reader import Run, open_run
from circuitlab.record.storage import link_name
from circuitlab.record.weights import recorded, weights_at
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.manipulations import ClampSpec
from circuitlab.theory.diagnosis import conclusion, measures
from circuitlab.theory.examine import Tell, examine
from circuitlab.theory.measure import Measure

SAMPLES = 100
"""Training samples that a diagnosis looks at unless told otherwise."""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured.

    Args:
        assembled: the circuit.
        measures: in the order of the table.
        conclusion: why the circuit may learn badly, a sentence.
        sample_ids: which training samples, [sample].
        weights: where the weights come from, in words.
    """

    assembled: Assembled
    measures: list[Measure]
    conclusion: str
    sample_ids: np.ndarray
    weights: str

    def measure(self, key: str) -> Measure:
        """The measure of a name.

        Raises:
            CircuitError: there is none.
        """
        for row in self.measures:
            if row.key == key:
                return row
        raise CircuitError(f"{key}: no such measure; there are {', '.join(row.key for row in self.measures)}")


def diagnose(
    spec: ExperimentSpec,
    samples: int = SAMPLES,
    weights: Path | None = None,
    snapshot: int | None = None,
    tell: Tell | None = None,
) -> Diagnosis:
    """Measure the theory's conditions on an experiment's circuit, data, control and rule.

    Args:
        samples: the first so many training samples.
        weights: a run file whose weights, of circuit and feedback, take the place of the initial ones.
        snapshot: which of its snapshots, counted from 0 (before learning) or from -1 (the last) backwards; the run's
            last state where None.
        tell: told how many samples are done.

    Raises:
        CircuitlabError: whatever is wrong with the experiment, or a run file that is not of this circuit.
    """
    if samples < 1:
        raise CircuitError(f"samples: {samples} is none; allowed: 1 or more")
    if snapshot is not None and weights is None:
        raise CircuitError("snapshot: it is one of a run's; name the run with weights")
    for name, manipulation in spec.manipulations.items():
        if isinstance(manipulation, ClampSpec):
            raise CircuitError(
                spec.located(
                    f"manipulations.{name}: the theory's conditions are those of a circuit whose control arrives; "
                    "diagnose takes no clamp"
                )
            )
    prepared = prepare(spec)
    trainer, words = prepared.trainer, "initial"
    trainer.compiled.enforce_sign()
    if trainer.bound:
        trainer.bound.apply(thorough=True)
    trainer.task.pathway.hold_signs()
    if weights is not None:
        words = load_weights(prepared.assembled, trainer.task.pathway, weights, snapshot)
    train = prepared.splits["train"]
    ids = np.arange(min(samples, len(train)))
    try:
        found = examine(trainer.task, trainer.rule, train.batch(ids), tell)
    except CircuitError as error:
        raise CircuitError(spec.located(str(error))) from error
    rows = measures(found)
    return Diagnosis(prepared.assembled, rows, conclusion(rows), ids, words)


@torch.no_grad()
def load_weights(assembled: Assembled, pathway: Pathway, path: Path, snapshot: int | None) -> str:
    """Put a run's weights, of circuit and feedback, into an assembled circuit and its pathway, and say which.

    Raises:
        RunFileError: the run is of another circuit, or has no such snapshot.
    """
    with open_run(path) as run:
        _same_circuit(assembled, run, path)
        if snapshot is None:
            state = run.checkpoint()
            if not state:
                raise RunFileError(
                    f"{path}: holds no weights after learning; give the file of a training run"
                )
            try:
                own, feedback = dict(state["parameters"]), dict(state.get("feedback", {}))
                words = f"{path}, after {int(state['progress']['step'])} updates"
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise RunFileError(f"{path}: its checkpoint is not that of a training run") from error
        else:
            own, feedback, words = _snapshot(assembled, pathway, run, path, snapshot)
    targets = {
        **{name: (value, own.get(name)) for name, value in assembled.compiled.parameters_by_name().items()},
        **{
            f"feedback {name}": (value, feedback[name])
            for name, value in pathway.parameters().items()
            if name in feedback
        },
    }
    for name, (parameter, array) in targets.items():
        if array is None or np.shape(array) != tuple(parameter.shape):
            has = "is missing" if array is None else f"has shape {np.shape(array)}"
            raise RunFileError(
                f"{path}: {name} {has}, and this circuit's has shape {tuple(parameter.shape)}; give a run of it"
            )
        parameter.copy_(torch.as_tensor(np.asarray(array)))
    return words


def _same_circuit(assembled: Assembled, run: Run, path: Path) -> None:
    for name, projection in assembled.circuit.projections.items():
        place = f"edges/{name}"
        if f"{place}/source_node_id" not in run.datasets:
            raise RunFileError(f"{path}: has no projection '{name}'; give a run of this circuit")
        ends = (run.read(f"{place}/source_node_id"), run.read(f"{place}/target_node_id"))
        edges = projection.edges
        if not (np.array_equal(ends[0], edges.source) and np.array_equal(ends[1], edges.target)):
            raise RunFileError(
                f"{path}: {name} joins other neurons than this experiment's (another seed?); give a run of it, or the "
                "run's own seed"
            )


def _snapshot(
    assembled: Assembled, pathway: Pathway, run: Run, path: Path, snapshot: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    if "weights/step" not in run.datasets:
        raise RunFileError(f"{path}: has no snapshots of its weights; give the file of a training run")
    steps = run.read("weights/step")
    if not -len(steps) <= snapshot < len(steps):
        raise RunFileError(
            f"{path}: has no snapshot {snapshot}; allowed: 0 (before learning) to {len(steps) - 1}, or -1 for the last"
        )
    for name, link in assembled.compiled.links.items():
        if link.projection.rank is not None:
            raise RunFileError(
                f"{path}: snapshots hold the product of the two factors of {name}, not the factors; leave out the "
                "snapshot to take the run's last weights"
            )
    names = assembled.compiled.parameters_by_name()
    known = recorded(run)
    own = {name: weights_at(run, name, snapshot) for name in names if {name, link_name(name)} & set(known)}
    feedback = {
        name: run.read(f"feedback/{name}")[snapshot]
        for name in pathway.parameters()
        if f"feedback/{name}" in run.datasets
    }
    return own, feedback, f"{path}, snapshot after {int(steps[snapshot])} updates"


def write(found: Diagnosis, path: Path, *, command: str, overwrite: bool) -> None:
    """Write a diagnosis into a run file, group /diagnosis."""
    with begin_file(found.assembled, path, command=command, overwrite=overwrite) as writer:
        writer.put(
            "diagnosis/sample_ids",
            found.sample_ids,
            units="none",
            description="[sample] which training samples were looked at",
        )
        writer.attributes("diagnosis", conclusion=found.conclusion, weights=found.weights)
        reasons = []
        for row in found.measures:
            if row.inapplicable:
                reasons.append(f"{row.key}: {row.inapplicable}")
                continue
            axes = "of all samples together" if row.values is None else "[sample]"
            writer.put(
                f"diagnosis/{row.key}",
                np.array(row.mean) if row.values is None else row.values,
                units=row.units,
                description=f"{axes} {row.description}",
                mean=row.mean,
                standard_error=row.error,
                asks=row.asks,
                verdict=row.verdict,
            )
        writer.put(
            "diagnosis/does_not_apply",
            np.array("\n".join(reasons), dtype=object),
            units="none",
            description="measures that do not apply, and why, one a line",
        )
