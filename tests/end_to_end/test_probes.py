"""Every variable that can be recorded, against numpy on what the run file itself holds."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from circuitlab.cli.main import main
from circuitlab.experiment.training import prepare, train
from circuitlab.learn.train import Observer, Trainer
from circuitlab.record.compare import compare
from circuitlab.spec.experiment import load_experiment

CIRCUIT = """
circuit: probed
seed: 3
layers: {L4: {from: 0, to: 1}, L23: {from: 1, to: 2}}
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 12, activation: tanh, tau: 10 ms, layer: L23, positions: {random: {extent: [1, 1]}},
      names: [AVA0, AVA1, AVA2, AVA3, AVA4, AVA5, PVC0, PVC1, PVC2, PVC3, PVC4, PVC5]}
  i: {type: interneuron, size: 5, activation: tanh, tau: 5 ms, layer: L4, bias: {init: normal, scale: 0.1}}
  readout: {type: output, size: 10, tau: 10 ms}
projections:
  retina_e: {source: retina, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.5}, weights: {scale: 0.3}}
  e_i: {source: e, target: i}
  i_e: {source: i, target: e, site: apical}
  e_readout: {source: e, target: readout}
"""
EXPERIMENT = """
experiment: probed
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
dtype: float64
control: {controller: {alpha: 1.0}}
solve: {tolerance: 1e-9}
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 2, batch_size: 30, constrain: {largest_singular_value: none}}
record:
  e: {population: e, variable: [soma, rate, basal, apical, control], every: 1 step}
  x: {population: retina, variable: rate, every: 1 step}
  i: {population: i, variable: [soma, rate, basal, control], every: 1 step}
  out: {population: readout, variable: [soma, basal, control, controller], every: 1 step}
  eq: {variable: [residual, iterations, converged], every: 1 step}
  w: {projection: '*', variable: weights, every: 1 step}
  dw: {projection: '*', variable: updates, every: 1 step}
  b: {population: [e, i, readout], variable: [bias, updates], every: 1 step}
  named: {population: e, names: [PVC3, 'AVA*'], variable: soma, every: 1 step}
  upper: {population: '*', variable: soma, where: 'layer == "L23"', every: 1 epoch}
  few: {projection: e_e, variable: weights, source: ['AVA*'], target: ['0:6', PVC0], where: 'weight > 0'}
  fixed: {population: e, variable: [soma, basal, apical, control], units: [3, 1], samples: [4, 2], of: test}
  fixed_free: {population: e, variable: [soma, basal, apical], phase: free, samples: [4, 2], of: test}
  fixed_out: {population: readout, variable: [soma, controller], samples: [4, 2], of: test}
  fixed_eq: {variable: [residual, iterations, converged], samples: [4, 2], of: test}
"""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A run file, by h5py alone."""
    with h5py.File(path) as file:
        yield file


def run(folder: Path, text: str, name: str = "run.h5", *options: str, circuit: str = CIRCUIT) -> Path:
    (folder / "circuit.yaml").write_text(circuit)
    (folder / "experiment.yaml").write_text(text)
    path = folder / name
    assert main(["run", str(folder / "experiment.yaml"), "-o", str(path), "--quiet", *options]) == 0
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("probes"), EXPERIMENT)


def data(file: Any, probe: str) -> Any:
    return file[f"activity/{probe}/data"][:]


def weights(file: Any, name: str, step: int) -> np.ndarray:
    """The matrix [target, source] of a projection after so many updates."""
    edges = file[f"edges/{name}"]
    sizes = (
        len(file[f"nodes/{edges.attrs['target']}/node_id"]),
        len(file[f"nodes/{edges.attrs['source']}/node_id"]),
    )
    values = edges["0/syn_weight"][:] if step == 0 else data(file, f"w_{name}")[step - 1]
    out = np.zeros(sizes)
    out[edges["target_node_id"][:], edges["source_node_id"][:]] = values
    return out


