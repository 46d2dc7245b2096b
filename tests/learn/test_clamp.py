"""Apical potentials held at zero: what reaches the soma, what learns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main

ROOT = Path(__file__).parents[2]
PYRAMIDAL = ("l23_e", "l4_e", "l5_e", "l6_e", "higher")

CIRCUIT = """
circuit: clamps
populations:
  x: {type: input, size: 5}
  low: {type: pyramidal, size: 7, sign: excitatory, bias: {init: uniform, scale: 0.3}}
  high: {type: pyramidal, size: 6, sign: excitatory, bias: {init: uniform, scale: 0.3}%s}
  sst: {type: interneuron, size: 4, activation: softplus, sign: inhibitory}
  y: {type: output, size: 3}
projections:
  x_low: {source: x, target: low}
  low_high: {source: low, target: high}
  low_sst: {source: low, target: sst, weights: {scale: 0.5}}
  high_y: {source: high, target: y}
  y_bursts: {source: y, target: high, site: apical, carries: burst, connect: {rule: transpose, of: high_y}}
  high_bursts: {source: high, target: low, site: apical, carries: burst, connect: {rule: transpose, of: low_high}}
%s"""
APICAL = """  x_apical: {source: x, target: high, site: apical, weights: {scale: 0.7}}
  sst_high: {source: sst, target: high, site: apical, weights: {scale: 0.5}}
"""


def equilibrium(folder: Path, name: str, circuit: str, *options: str) -> Path:
    """Equilibria of fixed inputs, with these options."""
    rng = np.random.default_rng(0)
    (folder / f"{name}.yaml").write_text(circuit)
    np.save(folder / "x.npy", rng.random((8, 5)))
    np.save(folder / "t.npy", rng.integers(0, 3, 8))
    args = ["equilibrium", str(folder / f"{name}.yaml"), "--input", str(folder / "x.npy"), "--target"]
    sets = [word for option in ("dtype=float64", "seed=3", *options) for word in ("--set", option)]
    out = folder / f"{name}.h5"
    assert main([*args, str(folder / "t.npy"), *sets, "-o", str(out)]) == 0
    return out


@pytest.mark.parametrize("feedback", ["apical", "tied"])
def test_a_clamp_is_the_circuit_without_apical_sites(tmp_path: Path, feedback: str) -> None:
    """Nothing at `high`'s apical site: a circuit without these projections and without control there."""
    control = f"control={{pathway: dynamic_inversion, feedback: {feedback}}}"
    clamp = "manipulations={still: {kind: clamp, population: high, during: training}}"
    held = equilibrium(tmp_path, "held", CIRCUIT % ("", APICAL), control, clamp)
    bare = equilibrium(tmp_path, "bare", CIRCUIT % (", controlled: false", ""), control)
    with h5py.File(held) as a, h5py.File(bare) as b:
        for phase in ("free", "controlled"):
            assert a[f"equilibria/{phase}/converged"][:].all()
            assert a[f"equilibria/{phase}"].attrs["clamped"] == "high"
            for name in ("low", "high", "sst", "y"):
                for variable in ("soma", "control"):
                    where = f"equilibria/{phase}/{name}/{variable}"
                    np.testing.assert_allclose(a[where][:], b[where][:], atol=1e-9)
            assert not a[f"equilibria/{phase}/high/apical"][:].any()
            soma, basal = (a[f"equilibria/{phase}/high/{v}"][:] for v in ("soma", "basal"))
            np.testing.assert_array_equal(soma, basal)
        for name in ("low_high", "x_apical", "sst_high", "high_bias"):
            assert name not in a["updates"] or not a[f"updates/{name}"][:].any()
        assert {"low_high", "x_apical", "sst_high", "high_bias"} <= set(a["updates"])
        assert a["updates/high_y"][:].all()
        for name in b["updates"]:
            np.testing.assert_allclose(a[f"updates/{name}"][:], b[f"updates/{name}"][:], atol=1e-9)
        if feedback == "apical":  # no bursts from `high`: nobody teaches `low` either
            assert not a["updates/x_low"][:].any()


def column(folder: Path, name: str, *options: str) -> h5py.File:
    """The clamped experiment on few samples."""
    out = folder / f"{name}.h5"
    sets = [
        word
        for option in ("learn.epochs=1", "data.limit=80", "threads=1", *options)
        for word in ("--set", option)
    ]
    file = ROOT / "experiments" / "cortical_column_clamped.yaml"
    assert main(["run", str(file), "-o", str(out), "--quiet", *sets]) == 0
    return h5py.File(out)


