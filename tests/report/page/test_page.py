"""The page as a file: whole, well-formed, labelled, within its size, and honest about what it leaves out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.report.page import Options, Part, document, report, write_report
from circuitlab.report.page.choice import Limits, evenly, take, union
from circuitlab.report.page.conditions import conditions, labels
from circuitlab.report.page.pack import pack, to_json, unpack
from circuitlab.report.page.parts import GROUNDS, INKS, PALETTE
from circuitlab.report.page.source import Source
from tests.oracles.reported import CELLS, FRAMES, HOSTILE, SAMPLES, write_run

TOP = Path(__file__).resolve().parents[3]


class Page(HTMLParser):
    """Elements with their attributes, texts of scripts, and what encloses each element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self._inside = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page(hostile_page: Path) -> Page:
    return Page(hostile_page)


def test_every_control_has_a_label_and_every_id_is_one(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {attributes["for"] for attributes in page.all("label")}
    controls = [a["id"] for tag in ("select", "input") for a in page.all(tag)]
    assert len(controls) > 10
    assert set(controls) == labelled
    for key in ("aria-labelledby", "aria-controls", "for"):
        pointed = [part for _, a in page.elements if a.get(key) for part in str(a[key]).split()]
        assert set(pointed) <= set(ids), key
    assert {a["href"][1:] for a in page.all("a") if str(a["href"]).startswith("#")} <= set(ids)
    assert all(a.get("type") == "button" for a in page.all("button"))


def test_headings_landmarks_and_alternatives(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert [tag for tag, _ in page.elements].count("main") == 1
    (drawing,) = page.all("svg")
    assert drawing["role"] == "img"
    assert "pixels to cells" in str(drawing["aria-label"])
    plots = [a for tag, a in page.elements if "plot" in str(a.get("class")).split()]
    assert len(plots) >= 14
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert page.elements.index(("a", {"class": "skip", "href": "#content"})) < page.elements.index(
        ("header", {})
    )


def test_nothing_points_outside_and_the_policy_names_each_script(page: Page) -> None:
    for tag, attributes in page.elements:
        for key in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), f"{tag} {key}={value}"
        assert not [key for key in attributes if key.startswith("on")]
    assert "@import" not in page.text.split("<body>")[0] and "url(" not in page.text.split("<body>")[0]
    policy = next(a for a in page.all("meta") if a.get("http-equiv"))["content"]
    parts = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    assert parts["default-src"] == "'none'"
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in page.scripts[1:]
    }
    assert set(parts["script-src"].split()) == hashes
    assert len(page.scripts) == 3


def test_texts_of_users_are_no_markup(page: Page) -> None:
    assert not page.all("img")
    assert HOSTILE not in page.text.replace(page.scripts[0], "")
    assert "<" not in page.scripts[0]
    names = page.data["parts"]["neurons"]["runs"][0]["populations"]["cells"]["names"]
    assert names[str(CELLS - 1)] == HOSTILE
    assert json.loads(to_json({"a": [HOSTILE, float("nan"), np.float32(1.5)]})) == {"a": [HOSTILE, None, 1.5]}


def test_the_page_says_what_was_run_and_how_to_repeat_it(page: Page, hostile_run: Path) -> None:
    for words in ("training run, complete", "It learned digits by least control", "4 of 3 epochs", "seed 0"):
        assert words in page.text
    assert "circuitlab run --from hostile.h5" in page.text
    assert "learn: {rule: least_control" in page.text
    with open_run(hostile_run) as run:
        accuracy = run.read("training/test_accuracy")
    assert f"{100 * accuracy[-1]:.3g}% ({100 * accuracy[0]:.3g}% before learning)" in page.text


def test_arrays_come_back_as_they_were() -> None:
    random = np.random.default_rng(0)
    for array in (
        random.standard_normal((3, 4)).astype("f4"),
        np.array([[1, -2], [2**31 - 1, 0]]),
        np.array([True, False]),
        np.array([np.nan, np.inf]),
        np.empty((0, 3)),
    ):
        np.testing.assert_array_equal(unpack(pack(array)), array)
        assert unpack(pack(array)).shape == array.shape
    np.testing.assert_allclose(unpack(pack(np.array([2**40]))), [2**40])


def test_choices_hold_first_and_last_and_named() -> None:
    for count in (1, 2, 7, 1000):
        for most in (1, 2, 5, 999, None):
            kept = evenly(count, most)
            assert len(kept) == (count if most is None else min(count, most))
            assert kept[0] == 0 and (most == 1 or kept[-1] == count - 1)
            assert np.ptp(np.diff(kept)) <= 1 if len(kept) > 1 else True
    shared = union([np.arange(100), np.array([5, 17, 80])], 6, [41])
    assert set(shared) >= {5, 17, 80, 41} and len(shared) == 6