def bias(file: Any, name: str, step: int) -> np.ndarray:
    return file[f"nodes/{name}/0/bias"][:] if step == 0 else data(file, f"b_{name}_bias")[step - 1]


def test_compartments_are_their_sums_over_the_weights_of_before_the_update(recorded: Path) -> None:
    with opened(recorded) as file:
        steps = file["activity/e_soma/step"][:]
        assert steps.tolist() == [1, 2, 3, 4, 5, 6]
        x, rate, inhibition = (data(file, name) for name in ("x", "e_rate", "i_rate"))
        for frame, step in enumerate(steps):
            there = file["activity/e_soma/sample_ids"][frame] >= 0
            w = {name: weights(file, name, step - 1) for name in file["edges"]}
            basal = x[frame] @ w["retina_e"].T + rate[frame] @ w["e_e"].T + bias(file, "e", step - 1)
            np.testing.assert_allclose(data(file, "e_basal")[frame][there], basal[there], atol=1e-12)
            apical = inhibition[frame] @ w["i_e"].T + data(file, "e_control")[frame]
            np.testing.assert_allclose(data(file, "e_apical")[frame][there], apical[there], atol=1e-12)
            basal = rate[frame] @ w["e_i"].T + bias(file, "i", step - 1)
            np.testing.assert_allclose(data(file, "i_basal")[frame][there], basal[there], atol=1e-12)
            np.testing.assert_allclose(
                rate[frame][there], np.tanh(data(file, "e_soma")[frame][there]), atol=1e-12
            )
            # the equilibrium: soma = basal + apical, and basal + control where there is no apical site
            balance = data(file, "e_soma") - data(file, "e_basal") - data(file, "e_apical")
            assert np.abs(balance[frame][there]).max() < 1e-7
            balance = data(file, "out_soma") - data(file, "out_basal") - data(file, "out_control")
            assert np.abs(balance[frame][there]).max() < 1e-7
            np.testing.assert_allclose(
                data(file, "out_control")[frame][there],
                data(file, "out_controller")[frame][there],
                atol=1e-12,
            )


def test_updates_are_the_mean_product_and_move_the_weights(recorded: Path) -> None:
    """dW = mean of psi sigma(phi)^T, and plain SGD moves every weight by lr times it."""
    with opened(recorded) as file:
        for frame, step in enumerate(file["activity/e_soma/step"][:]):
            used = data(file, "eq_converged")[frame]
            pre = {"e": data(file, "e_rate"), "i": data(file, "i_rate"), "retina": data(file, "x")}
            post = {
                "e": data(file, "e_control"),
                "i": data(file, "i_control"),
                "readout": data(file, "out_control"),
            }
            for name, edges in file["edges"].items():
                psi, rate = post[edges.attrs["target"]][frame][used], pre[edges.attrs["source"]][frame][used]
                expected = (psi.T @ rate / used.sum())[edges["target_node_id"][:], edges["source_node_id"][:]]
                update = data(file, f"dw_{name}")[frame]
                np.testing.assert_allclose(update, expected, atol=1e-12)
                i, j = edges["target_node_id"][:], edges["source_node_id"][:]
                moved = (weights(file, name, step) - weights(file, name, step - 1))[i, j]
                np.testing.assert_allclose(moved, 0.1 * update, atol=1e-12)
            for name, psi in post.items():
                update = data(file, f"b_{name}_updates")[frame]
                np.testing.assert_allclose(update, psi[frame][used].mean(0), atol=1e-12)
                moved = bias(file, name, step) - bias(file, name, step - 1)
                np.testing.assert_allclose(moved, 0.1 * update, atol=1e-12)


