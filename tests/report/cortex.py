"""Cortical circuits to draw: four populations, eight all joined, a column of seventeen, three areas of forty."""

from __future__ import annotations

FOUR = """\
circuit: four
description: A sheet of pyramidal cells with one inhibitory population
populations:
  retina: {type: input, size: 12}
  e: {type: pyramidal, size: 16, sign: excitatory}
  i: {type: interneuron, size: 4, sign: inhibitory}
  readout: {type: output, size: 3}
projections:
  retina_e: {source: retina, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.2}}
  e_i: {source: e, target: i}
  i_e: {source: i, target: e, site: soma}
  i_i: {source: i, target: i}
  e_readout: {source: e, target: readout}
"""

POTJANS = (
    # Potjans & Diesmann 2014, table 5: probability of a connection; rows are targets, columns sources.
    (0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0),
    (0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0),
    (0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0),
    (0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0),
    (0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0),
    (0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0),
    (0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252),
    (0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443),
)
LAYERS = ("l23", "l4", "l5", "l6")
SIZES = {"l23": (41, 12), "l4": (44, 11), "l5": (10, 3), "l6": (29, 6)}


def eight() -> str:
    """Potjans and Diesmann's eight populations, two-hundredths of their sizes, with a thalamic input and a readout."""
    names = [f"{layer}{kind}" for layer in LAYERS for kind in "ei"]
    lines = ["circuit: microcircuit", "populations:", "  thalamus: {type: input, size: 9}"]
    for layer in LAYERS:
        for kind, size, sign in zip("ei", SIZES[layer], ("excitatory", "inhibitory"), strict=True):
            lines.append(f"  {layer}{kind}: {{type: unit, size: {size}, sign: {sign}}}")
    lines += ["  readout: {type: output, size: 4}", "projections:"]
    for target, row in zip(names, POTJANS, strict=True):
        for source, p in zip(names, row, strict=True):
            if p:
                rule = f"{{rule: pairwise_bernoulli, p: {p}}}"
                lines.append(f"  {source}_{target}: {{source: {source}, target: {target}, connect: {rule}}}")
    for target in ("l4e", "l4i", "l6e", "l6i"):
        lines.append(f"  th_{target}: {{source: thalamus, target: {target}}}")
    lines.append("  l5e_readout: {source: l5e, target: readout}")
    return "\n".join(lines) + "\n"


def seventeen() -> str:
    """A column: layers 2/3, 4, 5 and 6 of E, PV, SST and VIP less one, an input, a readout, and a higher area."""
    lines = ["circuit: column", "populations:", "  thalamus: {type: input, size: 9}"]
    projections: list[str] = []

    def project(source: str, target: str, more: str = "") -> None:
        projections.append(f"  {source}_{target}: {{source: {source}, target: {target}{more}}}")

    for layer in LAYERS:
        lines.append(f"  {layer}_e: {{type: pyramidal, size: 20, sign: excitatory}}")
        kinds = ("pv", "sst", "vip") if layer in ("l23", "l5") else ("pv", "sst")
        for kind in kinds:
            lines.append(f"  {layer}_{kind}: {{type: interneuron, size: 5, sign: inhibitory}}")
            project(f"{layer}_e", f"{layer}_{kind}")
        project(f"{layer}_e", f"{layer}_e", ", connect: {rule: pairwise_bernoulli, p: 0.2}")
        project(f"{layer}_pv", f"{layer}_e", ", site: soma")
        project(f"{layer}_pv", f"{layer}_pv")
        project(f"{layer}_sst", f"{layer}_e", ", site: apical")
        project(f"{layer}_sst", f"{layer}_pv")
        if "vip" in kinds:
            project(f"{layer}_vip", f"{layer}_sst")
    lines += ["  higher: {type: pyramidal, size: 20, sign: excitatory}", "  readout: {type: output, size: 4}"]
    sparse = ", connect: {rule: pairwise_bernoulli, p: 0.1}"
    for source, target in (
        ("thalamus", "l4_e"),
        ("thalamus", "l6_e"),
        ("thalamus", "l4_pv"),
        ("l4_e", "l23_e"),
        ("l4_e", "l23_pv"),
        ("l23_e", "l5_e"),
        ("l23_e", "l5_pv"),
        ("l5_e", "l6_e"),
        ("l6_e", "l4_e"),
        ("l6_e", "l4_pv"),
        ("l5_e", "l23_pv"),
        ("l23_e", "higher"),
        ("higher", "readout"),
        ("l5_e", "readout"),
    ):
        project(source, target, sparse)
    for target in ("l23_e", "l5_e"):
        project("higher", target, ", site: apical, carries: burst")
    for target in ("l23_vip", "l5_vip"):
        project("higher", target, sparse)
    return "\n".join([*lines, "projections:", *projections, ""])


