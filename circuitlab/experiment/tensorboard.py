"""A run as TensorBoard shows it: the metrics of its run file, histograms of its weights, its specification."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from circuitlab.errors import RunFileError, needs
from circuitlab.learn.train import Observer, Trainer
from circuitlab.record.run_file import RunWriter

LIBRARY, WHAT = "torch.utils.tensorboard", "--tensorboard"
EVENTS = "events.out.tfevents.*"
SETTINGS = ("seed", "dtype", "data", "loss", "control", "solve", "learn")
"""Sections of an experiment whose values are TensorBoard's hyperparameters."""


def check(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that cannot take the logs, and a machine without the library; nothing is written.

    Raises:
        MissingLibraryError: TensorBoard is not installed.
        RunFileError: the folder is a file, or holds the logs of another run.
    """
    needs(LIBRARY, extra="tensorboard", what=WHAT)
    if folder.exists() and not folder.is_dir():
        raise RunFileError(f"{WHAT} {folder}: is a file; give the name of a folder")
    if not (resume or overwrite) and any(folder.glob(EVENTS)):
        raise RunFileError(
            f"{WHAT} {folder}: holds the logs of another run; give each run a folder of its own, or --overwrite"
        )


class TensorBoard(Observer):
    """Writes logs for TensorBoard; every step of its axes is the number of updates made.

    Args:
        folder: where to; of this run alone.
        texts: shown as they are, `circuit` and `experiment`.
        settings: of the experiment, nested, for TensorBoard's table of hyperparameters.
        step: updates made before.
        resumed: whether the logs of an earlier session are gone on with; what they hold beyond this step is taken back.
        snapshots_every: epochs between two histograms of the weights, as in the run file.
    """

    def __init__(
        self,
        folder: Path,
        texts: Mapping[str, str],
        settings: Mapping[str, Any],
        *,
        step: int,
        resumed: bool,
        snapshots_every: int,
    ) -> None:
        library = needs(LIBRARY, extra="tensorboard", what=WHAT)
        earlier = sorted(folder.glob(EVENTS))
        begins = not (resumed and earlier)
        if begins:
            for file in earlier:
                file.unlink()
        try:
            self._log = library.SummaryWriter(str(folder), purge_step=None if begins else step + 1)
        except OSError as error:
            raise RunFileError(f"{WHAT} {folder}: cannot be written: {error.strerror}") from error
        self._every = snapshots_every
        if begins:
            for name, text in texts.items():
                self._log.add_text(name, f"```yaml\n{text}\n```", step)
            self._hyperparameters(settings)

    def _hyperparameters(self, settings: Mapping[str, Any]) -> None:
        summaries = needs("torch.utils.tensorboard.summary", extra="tensorboard", what=WHAT)
        values = dict(_flat({key: settings[key] for key in SETTINGS if key in settings}))
        for summary in summaries.hparams(values, {"test_loss": 0.0, "control_cost": 0.0}):
            self._log.file_writer.add_summary(summary)

    def mirrored(self, writer: RunWriter, trainer: Trainer) -> RunWriter:
        """A run file's writer whose every metric is written here as well."""
        return cast(RunWriter, _Mirror(writer, self, trainer))

    def scalar(self, name: str, value: float, step: int) -> None:
        """One value of a metric; what is no number is left out, as TensorBoard cannot draw it."""
        if math.isfinite(value):
            self._log.add_scalar(name, value, step)

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        done, at = trainer.at.epoch, trainer.at
        if done % self._every == 0 or done == trainer.schedule.epochs or at.stopped:
            for name, values in trainer.compiled.parameters_by_name().items():
                array = values.detach().cpu().numpy()
                if array.size and np.isfinite(array).all():
                    self._log.add_histogram(f"weights/{name}", array, at.step)

    def flush(self) -> None:
        """Put everything so far on the disk."""
        self._log.flush()

    def close(self) -> None:
        """Write the last of it."""
        self._log.close()


class _Mirror:
    """Stands in a run file's writer's place and passes everything on."""

    def __init__(self, writer: RunWriter, log: TensorBoard, trainer: Trainer) -> None:
        self._writer, self._log, self._trainer = writer, log, trainer

    def append(self, path: str, value: Any, **about: Any) -> None:
        self._writer.append(path, value, **about)
        group, _, name = path.strip("/").partition("/")
        if group == "training" and "index" in about:
            self._log.scalar(name, float(value), self._trainer.at.step)

    def publish_if_due(self, state: Callable[[], dict[str, Any]] | None = None) -> bool:
        if state is None:
            return self._writer.publish_if_due()

        def flushed() -> dict[str, Any]:
            # A run goes on from its file: whatever that holds must be in the logs before.
            self._log.flush()
            return state()

        return self._writer.publish_if_due(flushed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def _flat(tree: Any, before: str = "") -> list[tuple[str, bool | int | float | str]]:
    """`learn.optimizer.lr` and its value, for all plain values of nested mappings."""
    found = []
    for key, value in tree.items():
        name = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping):
            found += _flat(value, name)
        elif isinstance(value, (bool, int, float, str)):
            found.append((name, value))
    return found