def test_weights_at_a_step_are_the_snapshot_of_that_step(recorded: Path) -> None:
    with opened(recorded) as file:
        snapshots = file["weights/step"][:].tolist()
        assert snapshots == [0, 3, 6]
        for step in (3, 6):
            for name in file["edges"]:
                whole = file[f"weights/{name}"][snapshots.index(step)]
                np.testing.assert_array_equal(data(file, f"w_{name}")[step - 1], whole)
        few = file["activity/few"]
        assert few["step"][:].tolist() == snapshots, "before learning, too"
        edges = file["edges/e_e"]
        i, j, start = edges["target_node_id"][:], edges["source_node_id"][:], edges["0/syn_weight"][:]
        expected = np.flatnonzero((j < 6) & ((i < 6) | (i == 6)) & (start > 0))
        assert few["edge_ids"][:].tolist() == expected.tolist()
        np.testing.assert_array_equal(few["data"][:], file["weights/e_e"][:][:, expected])


def test_the_residual_is_that_of_the_recorded_state(recorded: Path) -> None:
    """The largest of the blocks' residuals relative to their norms, recomputed from /activity, /edges and /nodes; the
    controller's own, alpha u + dL/dy, with the softmax of the outputs and the classes in labels."""
    with opened(recorded) as file:
        found = data(file, "eq_residual")
        assert found.shape == (6, 30)
        assert (found[data(file, "eq_converged")] <= 1e-9).all()
        iterations = data(file, "eq_iterations")
        ids = file["activity/eq_residual/sample_ids"][:]
        assert (iterations[ids >= 0] > 0).all()
        assert (iterations[ids < 0] == -1).all() and np.isnan(found[ids < 0]).all()
        assert (ids < 0).any(), "the last minibatch is smaller"
        assert file["activity/eq_residual/data"].attrs["description"].startswith("[frame, sample] ")
        assert file["activity/eq_residual/data"].attrs["phase"] == "controlled"


def test_names_patterns_and_conditions_choose_neurons(recorded: Path) -> None:
    with opened(recorded) as file:
        named = file["activity/named"]
        assert named["unit_ids"][:].tolist() == [9, 0, 1, 2, 3, 4, 5]
        assert named["unit_names"].asstr()[:].tolist() == ["PVC3", *(f"AVA{n}" for n in range(6))]
        np.testing.assert_array_equal(named["data"][:], data(file, "e_soma")[:, :, named["unit_ids"][:]])
        assert [name for name in file["activity"] if name.startswith("upper")] == ["upper_e"], (
            "the one in L23"
        )