def forty() -> str:
    """Three areas of four layers of E, PV and SST, two inputs and two outputs, joined by some 150 projections."""
    lines = ["circuit: hierarchy", "populations:"]
    lines += ["  retina: {type: input, size: 9}", "  cochlea: {type: input, size: 5}"]
    projections: list[str] = []

    def project(source: str, target: str, more: str = "") -> None:
        projections.append(f"  {source}_{target}: {{source: {source}, target: {target}{more}}}")

    sparse = ", connect: {rule: pairwise_bernoulli, p: 0.1}"
    for area in ("v1", "v2", "v4"):
        for layer in LAYERS:
            cell = f"{area}_{layer}"
            lines.append(f"  {cell}_e: {{type: pyramidal, size: 10, sign: excitatory}}")
            lines.append(f"  {cell}_pv: {{type: interneuron, size: 4, sign: inhibitory}}")
            lines.append(f"  {cell}_sst: {{type: interneuron, size: 3, sign: inhibitory}}")
            project(f"{cell}_e", f"{cell}_e", sparse)
            project(f"{cell}_e", f"{cell}_pv")
            project(f"{cell}_e", f"{cell}_sst")
            project(f"{cell}_pv", f"{cell}_e", ", site: soma")
            project(f"{cell}_pv", f"{cell}_pv")
            project(f"{cell}_sst", f"{cell}_e", ", site: apical")
            project(f"{cell}_sst", f"{cell}_pv")
        for source, target in (("l4", "l23"), ("l23", "l5"), ("l5", "l6"), ("l6", "l4")):
            project(f"{area}_{source}_e", f"{area}_{target}_e", sparse)
            project(f"{area}_{source}_e", f"{area}_{target}_pv", sparse)
    for low, high in (("v1", "v2"), ("v2", "v4"), ("v1", "v4")):
        for layer in ("l4", "l6"):
            for kind in ("e", "pv"):
                project(f"{low}_l23_e", f"{high}_{layer}_{kind}", sparse)
        for layer in ("l23", "l5"):
            project(f"{high}_l6_e", f"{low}_{layer}_e", ", site: apical, carries: burst")
            project(f"{high}_l6_e", f"{low}_{layer}_sst", sparse)
    for target in ("v1_l4_e", "v1_l4_pv", "v1_l6_e"):
        project("retina", target)
    for target in ("v4_l4_e", "v4_l4_pv"):
        project("cochlea", target)
    lines += ["  choice: {type: output, size: 2}", "  value: {type: output, size: 1}"]
    project("v4_l5_e", "choice")
    project("v4_l6_e", "choice")
    project("v1_l5_e", "value")
    return "\n".join([*lines, "projections:", *projections, ""])


def layered(text: str) -> str:
    """The same circuit, its populations in layers by their names."""
    lines = text.splitlines()
    depths = ", ".join(f"{layer}: {{from: {100 * n}, to: {100 * (n + 1)}}}" for n, layer in enumerate(LAYERS))
    for number, line in enumerate(lines):
        for layer in LAYERS:
            if line.startswith("  ") and "{type: " in line and layer in line.partition(":")[0]:
                lines[number] = line.replace("{type: ", f"{{layer: {layer}, type: ")
    return "\n".join([lines[0], f"layers: {{{depths}}}", *lines[1:], ""])


PLAIN = {"four": FOUR, "eight": eight(), "seventeen": seventeen(), "forty": forty()}
CASES = PLAIN | {f"{name}, layers": layered(PLAIN[name]) for name in ("eight", "seventeen", "forty")}
