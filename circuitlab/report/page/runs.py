"""The page of one or more runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run, open_run
from circuitlab.report.page.choice import Limits
from circuitlab.report.page.conditions import LEARNING, Condition, conditions, labels
from circuitlab.report.page.convergence import convergence
from circuitlab.report.page.diagnosis import diagnosis
from circuitlab.report.page.document import check_place, document, write_page
from circuitlab.report.page.drawing import circuits
from circuitlab.report.page.learning import learning
from circuitlab.report.page.neurons import neurons
from circuitlab.report.page.parts import Part, count
from circuitlab.report.page.recorded import recorded
from circuitlab.report.page.source import Source, named
from circuitlab.report.page.spectrum import spectrum
from circuitlab.report.page.story import provenance, what_was_run
from circuitlab.report.page.weights import weights

BUDGET = 6_000_000
"""Bytes of data in a page unless told otherwise; plotly.js and the rest take 5 MB beside them."""
LEAST_BUDGET = 200_000

PARTS: dict[str, Callable[[Sequence[Source], Sequence[Condition]], Part | None]] = {
    "run": lambda sources, _: what_was_run(sources),
    "circuit": lambda sources, _: circuits(sources),
    "learning": learning,
    "diagnosis": lambda sources, _: diagnosis(sources),
    "neurons": lambda sources, _: neurons(sources),
    "weights": lambda sources, _: weights(sources),
    "convergence": lambda sources, _: convergence(sources),
    "spectrum": lambda sources, _: spectrum(sources),
    "recorded": lambda sources, _: recorded(sources),
    "provenance": lambda sources, _: provenance(sources),
}
"""Sections of the page of runs, in their order; each leaves itself out where it has nothing to show."""


@dataclass(frozen=True)
class Options:
    """What of large recordings a page holds.

    Args:
        budget: bytes of data, over all runs. limits: the most of each axis.
        neurons: those that must be there, as POPULATION:INDEX or POPULATION:NAME.
    """

    budget: int = BUDGET
    limits: Limits = field(default_factory=Limits)
    neurons: tuple[str, ...] = ()


def report(runs: Sequence[Run], options: Options | None = None) -> str:
    """The page of open run files.

    Raises:
        CircuitlabError: a file is damaged, a named neuron is not there, plotly is not installed.
    """
    options = options or Options()
    if not runs:
        raise RunFileError("report: no run file is named")
    if options.budget < LEAST_BUDGET:
        raise RunFileError(
            f"budget: {options.budget:,} bytes hold no report; allowed: {LEAST_BUDGET:,} or more"
        )
    wanted = named(runs, options.neurons)
    share = options.budget // len(runs)
    sources = [Source(run, "", share, options.limits, own) for run, own in zip(runs, wanted, strict=True)]
    files = [run.path for run in runs]
    kinds = [source.kind for source in sources]
    found = conditions([s.experiment for s in sources], [s.circuit for s in sources], kinds, files)
    seeds = [run.attributes.get("seed", "?") for run in runs]
    for source, label in zip(sources, labels(found, seeds, kinds, files), strict=True):
        source.label = label
    names = list(dict.fromkeys(str(s.experiment.get("experiment") or s.run.path.stem) for s in sources))
    parts = [part for make in PARTS.values() if (part := make(sources, found)) is not None]
    about = count(len(runs), "run")
    if len(runs) > 1 and all(kind in LEARNING for kind in kinds):
        about += f", {count(len(found), 'condition')}"
    return document(", ".join(names[:3]) + (" and others" if len(names) > 3 else ""), parts, about=about)


def write_report(files: Sequence[str | Path], path: str | Path, options: Options | None = None) -> None:
    """Write the page of some run files: one HTML file that opens offline; one that is there is replaced.

    Raises:
        CircuitlabError: a file is missing or damaged, a named neuron is not there, the page cannot be written,
            plotly is not installed.
    """
    check_place(Path(path))
    for file in files:
        if Path(file).exists() and Path(path).exists() and Path(file).samefile(path):
            raise RunFileError(f"{path}: is one of the run files; give another -o")
    with ExitStack() as stack:
        page = report([stack.enter_context(open_run(file)) for file in files], options)
    write_page(page, Path(path))
