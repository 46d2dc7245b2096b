"""Writes the tables and synthetic tasks that the topologies from connectomes read, from the tables in data/.

    python benchmarks/anatomy_data.py [--out FOLDER]

Under the repository's root (or FOLDER):

- topologies/celegans/*.csv: neurons of each class, the table of connections as it was published, and its gap junctions
  with each pair once;
- topologies/mushroom_body/*.csv: neurons of each class of either hemisphere, and their synapses;
- experiments/data/celegans_touch.npz, mushroom_body_odours.npz: synthetic tasks, whose recipes stand below.

Everything is drawn from fixed seeds; running it again gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
WORM, LARVA = ROOT / "data" / "celegans", ROOT / "data" / "drosophila_larva"

SENSORY = ("Amphid", "Cephalic", "Mechanosensory", "Touch", "Phasmid", "O2, CO2, social signals, touch")
STIMULI: dict[str, tuple[str, tuple[str, ...]]] = {
    "anterior touch": ("backward", ("ALML", "ALMR", "AVM")),
    "posterior touch": ("forward", ("PLML", "PLMR")),
    "nose touch": ("backward", ("ASHL", "ASHR", "FLPL", "FLPR", "OLQDL", "OLQDR", "OLQVL", "OLQVR")),
    "head touch": ("head withdrawal", ("IL1DL", "IL1DR", "IL1L", "IL1R", "IL1VL", "IL1VR")),
    "repellent at the head": ("backward", ("ASHL", "ASHR", "ADLL", "ADLR")),
    "repellent at the tail": ("forward", ("PHAL", "PHAR", "PHBL", "PHBR")),
    "attractant": ("forward", ("AWAL", "AWAR", "AWCL", "AWCR", "ASEL", "ASER")),
    "carbon dioxide": ("turn", ("BAGL", "BAGR")),
}
"""Sensory neurons of each stimulus and the behaviour that follows. Touch to the body: Chalfie et al. 1985; to the
nose: Kaplan and Horvitz 1993; to the head: Hart, Sims and Kaplan 1995; repellents: Hilliard, Bargmann and Bargmann
2002; attractants: Bargmann and Horvitz 1991, Bargmann, Hartwieg and Horvitz 1993; carbon dioxide: Hallem and
Sternberg 2008."""
BEHAVIOURS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "forward": (("DB", "VB"), ("DA", "VA")),
    "backward": (("DA", "VA"), ("DB", "VB")),
    "head withdrawal": (("RMD",), ()),
    "turn": (("RIV", "SMDV"), ()),
}
"""Motor neurons, by the first letters of their names, that a behaviour excites and silences (Chalfie et al. 1985;
Hart, Sims and Kaplan 1995; Gray, Hill and Bargmann 2005)."""
SAMPLES = 1200
ODOURS, ODOUR_SAMPLES = 10, 900


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT)
    out = parser.parse_args().out
    for folder in ("topologies/celegans", "topologies/mushroom_body", "experiments/data"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    classes = worm_classes()
    for name, neurons in classes.items():
        table(out / "topologies" / "celegans" / f"{name}.csv", ("name", "type"), neurons)
    shutil.copyfile(
        WORM / "varshney2011_edges.csv", out / "topologies" / "celegans" / "varshney2011_edges.csv"
    )
    junctions = worm_junctions([neuron for neurons in classes.values() for neuron, _ in neurons])
    table(out / "topologies" / "celegans" / "gap_junctions.csv", ("pre", "post", "weight"), junctions)
    names = {name: [neuron for neuron, _ in neurons] for name, neurons in classes.items()}
    touch = worm_task(names["sensory"], names["motor"])
    save(out / "experiments" / "data" / "celegans_touch.npz", touch)
    for side in ("left", "right"):
        neurons, synapses = mushroom_body(side)
        for name, cells in neurons.items():
            path = out / "topologies" / "mushroom_body" / f"{side}_{name}.csv"
            table(path, ("name",), [(cell,) for cell in cells])
        path = out / "topologies" / "mushroom_body" / f"{side}_synapses.csv"
        table(path, ("pre", "post", "weight"), synapses)
    odours = odour_task(len(mushroom_body("left")[0]["pn"]))
    save(out / "experiments" / "data" / "mushroom_body_odours.npz", odours)


def table(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def save(path: Path, arrays: dict[str, NDArray]) -> None:
    """Write an npz file."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def worm_classes() -> dict[str, list[tuple[str, str]]]:
    """Cells of Varshney's table by class, each with its type, in the table's order.

    The class is the first one named in the column Type of all_cell_info.csv, so that a polymodal cell has one class:
    sensory where the type is an organ or a kind of stimulus (`SENSORY`), motor where it says motor neuron before
    interneuron, muscle, and interneuron otherwise (with RIM and RIP).
    """
    with (WORM / "all_cell_info.csv").open(encoding="utf-8") as file:
        types = {row["Cell name"].strip(): row["Type"].strip() for row in csv.DictReader(file)}
    found: dict[str, list[tuple[str, str]]] = {"sensory": [], "interneuron": [], "motor": [], "muscle": []}
    with (WORM / "varshney2011_nodes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kind = types[row["name"]]
            first = kind.partition(";")[0]
            if kind.startswith(SENSORY):
                found["sensory"].append((row["name"], kind))
            elif "motor neuron" in first:
                found["motor"].append((row["name"], kind))
            elif "muscle" in first:
                found["muscle"].append((row["name"], kind))
            else:
                found["interneuron"].append((row["name"], kind))
    return found


def worm_junctions(order: list[str]) -> list[tuple[str, str, int]]:
    """Varshney's gap junctions, which its table lists in both directions with one weight, each once.

    Args:
        order: of the neurons; the earlier one of a pair comes first. Junctions of a neuron with itself stay.
    """
    with (WORM / "varshney2011_edges.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["type"] == "electrical"]
    weight = {(row["pre"], row["post"]): int(row["weight"]) for row in rows}
    place = {name: index for index, name in enumerate(order)}
    for (pre, post), value in weight.items():
        assert weight[post, pre] == value, f"{pre} -- {post} is listed once, or with two weights"
    return [(pre, post, value) for (pre, post), value in weight.items() if place[pre] <= place[post]]


def worm_task(sensory: list[str], motor: list[str]) -> dict[str, NDArray]:
    """Stimuli on sensory neurons and the motor pattern each asks for.

    A sample has one stimulus (chance 0.6) or two at once. A stimulus of strength s, uniform in [0.4, 1], gives each of
    its neurons s; a neuron of two stimuli gets the larger. Every sensory neuron has normal noise of 0.25. The
    behaviour is that of the stronger stimulus. Its motor neurons are asked for the
    potential 0.3, those it silences for -0.3, all others for 0.

    Returns:
        stimulus [sample, sensory], motor [sample, motor], behaviour
        [sample]; `motor` has one of as many patterns as there are behaviours.
    """
    draw = np.random.default_rng(20260701)
    neurons = {name: [sensory.index(cell) for cell in cells] for name, (_, cells) in STIMULI.items()}
    patterns = np.zeros((len(BEHAVIOURS), len(motor)))
    for row, (active, silent) in enumerate(BEHAVIOURS.values()):
        for column, cell in enumerate(motor):
            patterns[row, column] += cell.startswith(active) - float(bool(silent) and cell.startswith(silent))
    count = SAMPLES
    x = draw.normal(0.0, 0.25, (count, len(sensory)))
    behaviour = np.zeros(count, dtype=np.int64)
    for sample in range(count):
        chosen = draw.choice(len(STIMULI), size=1 if draw.random() < 0.6 else 2, replace=False)
        strengths = draw.uniform(0.4, 1.0, len(chosen))
        signal = np.zeros(len(sensory))
        for index, strength in zip(chosen, strengths, strict=True):
            cells = neurons[list(STIMULI)[index]]
            signal[cells] = np.maximum(signal[cells], strength)
        x[sample] += signal
        winner = list(STIMULI)[chosen[int(np.argmax(strengths))]]
        behaviour[sample] = list(BEHAVIOURS).index(STIMULI[winner][0])
    return {
        "stimulus": x.astype(np.float16),
        "motor": (0.3 * patterns[behaviour]).astype(np.float16),
        "behaviour": behaviour,
    }


def mushroom_body(side: str) -> tuple[dict[str, list[str]], list[tuple[str, str, int]]]:
    """Neurons by class and synapses of one hemisphere's mushroom body (Eichler et al. 2017).

    The matrix is [pre, post]; its rows carry no names, so a neuron's name is its class and its row.
    """
    counts = np.loadtxt(LARVA / f"mushroom_body_{side}_adjacency.csv").astype(int)
    labels = (LARVA / f"mushroom_body_{side}_cell_labels.csv").read_text(encoding="utf-8").split()
    classes = {"K": "kc", "P": "pn", "I": "mbin", "O": "mbon"}
    names = [f"{classes[label]}_{row}" for row, label in enumerate(labels)]
    found = {
        name: [cell for cell, label in zip(names, labels, strict=True) if classes[label] == name]
        for name in ("pn", "kc", "mbin", "mbon")
    }
    pre, post = np.nonzero(counts)
    return found, [(names[i], names[j], int(counts[i, j])) for i, j in zip(pre, post, strict=True)]


def odour_task(neurons: int) -> dict[str, NDArray]:
    """Synthetic odours on projection neurons, and which odour it was.

    Each odour drives every projection neuron with a chance of 0.3, by a strength that is uniform in [0.3, 1]. A sample
    multiplies its odour by a concentration, uniform in [0.5, 1], and adds normal noise of 0.25; rates below
    zero are zero.

    Returns:
        odour [sample, neuron], label [sample].
    """
    draw = np.random.default_rng(20260702)
    odours = draw.uniform(0.3, 1.0, (ODOURS, neurons)) * (draw.random((ODOURS, neurons)) < 0.3)
    count = ODOUR_SAMPLES
    label = np.arange(count) % ODOURS
    draw.shuffle(label)
    x = odours[label] * draw.uniform(0.5, 1.0, (count, 1)) + draw.normal(0.0, 0.25, (count, neurons))
    return {"odour": np.maximum(x, 0).astype(np.float16), "label": label}


if __name__ == "__main__":
    main()
