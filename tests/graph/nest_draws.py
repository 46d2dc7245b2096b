"""Draws connections with NEST, in a process of its own: NEST prints, and changes warnings and threads.

Usage: python nest_draws.py OUT.npz, a JSON list of cases on standard input, each
{name, rule, sources, targets (null within one population), draws, positions (null, or [of sources, of targets])}.
OUT.npz gets NAME_pairs, [synapse, (draw, source, target)], of synapses from sources to targets and, between two
populations, NAME_back of those from targets to sources; or NAME_error, NEST's message.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import nest  # noqa: E402  (its import warns)


def main() -> None:
    cases, arrays = json.load(sys.stdin), {}
    nest.verbosity = nest.VerbosityLevel.ERROR
    for number, case in enumerate(cases):
        pairs, back = [], []
        try:
            for draw in range(case["draws"]):
                nest.ResetKernel()
                nest.rng_seed = 1 + 1000 * number + draw
                source, target = _connected(case)
                pairs.append(_between(source, target, draw))
                back.append(_between(target, source, draw))
            arrays[f"{case['name']}_pairs"] = np.concatenate(pairs)
            if case["targets"] is not None:
                arrays[f"{case['name']}_back"] = np.concatenate(back)
        except nest.NESTError as error:
            arrays[f"{case['name']}_error"] = np.array(str(error))
    np.savez(sys.argv[1], **arrays)


def _connected(case: dict) -> tuple:
    """The populations of one draw, connected."""
    rule = dict(case["rule"])
    places = case["positions"] or [None, None]
    source = _nodes(case["sources"], places[0], case.get("box"))
    target = source if case["targets"] is None else _nodes(case["targets"], places[1], case.get("box"))
    if "std" in rule:
        rule["p"] = rule["top"] * nest.spatial_distributions.gaussian(
            nest.spatial.distance, std=rule.pop("std")
        )
        del rule["top"]
    nest.Connect(source, target, rule)
    return source, target


def _between(source, target, draw: int) -> np.ndarray:
    """Connections, [synapse, (draw, source, target)], indices from 0."""
    found = nest.GetConnections(source, target)
    if not len(found):
        return np.empty((0, 3), dtype=np.int64)
    ends = np.array([found.source, found.target]).reshape(2, -1)
    ends -= np.array([[source[0].global_id], [target[0].global_id]])
    return np.column_stack((np.full(ends.shape[1], draw), *ends))


def _nodes(size: int, places: list | None, box: list | None):
    if places is None:
        return nest.Create("parrot_neuron", size)
    wrap = {} if box is None else {"extent": box, "edge_wrap": True}
    return nest.Create("parrot_neuron", positions=nest.spatial.free(places, **wrap))


main()
