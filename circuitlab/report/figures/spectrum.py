"""Eigenvalues of the recurrent weights before and after learning, in the complex plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigs

from circuitlab.graph.circuit import Circuit
from circuitlab.record.circuits import circuit_of_run
from circuitlab.record.reader import Run
from circuitlab.report.figures.base import AFTER, BEFORE, GREY, INK, Page, note, refuse
from circuitlab.report.figures.recorded import projections
from circuitlab.report.figures.synapses import synapses
from circuitlab.report.spectrum import rate_weights, recurrent

DENSE = 1500
"""Neurons up to which all eigenvalues are computed; of more, ARPACK finds the leading ones."""
LEADING, RESTARTS = 60, 300
MOST = 20_000_000
"""Synapses that the figure takes."""


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Eigenvalues of W.

    Args:
        values: complex, [eigenvalue]. all: whether these are all of them. size: units of the circuit.
    """

    values: NDArray
    all: bool
    size: int

    @property
    def radius(self) -> float:
        """Largest modulus: the spectral radius."""
        return float(np.abs(self.values).max(initial=0.0))

    @property
    def abscissa(self) -> float:
        """Largest real part."""
        return float(self.values.real.max(initial=-np.inf))


def eigenvalues(circuit: Circuit) -> Eigenvalues:
    """Eigenvalues of W (`rate_weights`): all of up to `DENSE` units, else the `LEADING` ones of largest modulus."""
    weights = rate_weights(circuit)
    size = weights.shape[0]
    if size <= DENSE:
        return Eigenvalues(np.linalg.eigvals(weights.toarray()), True, size)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        values = eigs(
            sparse.csr_array(weights), k=LEADING, v0=start, return_eigenvectors=False, maxiter=RESTARTS
        )
    except ArpackNoConvergence as stopped:
        values = stopped.eigenvalues
    except ArpackError:
        values = np.empty(0)
    return Eigenvalues(np.asarray(values), False, size)


def draw(run: Run) -> Figure:
    """The spectra before and after learning with the unit circle and the boundary of stability."""
    count = sum(
        run.datasets[f"{synapses(run, name).edge_path}/source_node_id"].shape[0] for name in projections(run)
    )
    if count > MOST:
        raise refuse("spectrum", run, f"has {count:,} synapses; the figure takes up to {MOST:,}")
    before = circuit_of_run(run.path, "initial")
    if not before.strongly_connected():
        raise refuse(
            "spectrum",
            run,
            "holds a circuit without recurrent synapses: all eigenvalues are 0",
            "it is for recurrent ones",
        )
    learned = any(synapses(run, p.name).snapshots > 1 for p in recurrent(before))
    spectra = [("before learning" if learned else "", BEFORE if learned else AFTER, eigenvalues(before))]
    if learned:
        spectra.append(("after learning", AFTER, eigenvalues(circuit_of_run(run.path, "final"))))
    if not any(len(s.values) for _, _, s in spectra):
        raise refuse("spectrum", run, "holds a circuit for which ARPACK found no eigenvalue in its time")
    page = Page(f"Eigenvalues of the recurrent weights: {run.path.stem}", 7.0)
    axes = np.ravel(
        np.asarray(page.figure.subplots(1, len(spectra), sharex=True, sharey=True, squeeze=False))
    )
    every = np.concatenate([s.values for _, _, s in spectra])
    far = 1.08 * max(1.05, float(np.abs(every.real).max()))
    tall = 1.08 * max(1.05, float(np.abs(every.imag).max()))
    for ax, (when, colour, found) in zip(axes, spectra, strict=True):
        plane(ax, found, colour)
        ax.set_title(when.capitalize() if when else "Eigenvalues")
        note(ax, f"spectral radius {found.radius:.3g}")
        ax.set(xlim=(-far, far), ylim=(-tall, tall), xlabel="real part")
    axes[0].set_ylabel("imaginary part")
    one = spectra[0][2]
    taus = {before.populations[n].tau_ms for n in before.units}
    return page.caption(
        f"W among the {one.size:,} units, times the gains of their senders: every activation at slope 1.",
        "Dashed: the unit circle, within which activity dies away from step to step. Vermilion: real part 1; left of it"
        " the linear dynamics return to rest" + (" (of equal time constants)." if len(taus) > 1 else "."),
        "" if one.all else f"Drawn: the {len(one.values)} eigenvalues of largest modulus (ARPACK).",
    )


def plane(axes: Axes, found: Eigenvalues, colour: str) -> None:
    """Eigenvalues as dots, with the unit circle and the line of real part 1."""
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=INK, linewidth=1.6, linestyle="--"))
    axes.axvline(1.0, color="#D55E00", linewidth=2.0)
    axes.plot(
        found.values.real,
        found.values.imag,
        linestyle="none",
        marker="o",
        markersize=float(np.clip(120 / np.sqrt(max(1, len(found.values))), 4, 9)),
        color=colour,
        alpha=0.7,
        markeredgewidth=0,
    )
    axes.set_aspect("equal", adjustable="box")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
