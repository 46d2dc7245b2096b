"""Eigenvalues of the recurrent weights before and after learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from circuitlab.record.weights import weights_at
from circuitlab.report.page.pack import pack
from circuitlab.report.page.parts import Part, choice, controls, count, figure, paragraph
from circuitlab.report.page.source import Source
from circuitlab.report.page.weights import MOST_EDGES, initial, per_edge, snapshots

ALL_OF = 1200
"""Neurons up to which every eigenvalue is computed."""
LARGEST = 40
"""Of larger circuits, so many eigenvalues of the largest size."""


def spectrum(sources: Sequence[Source]) -> Part | None:
    """The section of eigenvalues; None where no circuit is recurrent."""
    runs = [{"label": source.label} | _spectra(source) for source in sources]
    if not any("before" in run for run in runs):
        return None
    about = (
        "Eigenvalues of W, the weights of all rate-coded chemical synapses among neurons that are no inputs. "
        "Beyond 1 to the right, a linear circuit would run away; the activation functions bound it."
    )
    body = paragraph(about, "quiet") + controls(choice("spectrum-run", "Run"))
    plane = figure("spectrum-plane", "Eigenvalues of the recurrent weights", tall=True, wide=True)
    body += f'<div class="figures">{plane}</div>'
    return Part("spectrum", "Eigenvalues", body, {"runs": runs})


def _spectra(source: Source) -> dict[str, Any]:
    rows, total = {}, 0
    for name in source.populations:
        if source.about_population(name).get("type") != "input":
            rows[name] = total
            total += source.size(name)
    inner = {}
    for name in source.projections:
        said = source.about_projection(name)
        chemical = said.get("kind", "chemical") == "chemical" and said.get("carries", "rate") == "rate"
        if chemical and said.get("source") in rows and said.get("target") in rows and source.edges(name):
            inner[name] = said
    if not _is_recurrent({(said["source"], said["target"]) for said in inner.values()}):
        return {}
    if sum(map(source.edges, inner)) > MOST_EDGES:
        return {"note": "Too many synapses for the eigenvalues of a page."}
    blocks = []
    for name, said in inner.items():
        senders, targets = source.ends(name)
        before = initial(source, name)
        if before is None or len(before) != len(targets):
            return {"note": f"The weights of {name} are not in the file."}
        after = per_edge(source, name, weights_at(source.run, name)) if snapshots(source, name) else None
        blocks.append((targets + rows[said["target"]], senders + rows[said["source"]], before, after))
    found: dict[str, Any] = {"neurons": total, "all": total <= ALL_OF}
    learned = any(block[3] is not None for block in blocks)
    for key in ("before", "after") if learned else ("before",):
        values = [block[2] if key == "before" or block[3] is None else block[3] for block in blocks]
        to, origin = (np.concatenate([block[at] for block in blocks]) for at in (0, 1))
        matrix = csr_array((np.concatenate(values).astype(float), (to, origin)), shape=(total, total))
        numbers = _eigenvalues(matrix, total)
        if numbers is None:
            return {"note": "The largest eigenvalues were not found."}
        found[key] = {
            "real": pack(numbers.real),
            "imaginary": pack(numbers.imag),
            "radius": float(np.abs(numbers).max(initial=0.0)),
        }
    which = f"All {total:,}" if found["all"] else f"The {count(len(found_of(found)), 'largest')} of {total:,}"
    return found | {"note": f"{which} eigenvalues."}


def found_of(found: dict[str, Any]) -> range:
    """Places of the eigenvalues that were found."""
    return range(found["before"]["real"]["shape"][0])


def _eigenvalues(matrix: csr_array, size: int) -> NDArray[np.complex128] | None:
    if not np.isfinite(matrix.data).all():
        return None
    if size <= ALL_OF:
        return np.linalg.eigvals(matrix.toarray()).astype(np.complex128)
    try:
        start = np.random.default_rng(0).standard_normal(size)
        found = eigs(matrix, min(LARGEST, size - 2), which="LM", v0=start, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return np.asarray(found, dtype=np.complex128) if len(found) else None


def _is_recurrent(links: set[tuple[str, str]]) -> bool:
    """Whether some population reaches itself."""
    reach = {source: {target for s, target in links if s == source} for source, _ in links}
    for _ in range(len(reach)):
        for source, targets in reach.items():
            reach[source] = targets.union(*(reach.get(target, set()) for target in targets))
    return any(source in targets for source, targets in reach.items())
