"""Run files as a backend of xarray: `xarray.open_dataset(path, engine="circuitlab")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from circuitlab.errors import RunFileError, needs
from circuitlab.record.labelled import activity, equilibria, population, training, weights_of

if TYPE_CHECKING:
    import xarray as xr
    from xarray import backends

    from circuitlab.record.reader import Run
else:
    backends = needs("xarray.backends", extra="analysis", what="circuitlab.open")


class Backend(backends.BackendEntrypoint):
    """`xarray.open_dataset(path, engine="circuitlab", group=...)`.

    The group is `training` (unless given), `population/NAME`, `activity/PROBE`, `weights/PROJECTION`, `equilibria/free`
    or `equilibria/controlled`.
    """

    description = "circuitlab run files"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: Any = None, group: str | None = None
    ) -> xr.Dataset:
        from circuitlab.record.reader import open_run

        run = open_run(filename_or_obj)
        try:
            found = _dataset_of(run, group or "training")
            dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
            found = found.drop_vars(dropped, errors="ignore")
        except BaseException:
            run.close()
            raise
        found.set_close(run.close)
        return found

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return False  # other programs' HDF5 files end in .h5, too: the engine is named


def _dataset_of(run: Run, group: str) -> xr.Dataset:
    kind, _, name = group.strip("/").partition("/")
    if kind == "training" and not name:
        return training(run)
    makers: dict[str, Callable[[], Any]] = {
        "population": lambda: population(run, name),
        "activity": lambda: activity(run)[name].to_dataset(),
        "weights": lambda: weights_of(run, name).to_dataset(),
        "equilibria": lambda: equilibria(run)[name],
    }
    if kind not in makers or not name:
        allowed = "training, population/NAME, activity/PROBE, weights/PROJECTION, equilibria/PHASE"
        raise RunFileError(f"{run.path}: no group '{group}'; allowed: {allowed}")
    return makers[kind]()
