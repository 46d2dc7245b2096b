"""Writes potjans_diesmann.yaml, the cortical microcircuit of Potjans and Diesmann (2014), from its published tables.

    python topologies/potjans_diesmann.py

Numbers: T. C. Potjans and M. Diesmann, The cell-type specific cortical microcircuit, Cerebral Cortex 24:785 (2014),
tables 1 and 5, which NEST's example of the model lists too.
"""

from __future__ import annotations

import math
from pathlib import Path

SIZES = {
    "L23E": 20683,
    "L23I": 5834,
    "L4E": 21915,
    "L4I": 5479,
    "L5E": 4850,
    "L5I": 1065,
    "L6E": 14395,
    "L6I": 2948,
}
THALAMUS = 902
PROBABILITIES = {  # target: from each population, in the order of SIZES
    "L23E": (0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0),
    "L23I": (0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0),
    "L4E": (0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0),
    "L4I": (0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0),
    "L5E": (0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0),
    "L5I": (0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0),
    "L6E": (0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252),
    "L6I": (0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443),
}
THALAMIC = {"L4E": 0.0983, "L4I": 0.0619, "L6E": 0.0512, "L6I": 0.0196}
DELAYS = {"E": "1.5 ms", "I": "0.75 ms"}
STRENGTHS = {"E": 1.0, "I": 4.0}
"""Of one synapse, in weights of an excitatory one; L4E onto L23E is twice as strong."""
SCALE = 0.02
"""Unless another is asked for; all numbers of the file are those of scale 1."""
WEIGHT = 1e-3
"""Mean weight of one excitatory synapse at scale 1, dimensionless."""

HEAD = """\
# The cortical microcircuit of Potjans and Diesmann (2014): 1 mm^2 of early sensory cortex, layers 2/3, 4, 5 and 6 with
# excitatory and inhibitory cells, 77,169 neurons and 298,880,968 synapses, and 902 relay cells of the thalamus.
# Written by potjans_diesmann.py from the published tables.
#
# Facts: sizes; numbers of synapses, K = ln(1 - p) / ln(1 - 1 / (N_source N_target)) of the published probabilities p,
#   drawn with autapses and multapses; thalamic input; the time constant; delays; the relative strengths of single
#   synapses, 1 (excitatory), 4 (inhibitory) and 2 (L4E onto L23E).
# Our choice, so that a rate model settles and learns: tanh rates, relative to the background rate, in place of spikes,
#   and so no background input; the absolute strength, a mean weight of {weight:g} for an excitatory synapse at scale 1,
#   uniform between 0 and twice the mean (the paper: a standard deviation of a tenth of it); thalamic strength; the
#   retina (64 pixels: digits; write 784 for MNIST), and the readout from L23E and L5E, where cortex projects from.
# gain = 2 * mean weight * sqrt(indegree), and torch_linear draws U(0, gain / sqrt(indegree)): the mean weight of every
#   synapse is as above at scale 1, and grows with 1 / sqrt(scale) in a smaller circuit, as van Albada et al. (2015) do.
"""


def synapses(p: float, sources: int, targets: int) -> int:
    """Numbers of synapses thrown on all pairs so that each is joined with probability p: the paper's equation 1."""
    return round(math.log(1 - p) / math.log(1 - 1 / (sources * targets)))


def text() -> str:
    """The YAML file."""
    lines = [
        HEAD.format(weight=WEIGHT) + "circuit: potjans_diesmann",
        "description: >-",
        "  The cortical microcircuit of Potjans and Diesmann (2014) as a rate model; thalamic relay cells see",
        "  an image, and a readout answers",
        f"scale: {SCALE:g}  # 1 is the full size, 77,169 neurons: --scale 1, or circuit: {{file: .., scale: 1}}",
        "populations:",
        "  retina: {type: input, size: 64}",
        f"  thalamus: {{type: unit, size: {THALAMUS}, activation: tanh, tau: 10 ms, sign: excitatory}}",
    ]
    for name, size in SIZES.items():
        kind, sign = ("pyramidal", "excitatory") if name[-1] == "E" else ("interneuron", "inhibitory")
        lines.append(f"  {name}: {{type: {kind}, size: {size}, activation: tanh, tau: 10 ms, sign: {sign}}}")
    lines += [
        "  readout: {type: output, size: 10}",
        "projections:",
        "  retina_thalamus: {source: retina, target: thalamus}",
    ]
    for target, p in THALAMIC.items():
        count = synapses(p, THALAMUS, SIZES[target])
        lines.append(
            _projection("thalamus", target, count, "{init: torch_linear}", DELAYS["E"], site="E" in target)
        )
    for target, row in PROBABILITIES.items():
        for source, p in zip(SIZES, row, strict=True):
            if p:
                count = synapses(p, SIZES[source], SIZES[target])
                strength = 2.0 if (source, target) == ("L4E", "L23E") else STRENGTHS[source[-1]]
                gain = 2 * WEIGHT * strength * math.sqrt(count / SIZES[target])
                basal = source[-1] == target[-1] == "E"
                weights = f"{{init: torch_linear, gain: {gain:.4g}}}"
                lines.append(_projection(source, target, count, weights, DELAYS[source[-1]], basal))
    lines += [f"  {source}_readout: {{source: {source}, target: readout}}" for source in ("L23E", "L5E")]
    return "\n".join(lines) + "\n"


def _projection(source: str, target: str, count: int, weights: str, delay: str, site: bool) -> str:
    where = "basal" if site else "soma"
    return (
        f"  {source}_{target}:\n"
        f"    {{source: {source}, target: {target}, site: {where}, delay: {delay},\n"
        f"     connect: {{rule: fixed_total_number, N: {count}}}, weights: {weights}}}"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".yaml").write_text(text(), encoding="utf-8")