def test_chosen_places_are_read_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((11, 7, 13, 5)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=values, chunks=(2, 3, 5, 5))
        places = [np.array([0, 4, 10]), np.array([6]), np.array([1, 2, 12]), np.array([0, 3])]
        for most in (10**9, 900, 64, 8):
            monkeypatch.setattr("circuitlab.report.page.choice.MOST_AT_ONCE", most)
            np.testing.assert_array_equal(take(data, *places, where="a"), values[np.ix_(*places)])
        assert take(data, places[0], places[1], places[2], np.empty(0, dtype=int), where="a").shape == (
            3,
            1,
            3,
            0,
        )


def test_conditions_are_told_apart_by_what_differs() -> None:
    def experiment(seed: int, rule: str = "least_control", alpha: float = 1.0) -> dict:
        return {"seed": seed, "learn": {"rule": rule}, "control": {"alpha": alpha}, "record": {"x": seed}}

    files = [Path(f"{name}.h5") for name in "abcde"]
    specs = [experiment(0), experiment(1), experiment(0, "backprop"), experiment(0, alpha=0.1), experiment(0)]
    circuits, kinds = [{"circuit": "c"}] * 5, ["training"] * 4 + ["equilibria"]
    found = conditions(specs, circuits, kinds, files)
    assert [one.runs for one in found] == [(0, 1), (2,), (3,), (4,)]
    assert found[0].name == "control.alpha 1.0, least control"
    assert found[1].name == "control.alpha 1.0, backprop"
    assert found[3].name == "e"
    told = labels(found, [0, 1, 0, 0, 0], kinds, files)
    assert told[1] == "control.alpha 1.0, least control, seed 1" and len(set(told)) == 5
    same = conditions(specs[:1] * 2, circuits[:2], kinds[:2], files[:2])
    assert labels(same, [0, 0], kinds, files[:2]) == [
        "least control, seed 0, a.h5",
        "least control, seed 0, b.h5",
    ]


def test_the_palette_is_legible_on_both_grounds() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for at, ground in enumerate(GROUNDS):
        for name, pair in {**PALETTE, **INKS}.items():
            assert contrast(pair[at], ground) >= 4.5, (name, pair[at])


def test_eigenvalues_and_histograms_are_of_the_weights_in_the_file(page: Page, hostile_run: Path) -> None:
    with h5py.File(hostile_run) as run:
        edges, last = run["edges/cells_cells"], run["weights/cells_cells"][-1]
        matrix = np.zeros((CELLS + 3, CELLS + 3))
        matrix[edges["target_node_id"][:], edges["source_node_id"][:]] = last
        out = run["edges/cells_digits"]
        matrix[CELLS + out["target_node_id"][:], out["source_node_id"][:]] = run["weights/cells_digits"][-1]
    after = page.data["parts"]["spectrum"]["runs"][0]["after"]
    found = unpack(after["real"]) + 1j * unpack(after["imaginary"])
    expected = np.linalg.eigvals(matrix)
    assert np.abs(found[:, None] - expected).min(1).max() < 1e-5
    assert after["radius"] == pytest.approx(np.abs(expected).max(), rel=1e-6)


@pytest.mark.parametrize("status", ["complete", "interrupted", "failed"])
def test_runs_of_every_end_have_a_page_that_says_so(tmp_path: Path, status: str) -> None:
    path = write_run(tmp_path / "run.h5", status=status)
    with open_run(path) as run:
        page = report([run])
    assert f"training run, {status}" in page