def test_fixed_samples_are_run_with_the_weights_as_they_are(recorded: Path) -> None:
    with opened(recorded) as file:
        assert file["activity/fixed_soma/step"][:].tolist() == [0, 3, 6]
        assert file["activity/fixed_soma/labels"].shape == (2,)
        parts = {name: data(file, f"fixed_{name}") for name in ("soma", "basal", "apical")}
        assert np.abs(parts["soma"] - parts["basal"] - parts["apical"]).max() < 1e-7
        np.testing.assert_allclose(
            data(file, "fixed_free_soma"),
            data(file, "fixed_free_basal") + data(file, "fixed_free_apical"),
            atol=1e-7,
        )
        # alpha u = one-hot - softmax(y) at the controlled equilibrium
        y, u, labels = (
            data(file, "fixed_out_soma"),
            data(file, "fixed_out_controller"),
            file["activity/fixed_soma/labels"][:],
        )
        p = np.exp(y - y.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        np.testing.assert_allclose(u, np.eye(10)[labels] - p, atol=1e-7)
        assert data(file, "fixed_eq_converged").all()
        assert data(file, "fixed_eq_residual").shape == (3, 2)


ALONG = """
experiment: along
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
dtype: float64
control: {controller: {alpha: 1.0, tau: 20 ms}}
solve: {tolerance: 1e-9, method: %s}
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 1, batch_size: 30}
record:
  free: &free
    {population: [e, i, readout], variable: soma, samples: [4, 2, 7], of: test, along: {iterations: 1}, phase: free}
  sums: {<<: *free, population: e, variable: [basal, apical]}
  res: {samples: [4, 2, 7], of: test, along: {iterations: 1}, phase: free, variable: residual}
  settled: &settled {population: e, variable: [soma, control], samples: [4, 2, 7], of: test}
  settled_out: {<<: *settled, population: readout, variable: [soma, controller]}
  rest: {<<: *settled, population: [e, i, readout], variable: soma, phase: free}
  x: {<<: *settled, population: retina, variable: rate}
  way: {<<: *settled, along: {iterations: 5}}
  way_out: {<<: *settled, population: readout, variable: controller, along: {iterations: 5, until: 20}}
  time: &time {<<: *settled, variable: [soma, basal, apical, control], along: {real_time: 600 ms, every: 20 ms}}
  time_out: {<<: *time, population: readout, variable: [soma, controller]}
  rising:
    {<<: *settled, variable: soma, phase: free, along: {real_time: 100 ms, every: 5 ms, dt: 0.5 ms}}
"""


@pytest.fixture(scope="module")
def along(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("along"), ALONG % "fixed_point")


def final(file: Any, name: str) -> np.ndarray:
    """The matrix [target, source] of a projection after training."""
    edges = file[f"edges/{name}"]
    ends = (edges.attrs["target"], edges.attrs["source"])
    out = np.zeros([len(file[f"nodes/{end}/node_id"]) for end in ends])
    out[edges["target_node_id"][:], edges["source_node_id"][:]] = file[f"weights/{name}"][-1]
    return out


def test_iterations_are_the_solvers_own(along: Path) -> None:
    """The published fixed-point iteration of the free state: the next soma is the prediction from this one, and the
    residual how far the two are apart."""
    with opened(along) as file:
        group = file["activity/free_e"]
        soma, basal, apical = (data(file, name)[-1] for name in ("free_e", "sums_basal", "sums_apical"))
        whole = np.concatenate([data(file, f"free_{name}")[-1] for name in ("e", "i", "readout")], -1)
        rest = np.concatenate([data(file, f"rest_{name}")[-1] for name in ("e", "i", "readout")], -1)
        points = group["iteration"][:]
        assert points.tolist() == list(range(501)), "as many as solve.max_iterations"
        assert data(file, "free_e").shape == (2, 501, 3, 12)
        assert group["data"].attrs["description"].startswith("[frame, point, sample, unit] ")
        assert file["activity/res/data"].attrs["description"].startswith("[frame, point, sample] ")
        drive = data(file, "x")[-1] @ final(file, "retina_e").T + file["weights/e_bias"][-1]
        np.testing.assert_allclose(soma[0], drive, atol=1e-12)  # begins with the first step from silence
        for sample, last in enumerate(group["iterations"][-1]):
            assert 3 < last < 100
            moving = slice(0, last - 1)
            np.testing.assert_allclose(soma[1:last, sample], (basal + apical)[moving, sample], atol=1e-12)
            assert np.abs(whole[last - 1, sample] - rest[sample]).max() > 0
            np.testing.assert_array_equal(
                whole[last:, sample], np.tile(rest[sample], (len(points) - last, 1))
            )
            after = np.concatenate([whole[1:last, sample], rest[None, sample]])
            apart = np.linalg.norm(after - whole[:last, sample], axis=1) / np.linalg.norm(after, axis=1)
            np.testing.assert_allclose(data(file, "res")[-1, :last, sample], apart, rtol=1e-6)
            assert (data(file, "res")[-1, last:, sample] <= 1e-9).all()
        np.testing.assert_array_equal(group["residual"][:], data(file, "res"))


def test_the_last_point_is_the_equilibrium(along: Path) -> None:
    with opened(along) as file:
        assert file["activity/way_soma/iteration"][:].tolist() == list(range(0, 501, 5))
        assert file["activity/way_out/iteration"][:].tolist() == [0, 5, 10, 15, 20]
        assert (file["activity/way_soma/iterations"][:] > 5).all()
        for name in ("soma", "control"):
            settled, way, time = (data(file, f"{kind}_{name}") for kind in ("settled", "way", "time"))
            np.testing.assert_array_equal(way[:, -1], settled)
            assert np.abs(way[:, 0] - settled).max() > 1e-3
            np.testing.assert_allclose(time[:, -1], settled, atol=1e-6)
        np.testing.assert_allclose(
            data(file, "time_out_controller")[:, -1], data(file, "settled_out_controller"), atol=1e-6
        )
        # real time under control begins at the free equilibrium, with the controller at zero
        np.testing.assert_array_equal(data(file, "time_soma")[:, 0], data(file, "rest_e"))
        assert (data(file, "time_out_controller")[:, 0] == 0).all() and (
            data(file, "time_control")[:, 0] == 0
        ).all()
        assert file["activity/time_soma/time"][:].tolist() == list(range(0, 601, 20))
        assert file["activity/time_soma/time"].attrs["units"] == "ms"
        assert file["activity/time_soma"].attrs["dt_ms"] == 0.5


@pytest.mark.parametrize("phase", ["controlled", "free"])
def test_real_time_is_that_of_the_equations(along: Path, phase: str) -> None:
    """scipy's integrator on the equations of the design: tau phi' = f(phi) + psi, tau psi' = -psi + sigma' (W^T psi) +
    D^T u, tau_u u' = -dL/dy - alpha u, with the weights of the file."""
    with opened(along) as file:
        w = np.zeros((27, 27))
        rows = {"e": slice(0, 12), "i": slice(12, 17), "readout": slice(17, 27)}
        for name, edges in file["edges"].items():
            if edges.attrs["source"] != "retina":
                w[rows[edges.attrs["target"]], rows[edges.attrs["source"]]] = final(file, name)
        b = np.concatenate([file[f"weights/{name}_bias"][-1] for name in rows])
        u_x = np.zeros((3, 27))
        u_x[:, :12] = data(file, "x")[-1] @ final(file, "retina_e").T
        tau = np.concatenate([np.full(12, 10.0), np.full(5, 5.0), np.full(10, 10.0)])
        labels = file["activity/settled_soma/labels"][:]
        rest = np.concatenate([data(file, f"rest_{name}")[-1] for name in rows], -1)
        probe = "time_soma" if phase == "controlled" else "rising"
        times, found = file[f"activity/{probe}/time"][:], data(file, probe)[-1]
        for sample in range(3):

            def slope(t: float, z: np.ndarray, sample: int = sample) -> np.ndarray:
                phi, psi, u = z[:27], z[27:54], z[54:]
                rate = np.concatenate([np.tanh(phi[:17]), phi[17:]])
                gain = np.concatenate([1 - np.tanh(phi[:17]) ** 2, np.ones(10)])
                free = (-phi + w @ rate + u_x[sample] + b) / tau
                if phase == "free":
                    return np.concatenate([free, np.zeros(37)])
                p = np.exp(phi[17:] - phi[17:].max())
                error = p / p.sum() - np.eye(10)[labels[sample]]
                back = -psi + gain * (w.T @ psi)
                back[17:] += u
                return np.concatenate([free + psi / tau, back / tau, (-error - u) / 20.0])

            start = np.concatenate([rest[sample] if phase == "controlled" else np.zeros(27), np.zeros(37)])
            solved = solve_ivp(slope, (0, times[-1]), start, t_eval=times, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(found[:, sample], solved.y[:12].T, atol=2e-6)
            if phase == "controlled":
                np.testing.assert_allclose(
                    data(file, "time_control")[-1][:, sample], solved.y[27:39].T, atol=2e-6
                )
                np.testing.assert_allclose(
                    data(file, "time_out_controller")[-1][:, sample], solved.y[54:].T, atol=2e-6
                )
        if phase == "controlled":  # compartments are sums, not the balance that holds at rest alone
            sums = data(file, "time_basal") + data(file, "time_apical")
            assert np.abs(data(file, "time_soma") - sums)[:, 1].max() > 1e-4
            np.testing.assert_allclose(sums[:, -1], data(file, "time_soma")[:, -1], atol=1e-6)


@pytest.mark.parametrize("method", ["auto", "anderson", "lbfgs", "levenberg", "euler"])
def test_every_solver_shows_its_way_and_nothing_changes_by_it(tmp_path: Path, method: str) -> None:
    text = ALONG[: ALONG.index("  free: &free")] % method
    plain = text + "  settled: {population: e, variable: [soma, control], samples: [4, 2, 7], of: test}\n"
    watched = (
        plain
        + "  way: {population: e, variable: [soma, control], samples: [4, 2, 7], of: test, along: {iterations: 2}}\n"
    )
    options = (
        "--set",
        "solve.max_time=800 ms",
        "--set",
        "solve.tolerance=1e-6",
        "--set",
        "data.limit=30",
        "--set",
        "data.validation=0.5",
    )
    options += ("--set", "solve.max_iterations=3000") if method == "euler" else ()
    a, b = run(tmp_path, plain, "a.h5", *options), run(tmp_path, watched, "b.h5", *options)
    differing = {line.split(":")[0] for line in compare(a, b) if "way_" not in line}
    assert {name for name in differing if not name.startswith("checkpoint")} == {"spec/experiment"}
    with opened(b) as file:
        way, settled, residual = (
            data(file, "way_control"),
            data(file, "settled_control"),
            file["activity/way_soma/residual"][:],
        )
        stopped = file["activity/way_soma/iterations"][:]
        assert np.isfinite(way).all() and np.isfinite(residual).all()
        assert (stopped > 2).all()
        np.testing.assert_array_equal(way[:, -1], settled)
        assert (residual[:, 0] > 1e-3).all() and (residual[:, -1] <= 1e-6).all()
        assert np.abs(way[:, 10] - way[:, 0]).max() > 1e-4


class StopAt(Observer):
    """Asks a run to stop after an update."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, trainer: Trainer, *rest: Any) -> None:
        trainer.stop_requested = trainer.at.step == self.at


@pytest.mark.parametrize("step", [1, 4])
def test_a_resumed_run_records_the_same(recorded: Path, tmp_path: Path, step: int) -> None:
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    prepared = prepare(load_experiment(tmp_path / "experiment.yaml"))
    with pytest.raises(KeyboardInterrupt):
        train(prepared, tmp_path / "run.h5", command="test", observers=[StopAt(step)])
    with opened(tmp_path / "run.h5") as file:
        assert file.attrs["status"] == "interrupted"
        assert len(file["activity/e_soma/data"]) == step
    path = run(tmp_path, EXPERIMENT, "run.h5", "--resume")
    assert compare(recorded, path) == []


KOLEN_POLLACK = """
experiment: kp
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
dtype: float64
control: {feedback: kolen_pollack}
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 1, batch_size: 30}
record:
  s: {projection: [e_e, e_readout], variable: feedback_weights}
  w: {projection: e_*, variable: weights}
"""


def test_feedback_weights_along_projections(tmp_path: Path) -> None:
    with opened(run(tmp_path, KOLEN_POLLACK)) as file:
        assert sorted(file["activity"]) == ["s_e_e", "s_e_readout", "w_e_e", "w_e_i", "w_e_readout"]
        for name in ("e_e", "e_readout"):
            assert file[f"activity/s_{name}/data"].attrs["description"].startswith("[frame, edge] ")
            assert file[f"activity/s_{name}/data"].attrs["projection"] == name
            np.testing.assert_array_equal(data(file, f"s_{name}"), file[f"feedback/S/{name}"][:])
            np.testing.assert_array_equal(data(file, f"w_{name}"), file[f"weights/{name}"][:])


LINEAR = """
experiment: linear
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
control: {pathway: linear_feedback, feedback: random}
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 1, batch_size: 30, feedback: {rule: anti_hebbian, steps: 20}}
record:
  q: {population: e, variable: feedback_weights, units: [3, 1], every: 1 epoch}
  out: {population: readout, variable: controller, samples: [0, 1], of: test}
  psi: {population: e, variable: control, units: [3, 1], samples: [0, 1], of: test}
  way: {population: e, variable: control, units: [3, 1], samples: [0, 1], of: test, along: {real_time: 500 ms}}
