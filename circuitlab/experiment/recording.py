"""The observer that writes a training run into its run file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.experiment.activity import described
from circuitlab.experiment.probing import Probing
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.evaluate import Split
from circuitlab.learn.train import Observer, Trainer
from circuitlab.record.probes import Probe
from circuitlab.record.run_file import RunWriter
from circuitlab.record.weights import Snapshots

LOSS_UNITS = "nats (cross_entropy), squared units (squared_error)"
NEARBY = "free state within solve.free_tolerance (the losses between epochs are at the free equilibrium)"
"""Where a minibatch's loss is measured by rules for which the free state is only a start."""
METRICS = {
    "loss": (LOSS_UNITS, "mean loss at the free equilibrium"),
    "accuracy": ("share", "share of right classes at the free equilibrium"),
    "unconverged": ("share", "share of samples whose equilibrium was not reached"),
    "free_unconverged": (
        "share",
        "share of training samples whose free state was not reached (to solve.free_tolerance where it is only a start)",
    ),
    "control_cost": (
        "dimensionless",
        "mean over the first 250 training samples of 1/2 sum psi^2 at the controlled equilibrium",
    ),
    "feedback_angle": (
        "degrees",
        "angle between the feedback S and the transpose of W, over all their synapses",
    ),
    "mismatch": (
        "dimensionless",
        "mean over the first 250 training samples of |psi - psi_DI| / |psi_DI|; psi_DI: dynamic inversion, the same S",
    ),
    "iterations": (
        "iterations",
        "mean over samples of the iterations to the equilibrium that carries the credit",
    ),
    "products": ("products", "mean over samples of products with W, free phase and verification included"),
    "kinks": ("neurons", "mean over samples of neurons resting on a kink of their activation function"),
    "residual": ("dimensionless", "largest relative residual among the samples learned from"),
    "preconditioned": (
        "share",
        "share of minibatches whose equilibria were looked for with preconditioned sweeps (in process 0)",
    ),
    "learning_rate": ("dimensionless", "learning rate during the epoch's last update"),
    "alpha": ("dimensionless", "leak of the output controller during the epoch's last update"),
    "energy_checked": ("samples", "samples solved again by descent of the energy from the free state"),
    "energy_lowered": ("samples", "samples for which that descent found an equilibrium of lower energy"),
}
"""Units and meaning of what an epoch measures; `train_`, `validation_` and `test_` may stand before a name."""
EVALUATED = {"control_cost", "feedback_angle", "mismatch"}
"""Those that an evaluation measures, beside the splits' own: before learning, too."""


class Recording(Observer):
    """Writes metrics, weights, probes and checkpoints.

    Args:
        writer: of the run file.
        task: of the trainer, whose present task runs the circuit anew for probes of fixed samples.
        splits, labels: samples and their classes by split.
        probes: what to record.
        snapshots_every: epochs between two snapshots of all weights.
    """

    def __init__(
        self,
        writer: RunWriter,
        task: Task,
        splits: dict[str, Split],
        labels: dict[str, np.ndarray],
        probes: Sequence[Probe],
        snapshots_every: int,
    ) -> None:
        self.writer, self.splits = writer, splits
        self._snapshots = Snapshots(writer)
        self.snapshots_every = snapshots_every
        if not isinstance(task.system, CircuitSystem):
            raise CircuitError(
                "record: run files are of circuits; the training of a torch module is watched by observers of one's own"
            )
        self.system: CircuitSystem = task.system
        self.probing = Probing(writer, self.system, splits, labels, probes)

    def wants_activity(self, trainer: Trainer) -> bool:
        return self.probing.wants_activity(trainer)

    def found(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        self.probing.before_update(trainer, sample_ids, batch, outcome)

    def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
        used, at = outcome.used, trainer.at.step
        self._metric("step", at, "updates", "[step] number of the update", None)
        where = "free equilibrium" if trainer.rule.needs_free else NEARBY
        rows = [
            (
                "step_loss",
                float(outcome.loss.mean()),
                LOSS_UNITS,
                f"mean loss of the minibatch, {where}",
            ),
            ("step_unconverged", int((~used).sum()), "samples", "samples of the minibatch not learned from"),
        ]
        if trainer.rule.controls:
            cost = float(outcome.control_cost[used].mean()) if bool(used.any()) else float("nan")
            rows.append(
                ("step_control_cost", cost, "dimensionless", "mean over the minibatch of 1/2 sum psi^2")
            )
        for name, value, units, words in rows:
            self._metric(name, value, units, f"[step] {words}", "training/step")
        self.probing.after_update(trainer, epochs=False)

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        done = trainer.at.epoch
        evaluated = {name for name in metrics if name.split("_")[0] in self.splits} | EVALUATED
        self._metric(
            "evaluation",
            done,
            "epochs",
            "[evaluation] epochs finished; the first row is before learning",
            None,
        )
        if done:
            self._metric("epoch", done, "epochs", "[epoch] number of the epoch", None)
        for name, value in metrics.items():
            split = name.split("_")[0]
            plain = name.removeprefix(f"{split}_") if split in self.splits else name
            units, words = METRICS[plain]
            axis, index = (
                ("evaluation", "training/evaluation") if name in evaluated else ("epoch", "training/epoch")
            )
            of = f", {split} samples" if split in self.splits else ""
            self.writer.expect(f"training/{name}", trainer.schedule.epochs + 1)
            self._metric(name, value, units, f"[{axis}] {words}{of}", index)
        if done % self.snapshots_every == 0 or done == trainer.schedule.epochs or trainer.at.stopped:
            self._snapshot(trainer)
        self.probing.after_update(trainer, epochs=True)

    def checkpoint(self, trainer: Trainer) -> None:
        self.writer.publish_if_due(trainer.state)

    def _metric(self, name: str, value: float, units: str, description: str, index: str | None) -> None:
        extra = {} if index is None else {"index": index}
        self.writer.append(f"training/{name}", np.array(value), units=units, description=description, **extra)

    def _snapshot(self, trainer: Trainer) -> None:
        self.writer.append(
            "weights/step",
            np.array(trainer.at.step),
            units="updates",
            description="[snapshot] updates made before it",
        )
        compiled = self.system.compiled
        for name, parameter in compiled.parameters_by_name().items():
            link = compiled.links.get(name)
            shared = link is not None and link.projection.edges.parameter_index is not None
            whole = link is not None and link.projection.rank is not None
            values = link.kernel.edge_values if link is not None and whole else parameter.detach()
            axis = "unit" if link is None else "parameter" if shared else "edge"
            what = (
                f"bias of population {name.removesuffix('_bias')}"
                if link is None
                else f"weights of projection {name}"
            )
            self._snapshots.add(name, values.cpu().numpy().copy(), axis, what)

        own = trainer.task.pathway.feedback_weights() if trainer.feedback else {}
        for name in trainer.task.pathway.parameters():
            if name in own:
                axes, words = described(name)
                self.writer.append(
                    f"feedback/{name}",
                    own[name].cpu().numpy().copy(),
                    units="dimensionless",
                    description=f"[snapshot, {axes}] {words}",
                )