def test_a_run_that_has_only_begun_and_one_without_probes(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.h5", probes=False)
    with open_run(path) as run:
        page = report([run])
    assert "No neurons were recorded in this run." in page
    assert "cells_soma: {population: cells, variable: soma, of: test, every: 1 epoch" in page
    from circuitlab.graph.build import build
    from circuitlab.spec.circuit import load_circuit
    from tests.oracles.reported import CIRCUIT

    texts = {"circuit_yaml": CIRCUIT, "experiment_yaml": "experiment: begun\ncircuit: c.yaml\n"}
    circuit = build(load_circuit("c.yaml", text=CIRCUIT), seed=0)
    writer = RunWriter.create(tmp_path / "begun.h5", circuit=circuit, **texts)
    try:
        with open_run(tmp_path / "begun.h5") as run:
            page = report([run])
        assert "run file, running" in page and "Nothing has been measured yet." in page
    finally:
        writer.close()


def test_large_recordings_are_thinned_to_the_budget_and_the_page_says_so(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        values = np.random.default_rng(0).standard_normal((60, 80, 200)).astype("f4")
        for variable in ("soma", "control"):
            group = file[f"activity/cells_{variable}"]
            said = dict(group["data"].attrs)
            for name in ("data", "unit_ids", "sample_ids", "labels", "step"):
                del group[name]
            group.create_dataset("data", data=values).attrs.update(said)
            group["step"] = np.arange(60)
    with open_run(path) as run:
        for budget in (200_000, 1_000_000):
            write_report([path], tmp_path / "page.html", Options(budget=budget))
            page = Page(tmp_path / "page.html")
            assert len(page.scripts[0]) < 1.1 * budget
            recordings = page.data["parts"]["neurons"]["runs"][0]["populations"]["cells"]["recordings"]
            big = next(one for one in recordings if "of 200 recorded neurons" in one["held"])
            frames, samples, ids = (big["frames"]["values"], big["samples"], big["variables"]["soma"]["ids"])
            assert (frames[0], frames[-1], samples[0], samples[-1]) == (0, 59, 0, 79)
            cube = unpack(big["variables"]["soma"]["data"])
            np.testing.assert_array_equal(cube, values[np.ix_(frames, samples, ids)])
            map_ = big["maps"]["soma"]
            assert len(map_["ids"]) >= len(ids)
            np.testing.assert_array_equal(
                unpack(map_["data"])[1], values[59][np.ix_(map_["samples"], map_["ids"])]
            )
        source = Source(run, "", 6_000_000, Limits(frame=3, sample=4, unit=5), {"cells": [137]})
        assert source.chosen("cells").tolist()[-1] >= 137 and 137 in source.chosen("cells")
        assert len(source.chosen("cells")) == 5


PEAK = """
import resource, sys
from circuitlab.report.page import write_report
import circuitlab.report.page.drawing, matplotlib.backends.backend_svg, scipy.sparse.linalg, plotly.offline
write_report([sys.argv[1]], sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_report([sys.argv[2]], sys.argv[3])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_recording_of_gigabytes_is_never_held(tmp_path: Path) -> None:
    small, large = write_run(tmp_path / "small.h5"), write_run(tmp_path / "large.h5")
    with h5py.File(large, "r+") as file:
        group = file["activity/cells_soma"]
        said = dict(group["data"].attrs)
        for name in ("data", "unit_ids", "sample_ids", "labels", "step"):
            del group[name]
        data = group.create_dataset(
            "data", (2500, 100, 2000), "f4", chunks=(1, 100, 2000), compression="gzip"
        )
        data.attrs.update(said)
        frame = zlib.compress(np.tile(np.arange(50, dtype="f4"), 4000).tobytes())
        for row in range(len(data)):
            data.id.write_direct_chunk((row, 0, 0), frame)
        group["step"] = np.arange(2500)
        assert data.nbytes == 2e9
    command = [sys.executable, "-c", PEAK, str(small), str(large), str(tmp_path / "page.html")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6
    assert (tmp_path / "page.html").stat().st_size < 12e6


def test_other_pages_are_made_of_the_same_parts(tmp_path: Path) -> None:
    made = document("A & B", [Part("design", "The <design>", "<p>Paired seeds.</p>")], about="a hypothesis")
    (tmp_path / "page.html").write_text(made, encoding="utf-8")
    page = Page(tmp_path / "page.html")
    assert {"id": "design", "aria-labelledby": "design-title"} in page.all("section")
    assert "The &lt;design&gt;" in made and "<title>A &amp; B</title>" in made


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    # without its seal, so that what is damaged is not found by the checksum of the whole
    sound = write_run(tmp_path / "run.h5").read_bytes().partition(b"circuitlab seal\n")[0]
    (tmp_path / "broken.h5").write_bytes(sound)
    write_report([tmp_path / "broken.h5"], tmp_path / "page.html")
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(12):
        broken = bytearray(sound)
        for place in random.integers(0, len(broken), random.choice([3, 100])):
            broken[place] = random.integers(256)
        (tmp_path / "broken.h5").write_bytes(broken)
        try:
            write_report([tmp_path / "broken.h5"], tmp_path / "page.html")
        except RunFileError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused
    assert not list(tmp_path.glob(".*")) and FRAMES and SAMPLES