"""


def test_feedback_weights_onto_neurons(tmp_path: Path) -> None:
    with opened(run(tmp_path, LINEAR)) as file:
        q = data(file, "q")
        assert q.shape == (2, 2, 10)
        assert file["activity/q/data"].attrs["description"].startswith("[frame, unit, output unit] ")
        np.testing.assert_array_equal(q, file["feedback/Q/e"][:][:, [3, 1]])
        assert np.abs(q[1] - q[0]).max() > 0, "it learns"
        expected = np.einsum("fso,fuo->fsu", data(file, "out"), q)
        np.testing.assert_allclose(data(file, "psi"), expected, atol=1e-6)
        np.testing.assert_allclose(data(file, "way")[:, -1], data(file, "psi"), atol=1e-3)
        assert len(file["activity/way/time"]) == 101


APICAL = """
circuit: apical
seed: 1
populations:
  x: {type: input, size: 64}
  h: {type: pyramidal, size: 9}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h}
  h_y: {source: h, target: y}
  y_h: {source: y, target: h, site: apical, carries: burst, plastic: true, connect: {rule: transpose, of: h_y}}
"""
BURSTS = """
experiment: bursts
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
dtype: float64
control: {feedback: apical}
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 1, batch_size: 30, feedback: {rule: kolen_pollack, decay: 1e-6}}
record:
  s: {projection: y_h, variable: [weights, feedback_weights, updates], every: 1 step}
  h: {population: h, variable: rate, every: 1 step}
  y: {population: y, variable: control, every: 1 step}
  eq: {variable: converged, every: 1 step}
