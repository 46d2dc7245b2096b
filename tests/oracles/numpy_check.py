"""Recomputes a run file's equilibria and updates with numpy and h5py alone: nothing of circuitlab is imported."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

SIGMA = {
    "tanh": np.tanh,
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "relu": lambda v: np.maximum(v, 0),
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "softplus": lambda v: np.logaddexp(v, 0),
    "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
    "linear": lambda v: v,
}
SLOPE = {
    "tanh": lambda v: 1 / np.cosh(v) ** 2,
    "sigmoid": lambda v: np.exp(-v) / (1 + np.exp(-v)) ** 2,
    "relu": lambda v: (v > 0).astype(float),
    "leaky_relu": lambda v: np.where(v > 0, 1.0, 0.01),
    "softplus": lambda v: 1 / (1 + np.exp(-v)),
    "elu": lambda v: np.where(v > 0, 1.0, np.exp(v)),
    "linear": np.ones_like,
}
KINKED = {"relu": 0.0, "leaky_relu": 0.01}


class Oracle:
    """The largest error of every equation in a file, by name."""

    def __init__(self, path: str | Path) -> None:
        with h5py.File(path, "r") as file:
            self.nodes = {n: dict(g.attrs) for n, g in file["nodes"].items()}
            self.bias = {n: g["0/bias"][:] for n, g in file["nodes"].items() if "bias" in g["0"]}
            self.edges = {}
            for name, group in file["edges"].items():
                source, target = group["source_node_id"], group["target_node_id"]
                self.edges[name] = {
                    "source": source.attrs["node_population"],
                    "target": target.attrs["node_population"],
                    "i": target[:].astype(int),
                    "j": source[:].astype(int),
                    "w": group["0/syn_weight"][:],
                    "factors": [file[f"factors/{name}/{end}"][:] for end in ("target", "source")]
                    if f"factors/{name}" in file
                    else None,
                    "index": group["0/parameter_index"][:] if "parameter_index" in group["0"] else None,
                    "attrs": dict(group.attrs),
                }
            self.states = {
                phase: {
                    name: {k: d[:] for k, d in group.items()}
                    for name, group in file["equilibria"][phase].items()
                    if isinstance(group, h5py.Group) and name != "controller"
                }
                for phase in file["equilibria"]
            }
            self.converged = {
                phase: file["equilibria"][phase]["converged"][:] for phase in file["equilibria"]
            }
            if "controlled" in file["equilibria"]:
                group = file["equilibria/controlled"]
                self.control = dict(group.attrs)
                self.u = {name: d[:] for name, d in group["controller"].items()}
                self.loss = {name: d.attrs["loss"] for name, d in group["controller"].items()}
                self.target = {name: d[:] for name, d in file["samples/target"].items()}
                self.nudged = {name: d[:] for name, d in group.get("target", {}).items()}
                self.updates = {name: d[:] for name, d in file["updates"].items()}
                self.feedback = {
                    kind: {name: d[:] for name, d in file["feedback"][kind].items()}
                    for kind in file.get("feedback", {})
                }
            self.input = {name: d[:] for name, d in file["samples/input"].items()}

    def _gap_currents(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """sum_j g_ij (v_j - v_i) of every population, [sample, unit], for [sample, unit] of each population; a pair of
        neurons that is listed in both directions counts once."""
        found = {name: np.zeros_like(v) for name, v in values.items()}
        for edge in self.edges.values():
            if edge["attrs"]["kind"] != "electrical":
                continue
            seen = set()
            for i, j, g in zip(edge["i"].tolist(), edge["j"].tolist(), edge["w"].tolist(), strict=True):
                if edge["source"] == edge["target"] and (j, i) in seen:
                    continue
                seen.add((i, j))
                current = g * (values[edge["source"]][:, j] - values[edge["target"]][:, i])
                found[edge["target"]][:, i] += current
                found[edge["source"]][:, j] -= current
        return found

    def _slope(self, name: str, soma: np.ndarray) -> np.ndarray:
        a = self.nodes[name]
        return a["gain"] * SLOPE[a["activation"]](a["gain"] * (soma - a["threshold"]))

    def _input_to(self, phase: str, population: str, apical: bool) -> np.ndarray:
        state = self.states[phase]
        samples = len(next(iter(self.input.values())))
        total = np.zeros(
            (
                samples,
                len(self.bias[population]) if population in self.bias else state[population]["soma"].shape[1],
            )
        )
        for edge in self.edges.values():
            a = edge["attrs"]
            if edge["target"] != population or a["carries"] != "rate" or (a["site"] == "apical") != apical:
                continue
            if a["kind"] == "electrical":
                continue
            rate = (
                self.input[edge["source"]] if edge["source"] in self.input else state[edge["source"]]["rate"]
            )
            np.add.at(total.T, edge["i"], edge["w"][:, None] * rate.T[edge["j"]])
        return total

    def errors(self, phase: str) -> dict[str, float]:
        worst: dict[str, float] = {}

        def note(name: str, wrong: np.ndarray) -> None:
            wrong = np.abs(wrong[self.converged[phase]])
            worst[name] = max(worst.get(name, 0.0), float(wrong.max()) if wrong.size else 0.0)

        state = self.states[phase]
        currents = self._gap_currents({n: s["soma"] for n, s in state.items() if "soma" in s})
        for name, attributes in self.nodes.items():
            if attributes["type"] == "input":
                continue
            s = state[name]
            above = attributes["gain"] * (s["soma"] - attributes["threshold"])
            note("rate = sigma(gain (soma - threshold))", s["rate"] - SIGMA[attributes["activation"]](above))
            basal = self._input_to(phase, name, apical=False) + self.bias.get(name, 0.0) + currents[name]
            note("basal = W sigma(phi) + U x + b", s["basal"] - basal)
            on_apical = self._input_to(phase, name, apical=True)
            note("f(phi) + psi = 0", -s["soma"] + basal + on_apical + s["control"])
            if attributes["type"] == "pyramidal":
                note("apical = psi + rate-coded input", s["apical"] - s["control"] - on_apical)
                note("soma = basal + apical", s["soma"] - s["basal"] - s["apical"])
            else:
                assert "apical" not in s
                note("soma = basal + control", s["soma"] - s["basal"] - s["control"])
        if phase == "controlled":
            self._control(note)
            self._updates(worst)
        else:
            for name in self.states[phase]:
                if "control" in state[name]:
                    note("psi = 0 when free", state[name]["control"])
        return worst

    def _gradient(self, name: str, phase: str = "controlled") -> np.ndarray:
        y = self.states[phase][name]["soma"]
        if self.loss[name] == "squared_error":
            return y - self.target[name]
        p = np.exp(y - y.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True) - self.target[name]

    def _control(self, note) -> None:
        state = self.states["controlled"]
        for name, u in self.u.items():
            error = self._gradient(name)
            if self.control["pathway"] == "deep_feedback_control":
                step = self.control["nudge"] * (2.0 if self.loss[name] == "squared_error" else 1.0)
                nudged = self.states["free"][name]["soma"] - step * self._gradient(name, "free")
                note("r* = y - nudge dL/dy", self.nudged[name] - nudged)
                error = state[name]["soma"] - self.nudged[name]
            note("alpha u + dL/dy = 0", self.control["alpha"] * u + error)
        controlled = {n: a for n, a in self.nodes.items() if a["type"] != "input" and a["controlled"]}
        if self.control["pathway"] in ("linear_feedback", "deep_feedback_control"):
            u = np.concatenate(list(self.u.values()), axis=1)
            order = list(self.u)
            assert order, "Q's columns follow the output populations"
            for name in state:
                if "control" in state[name]:
                    q = self.feedback["Q"][name] if name in controlled else 0 * self.feedback["Q"][name]
                    note("psi = Q u", state[name]["control"] - u @ q.T)
            return
        raw = {n: np.zeros_like(s["control"]) for n, s in state.items() if "control" in s}
        near = self._gap_currents({n: s["control"] for n, s in state.items() if "control" in s})
        for name, edge in self.edges.items():
            carries, feedback = edge["attrs"]["carries"], self.control["feedback"]
            if edge["source"] in self.input or edge["attrs"]["kind"] == "electrical":
                continue
            if feedback == "apical" and carries == "burst":
                psi = state[edge["source"]]["control"]
                np.add.at(raw[edge["target"]].T, edge["i"], edge["w"][:, None] * psi.T[edge["j"]])
            elif feedback != "apical" and carries == "rate":
                psi = state[edge["target"]]["control"]
                weight = edge["w"] if feedback == "tied" else self.feedback["S"][name]
                np.add.at(raw[edge["source"]].T, edge["j"], weight[:, None] * psi.T[edge["i"]])
        for name, s in state.items():
            if "control" not in s:
                continue
            if name not in controlled:
                note("psi = 0 where not controlled", s["control"])
                continue
            activation = self.nodes[name]["activation"]
            own = s["control"] - near[name] - self.u.get(name, 0.0)
            wrong = own - self._slope(name, s["soma"]) * raw[name]
            if activation in KINKED:
                low, gain = KINKED[activation], self.nodes[name]["gain"]
                ends = np.sort(np.stack([low * gain * raw[name], gain * raw[name]]), axis=0)
                there = s["soma"] == self.nodes[name]["threshold"]
                inside = there & (own >= ends[0] - 1e-12) & (own <= ends[1] + 1e-12)
                wrong = np.where(inside, 0.0, wrong)
            note("psi = sigma'(phi) S psi + L psi + D^T u", wrong)

    def _updates(self, worst: dict[str, float]) -> None:
        state, used = self.states["controlled"], self.converged["controlled"]
        seen = set()
        for name, edge in self.edges.items():
            a = edge["attrs"]
            if a["carries"] == "burst" or not a["plastic"]:
                assert name not in self.updates
                continue
            rate = (
                self.input[edge["source"]] if edge["source"] in self.input else state[edge["source"]]["rate"]
            )
            psi = state[edge["target"]]["control"]
            if a["kind"] == "electrical":
                soma, before = state[edge["target"]]["soma"], state[edge["source"]]
                apart = psi[used].T[edge["i"]] - before["control"][used].T[edge["j"]]
                update = (apart * (before["soma"][used].T[edge["j"]] - soma[used].T[edge["i"]])).mean(1)
                worst["update"] = max(
                    worst.get("update", 0.0), float(np.abs(update - self.updates[name]).max())
                )
                seen.add(name)
                continue
            update = (psi[used].T[edge["i"]] * rate[used].T[edge["j"]]).mean(1)
            assert (edge["factors"] is not None) == ("rank" in a)
            if edge["factors"] is not None:
                left, right = edge["factors"]
                assert left.shape[1] == right.shape[1] == a["rank"]
                worst["W = A B^T"] = max(
                    worst.get("W = A B^T", 0.0),
                    float(np.abs((left @ right.T)[edge["i"], edge["j"]] - edge["w"]).max()),
                )
                whole = np.zeros((len(left), len(right)))
                whole[edge["i"], edge["j"]] = update
                update = np.concatenate([(whole @ right).ravel(), (whole.T @ left).ravel()])
            if edge["index"] is not None:
                shared = np.zeros(edge["index"].max() + 1)
                np.add.at(shared, edge["index"], update)
                update = shared
            worst["update"] = max(worst.get("update", 0.0), float(np.abs(update - self.updates[name]).max()))
            seen.add(name)
        for name in self.bias:
            key = f"{name}_bias"
            if key in self.updates:
                wrong = state[name]["control"][used].mean(0) - self.updates[key]
                worst["update"] = max(worst.get("update", 0.0), float(np.abs(wrong).max()))
                seen.add(key)
        assert seen == set(self.updates), "every update belongs to a projection or a bias"