def changed(run: h5py.File) -> set[str]:
    """Parameters that differ in any bit between the first and the last snapshot."""
    return {
        name
        for name, values in run["weights"].items()
        if name != "step" and values[0].tobytes() != values[-1].tobytes()
    }


def test_the_clamped_column_learns_nothing_at_all(tmp_path: Path) -> None:
    with column(tmp_path, "clamped") as run:
        assert len(run["weights/step"]) == 2 and changed(run) == set()
        for split in ("train", "validation", "test"):
            for metric in ("loss", "accuracy"):
                values = run[f"training/{split}_{metric}"][:]
                assert (values == values[0]).all()
        assert (
            run["training/control_cost"][:] > 0
        ).all()  # evaluations are not clamped: control would be needed
    with column(tmp_path, "free", "manipulations={}") as run:
        names = changed(run)
        onto = {
            n for n, e in run["edges"].items() if e["target_node_id"].attrs["node_population"] in PYRAMIDAL
        }
        rates = {n for n in onto if run[f"edges/{n}"].attrs["carries"] == "rate"}
        assert rates <= names and "higher_readout" not in names
        assert run["training/train_loss"][-1] < run["training/train_loss"][0]


def test_updates_of_the_clamped_column_are_zero_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((6, 64)))
    np.save(tmp_path / "t.npy", rng.integers(0, 10, 6))
    clamp = f"manipulations={{apical: {{kind: clamp, population: [{', '.join(PYRAMIDAL)}]}}}}"
    sets = ["--set", "control={pathway: dynamic_inversion, feedback: apical}", "--set", clamp]
    args = [
        "--input",
        str(tmp_path / "x.npy"),
        "--target",
        str(tmp_path / "t.npy"),
        "-o",
        str(tmp_path / "eq.h5"),
    ]
    assert main(["equilibrium", str(ROOT / "topologies" / "cortical_column.yaml"), *args, *sets]) == 0
    with h5py.File(tmp_path / "eq.h5") as file:
        assert file["equilibria/controlled/converged"][:].all()
        assert len(file["updates"]) > 50
        assert all((values[:] == 0.0).all() for values in file["updates"].values())
        assert file["equilibria/controlled/readout/control"][:].any()


def test_the_windows(tmp_path: Path) -> None:
    """A clamp in tests changes what is measured and not what is learned; one in both changes both."""
    during = "manipulations.apical.during="
    with (
        column(tmp_path, "test", during + "test") as tested,
        column(tmp_path, "f", "manipulations={}") as free,
    ):
        for name in free["weights"]:
            np.testing.assert_array_equal(tested[f"weights/{name}"][:], free[f"weights/{name}"][:])
        assert tested["training/test_loss"][0] != free["training/test_loss"][0]
        first = tested["training/test_loss"][0]
    with column(tmp_path, "both", during + "both") as both:
        assert changed(both) == set()
        assert (both["training/test_loss"][:] == first).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("manipulations.apical.site=soma", "clamping the site 'soma' is not built yet; allowed: apical"),
        ("manipulations.apical.value=0.5", "only 0 is built; allowed: 0"),
        ("manipulations.apical.population=l4_pv", "'l4_pv' is of type interneuron and has no apical site"),
        ("manipulations.apical.population=l9", "no population 'l9'"),
        ("manipulations.apical.population=[l4_e, l4_e]", "'l4_e' stands twice"),
        ("manipulations.apical.during=sleep", "during"),
        ("learn={rule: recurrent_backprop}", "recurrent_backprop is not delivered at apical sites"),
        ("control={pathway: linear_feedback}", "clamps under the pathway linear_feedback are not built yet"),
    ],
)
def test_refusals(option: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = str(ROOT / "experiments" / "cortical_column_clamped.yaml")
    assert main(["run", file, "-o", str(tmp_path / "no.h5"), "--set", option]) == 1
    found = capsys.readouterr().err
    assert message in found.replace("\n", " ")
    assert not (tmp_path / "no.h5").exists()


def test_commands_that_have_no_such_window(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = str(ROOT / "experiments" / "cortical_column_clamped.yaml")
    assert main(["diagnose", file]) == 1
    assert "diagnose takes no clamp" in capsys.readouterr().err.replace("\n", " ")
    np.save(tmp_path / "x.npy", np.zeros((2, 64)))
    circuit = str(ROOT / "topologies" / "cortical_column.yaml")
    clamp = "manipulations={a: {kind: clamp, population: l4_e, during: test}}"
    args = ["equilibrium", circuit, "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "e.h5")]
    assert main([*args, "--set", clamp]) == 1
    assert "holds in tests alone" in capsys.readouterr().err.replace("\n", " ")