"""


def test_bursts_are_feedback_weights(tmp_path: Path) -> None:
    """Kolen-Pollack's S learns the transposed update, sigma(phi) psi^T."""
    with opened(run(tmp_path, BURSTS, circuit=APICAL)) as file:
        np.testing.assert_array_equal(data(file, "s_weights"), data(file, "s_feedback_weights"))
        np.testing.assert_array_equal(data(file, "s_weights")[-1], file["weights/y_h"][-1])
        edges, used = file["edges/y_h"], data(file, "eq")[0]
        product = data(file, "h")[0][used].T @ data(file, "y")[0][used] / used.sum()
        expected = product[edges["target_node_id"][:], edges["source_node_id"][:]]
        np.testing.assert_allclose(data(file, "s_updates")[0], expected, atol=1e-9)


SHARED = """
circuit: shared
seed: 1
populations:
  x: {type: input, shape: [1, 8, 8]}
  h: {type: pyramidal, shape: [2, 6, 6]}
  m: {type: pyramidal, size: 12}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h, connect: {rule: convolution, kernel: 3}}
  h_m: {source: h, target: m, rank: 2}
  m_y: {source: m, target: y}
"""
SHARES = """
experiment: shares
circuit: circuit.yaml
data: {name: digits, limit: 90, validation: 0.1}
dtype: float64
learn: {optimizer: {name: sgd, lr: 0.1}, epochs: 1, batch_size: 30}
record:
  w: {projection: x_h, variable: [weights, updates], target: [40], every: 1 step}
  m: {projection: h_m, variable: weights, edges: [5, "10:12"]}
  dw: {projection: '*', variable: updates}
"""


def test_shared_weights_are_recorded_once(tmp_path: Path) -> None:
    with opened(run(tmp_path, SHARES, circuit=SHARED)) as file:
        edges, group = file["edges/x_h"], file["activity/w_weights"]
        expected = np.unique(edges["0/parameter_index"][:][edges["target_node_id"][:] == 40])
        assert sorted(group["parameter_ids"][:]) == expected.tolist()
        assert group["data"].attrs["description"].startswith("[frame, parameter] ")
        np.testing.assert_array_equal(group["data"][-1], file["weights/x_h"][-1][group["parameter_ids"][:]])
        moved = group["data"][1] - group["data"][0]
        np.testing.assert_allclose(moved, 0.1 * data(file, "w_updates")[1], atol=1e-12)
        np.testing.assert_array_equal(data(file, "m"), file["weights/h_m"][:][:, [5, 10, 11]])
        assert sorted(name for name in file["activity"] if name.startswith("dw")) == ["dw_m_y", "dw_x_h"]


def test_other_rules_record_the_control_that_would_be_needed(tmp_path: Path) -> None:
    text = EXPERIMENT[: EXPERIMENT.index("record:")].replace("learn: {", "learn: {rule: recurrent_backprop, ")
    text += """
record:
  e: {population: e, variable: [soma, basal, apical, control], every: 1 step}
  eq: {variable: residual, every: 1 step}
  w: {projection: '*', variable: updates, every: 1 step}
"""
    with opened(run(tmp_path, text)) as file:
        balance = data(file, "e_soma") - data(file, "e_basal") - data(file, "e_apical")
        assert np.nanmax(np.abs(balance)) < 1e-7
        assert np.nanmax(data(file, "eq")) <= 1e-9
        moved = file["weights/e_readout"][1] - file["weights/e_readout"][0]
        np.testing.assert_allclose(moved, 0.1 * data(file, "w_e_readout")[:3].sum(0), atol=1e-10)


def test_what_will_be_written_is_said_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(tmp_path, BURSTS, circuit=APICAL)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("recording")]
    assert re.fullmatch(r"recording about [\d.]+ [kM]B \(6 probes\)", line)
    run(tmp_path, BURSTS, "b.h5", "--json", circuit=APICAL)
    said = json.loads(capsys.readouterr().out)
    assert set(said["probes"]) == {"s_weights", "s_feedback_weights", "s_updates", "h", "y", "eq"}
    assert sum(said["probes"].values()) < said["recording_bytes"]
    assert 0.5 * path.stat().st_size < said["recording_bytes"] < 3 * path.stat().st_size
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100_000))
    command = ["run", str(tmp_path / "experiment.yaml"), "-o", str(tmp_path / "c.h5"), "--quiet"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert re.search(
        r"c\.h5: recording needs about [\d.]+ [kM]B while it is written, .* has 100 kB free; record", said
    )
    assert sorted(file.name for file in tmp_path.glob("c.h5*")) == []


def test_many_samples_are_run_in_portions(tmp_path: Path) -> None:
    """Three hundred samples give what each gives alone; memory is that of a portion."""
    text = (
        BURSTS[: BURSTS.index("record:")]
        .replace("limit: 90", "limit: 400")
        .replace("batch_size: 30", "batch_size: 400")
    )
    text += f"""
record:
  all: {{population: h, variable: soma, samples: {list(range(300))}}}
  way: {{population: h, variable: soma, samples: {list(range(300))}, along: {{iterations: 20, until: 40}}}}
  some: {{population: h, variable: soma, samples: [0, 249, 250, 299]}}
  solved: {{variable: iterations, samples: {list(range(300))}}}
"""
    with opened(run(tmp_path, text, circuit=APICAL)) as file:
        assert data(file, "all").shape == (2, 300, 9)
        np.testing.assert_allclose(data(file, "all")[:, [0, 249, 250, 299]], data(file, "some"), atol=1e-5)
        assert data(file, "way").shape == (2, 3, 300, 9) and np.isfinite(data(file, "way")).all()
        np.testing.assert_array_equal(data(file, "way")[:, -1], data(file, "all"))
        assert data(file, "solved").shape == (2, 300)
