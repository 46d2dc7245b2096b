"""The page in a real browser: every control by mouse and by key, its numbers, and that it asks for nothing."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.oracles.browser import LAPTOP, PHONE, Browser
from tests.oracles.reported import CELLS, FRAMES, HOSTILE, POINTS, SAMPLES, VARIABLES

pytestmark = pytest.mark.browser

CONTROLS = """
return [...document.querySelectorAll("select, input[type=range], button, summary")]
  .filter((element) => element.offsetParent !== null && element.checkVisibility())
  .map((element) => [element.tagName.toLowerCase(), element.id || element.dataset.numbers || ""])
"""
SHIFT = """
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifted = (window.shifted || 0) + entry.value;
}).observe({type: "layout-shift", buffered: true});
return true
"""


def _sound(browser: Browser) -> None:
    """No complaint on the console, nothing fetched, nothing wider than the screen."""
    assert browser.complaints() == []
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(wide) <= 0
    assert [url for url in browser.requests() if url.split(":")[0] not in ("file", "data", "blob")] == []


@pytest.mark.parametrize(("size", "dark"), [(LAPTOP, False), (PHONE, True)], ids=["laptop", "dark phone"])
def test_every_control_works_by_mouse(
    browser: Browser, hostile_page: Path, several_page: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.open(several_page if dark else hostile_page, size, dark)
    _sound(browser)
    used = set()
    for tag, key in browser.run(CONTROLS):
        used.add(tag)
        if tag == "select":
            for value in browser.options(key)[:3]:
                browser.choose(key, value)
        elif tag == "input":
            for value in (0, 1):
                browser.run(
                    "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
                    "one.dispatchEvent(new Event('input', {bubbles: true}))",
                    key,
                    value,
                )
        elif tag == "summary":
            browser.driver.find_element("css selector", "details:not([open]) > summary").click()
        elif key and browser.run("return document.getElementById(arguments[0]).offsetParent !== null", key):
            for button in browser.driver.find_elements("css selector", f'[data-numbers="{key}"]'):
                button.click()
                assert browser.run(
                    "return document.querySelectorAll(`#${arguments[0]}-table tbody tr`).length", key
                )
    assert used == {"select", "input", "button", "summary"}
    assert browser.run("return document.querySelectorAll('.plot svg.main-svg').length") > 10
    _sound(browser)


def test_the_numbers_of_a_neuron_are_those_of_the_run_file(
    browser: Browser, hostile_page: Path, hostile_run: Path
) -> None:
    browser.open(hostile_page)
    browser.choose("neurons-population", "cells")
    browser.choose("neurons-recording", "0")
    browser.choose("neurons-neuron", "7")
    browser.choose("neurons-sample", "4")
    with h5py.File(hostile_run) as run:
        data = {name: run[f"activity/cells_{name}/data"][:] for name in VARIABLES}
        labels = run["activity/cells_soma/labels"][:]
        settling = {name: run[f"activity/settling_{name}/data"][:] for name in ("soma", "control")}
    order = np.argsort(labels, kind="stable")
    samples = {trace["name"]: trace for trace in browser.plot("neurons-samples")}
    training = {trace["name"]: trace for trace in browser.plot("neurons-training")}
    for name in VARIABLES:
        np.testing.assert_array_equal(np.float32(samples[name]["y"]), data[name][-1, order, 7])
        assert samples[name]["text"] == [f"sample {100 + at}, class {labels[at]}" for at in order]
        np.testing.assert_array_equal(np.float32(training[name]["y"]), data[name][:, 4, 7])
        assert training[name]["x"] == list(range(FRAMES))
    # another moment, by the slider
    browser.run(
        "const one = document.getElementById('neurons-frame'); one.value = 1; one.dispatchEvent(new Event('input'))"
    )
    samples = {trace["name"]: trace for trace in browser.plot("neurons-samples")}
    np.testing.assert_array_equal(np.float32(samples["apical"]["y"]), data["apical"][1, order, 7])
    browser.choose("neurons-variable", "control")
    (map_,) = browser.plot("neurons-map")
    np.testing.assert_array_equal(np.float32(map_["z"]), data["control"][1][order].T)
    # the mean over samples
    browser.choose("neurons-sample", "mean")
    training = {trace["name"]: trace for trace in browser.plot("neurons-training")}
    np.testing.assert_allclose(training["basal"]["y"], data["basal"][:, :, 7].mean(1), rtol=1e-5, atol=1e-6)
    # along the settling trajectory, at the same moment
    browser.choose("neurons-recording", "1")
    browser.choose("neurons-sample", "2")
    time = {trace["name"]: trace for trace in browser.plot("neurons-time")}
    assert set(time) == set(settling)
    for name, values in settling.items():
        frame = int(browser.run("return document.getElementById('neurons-frame').value"))
        np.testing.assert_array_equal(np.float32(time[name]["y"]), values[frame, :, 2, 7])
        assert time[name]["x"] == (2.5 * np.arange(POINTS)).tolist()
    # a neuron is chosen by its name, whatever stands in it
    names = browser.run("return [...document.getElementById('neurons-neuron').options].map((o) => o.text)")
    assert names[CELLS - 1] == f"{CELLS - 1}: {HOSTILE}"
    assert names[0] == "0: N0"
    _sound(browser)


def test_weights_and_synapses_are_those_of_the_run_file(
    browser: Browser, hostile_page: Path, hostile_run: Path
) -> None:
    browser.open(hostile_page)
    browser.choose("neurons-neuron", "5")
    assert browser.run("return document.getElementById('weights-neuron').value") == "5"
    with h5py.File(hostile_run) as run:
        for projection in ("pixels_cells", "cells_cells"):
            browser.choose("weights-projection", projection)
            browser.choose("weights-neuron", "5")
            edges = run[f"edges/{projection}"]
            onto = np.flatnonzero(edges["target_node_id"][:] == 5)
            senders = edges["source_node_id"][:][onto]
            before, after = edges["0/syn_weight"][:], run[f"weights/{projection}"][:]
            for key, values in (("before", before), ("after", after[-1])):
                (shown,) = browser.plot(f"weights-{key}")
                if projection == "pixels_cells":
                    field = np.full(16, np.nan, dtype=np.float32)
                    field[senders] = values[onto]
                    np.testing.assert_array_equal(np.array(shown["z"], dtype=np.float32), field.reshape(4, 4))
                else:
                    assert [int(name.split(":")[0]) for name in shown["text"]] == senders.tolist()
                    np.testing.assert_array_equal(np.float32(shown["y"]), values[onto].astype(np.float32))
            histogram = {trace["name"]: trace for trace in browser.plot("weights-histogram")}
            assert sum(histogram["before learning"]["y"]) == len(before)
            assert sum(histogram["after learning"]["y"]) == after.shape[1]
            moved = browser.plot("weights-moved")
            change = np.abs(after[-1][onto] - before[onto])
            assert moved[0]["name"].startswith(f"from {senders[change.argmax()]}")
            np.testing.assert_array_equal(np.float32(moved[0]["y"]), after[:, onto[change.argmax()]])
        browser.choose("recorded-probe", browser.options("recorded-probe")[-1])
        (synapse,) = browser.plot("recorded-values")
        probe = run["activity/synapses"]
        np.testing.assert_array_equal(np.float32(synapse["y"]), probe["data"][:, 0])
        edge = probe["edge_ids"][0]
        ends = [run[f"edges/cells_cells/{end}_node_id"][edge] for end in ("source", "target")]
        label = browser.run("return document.getElementById('recorded-row').options[0].text")
        assert [part.split()[0] for part in label.split(" → ")] == [str(end) for end in ends]


def test_samples_that_never_settled_are_named(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    browser.choose("convergence-frame", "2")
    never = [100 + at for at in range(SAMPLES) if at % 4 == 2]
    words = browser.run("return document.getElementById('convergence-facts').textContent")
    assert f"{len(never)} of {SAMPLES} samples did not settle: {', '.join(map(str, never))}." in words
    shown = {trace["name"]: trace for trace in browser.plot("convergence-residual")}
    assert shown["did not settle"]["x"] == never
    np.testing.assert_allclose(shown["did not settle"]["y"], 1e-2, rtol=1e-6)


def test_curves_show_mean_and_spread_of_seeds_beside_another_condition(
    browser: Browser, several_page: Path, several_runs: list[Path]
) -> None:
    browser.open(several_page)
    curves = []
    for path in several_runs[:2]:
        with h5py.File(path) as run:
            curves.append(run["training/control_cost"][:])
    found = {trace["name"]: trace for trace in browser.plot("learning-control_cost") if trace.get("name")}
    np.testing.assert_allclose(found["least control, mean of 2"]["y"], np.mean(curves, axis=0), rtol=1e-6)
    assert "recurrent backprop" in found
    browser.choose("learning-metric", "test_loss")
    losses = []
    for path in several_runs[:2]:
        with h5py.File(path) as run:
            losses.append(run["training/test_loss"][:])
    band = next(trace for trace in browser.plot("learning-other") if trace.get("meta") == "helper")
    upper, lower = np.array(band["y"][:FRAMES]), np.array(band["y"][FRAMES:][::-1])
    np.testing.assert_allclose(upper - lower, 2 * np.std(losses, axis=0, ddof=1), rtol=1e-3, atol=1e-6)
    assert browser.options("neurons-run") == ["0", "1", "2"]


def test_everything_is_reached_and_used_by_keys_alone(browser: Browser, hostile_page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(hostile_page)
    keyboard = ActionChains(browser.driver, duration=0)
    where = (
        "const e = document.activeElement; const box = e.getBoundingClientRect(); const style = getComputedStyle(e);"
        "return [e.tagName.toLowerCase(), e.id, e.textContent.slice(0, 20), box.top + scrollY,"
        "style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, box.bottom > 0 && box.top < innerHeight]"
    )
    keyboard.send_keys(Keys.TAB).perform()
    assert browser.run(where)[2] == "Skip to the content"
    reached, tops = [], []
    for _ in range(250):
        tag, key, words, top, outlined, seen = browser.run(where)
        if tag == "body":
            break
        reached.append((tag, key or words))
        assert outlined, f"no visible focus on {tag} {key or words}"
        assert seen, f"focus out of sight on {tag} {key or words}"
        if tag in ("select", "input", "button", "summary"):
            tops.append(top)
        if key == "neurons-neuron":
            before = browser.plot("neurons-samples")
            keyboard.send_keys(Keys.ARROW_DOWN).perform()
            assert browser.run("return document.getElementById('neurons-neuron').value") == "1"
            assert browser.plot("neurons-samples") != before
        elif key == "neurons-frame":
            keyboard.send_keys(Keys.ARROW_LEFT).perform()
            assert (
                browser.run("return document.getElementById('neurons-frame-words').textContent") == "epoch 2"
            )
        elif tag == "summary" and "in words" in words:
            keyboard.send_keys(Keys.ENTER).perform()
            assert browser.run("return document.activeElement.parentElement.open")
        elif (
            tag == "button"
            and words.startswith("Numbers")
            and not any("Numbers" in str(one) for one in reached[:-1])
        ):
            keyboard.send_keys(Keys.ENTER).perform()
            assert browser.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
        keyboard.send_keys(Keys.TAB).perform()
    else:
        pytest.fail("the focus never leaves the page")
    tags = {tag for tag, _ in reached}
    assert {"a", "select", "input", "button", "summary"} <= tags
    every = browser.run(CONTROLS)
    for tag in ("select", "input", "summary", "button"):
        assert sum(one[0] == tag for one in reached) == sum(one[0] == tag for one in every), tag
    # the order of the focus is the order of the page; what stands in one row may differ by its height
    assert all(later > earlier - 120 for earlier, later in pairwise(tops))
    browser.run("document.querySelector('.skip').focus()")
    keyboard.send_keys(Keys.ENTER).perform()
    assert browser.run("return document.activeElement.id") == "content"
    _sound(browser)


def test_nothing_moves_while_the_page_draws_itself(browser: Browser, hostile_page: Path) -> None:
    for size in (LAPTOP, PHONE):
        browser.open(hostile_page, size)
        assert browser.run(SHIFT)
        assert (
            browser.run("return new Promise((done) => setTimeout(() => done(window.shifted || 0), 150))")
            < 0.05
        )


def test_colours_follow_the_scheme_and_print_is_light(browser: Browser, hostile_page: Path) -> None:
    line = "return document.getElementById('neurons-training').data.find((t) => t.name === 'soma').line.color"
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.open(hostile_page, dark=False)
    light = browser.run(line), browser.run(ground)
    browser.open(hostile_page, dark=True)
    dark = browser.run(line), browser.run(ground)
    assert light == ("#0072B2", "rgb(255, 255, 255)")
    assert dark == ("#56B4E9", "rgb(22, 25, 29)")
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run(line) == "#0072B2"
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run(line) == "#56B4E9"


def test_markup_in_names_is_never_read_as_markup(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    assert (
        browser.run("return document.querySelectorAll('img, script[src], iframe, object, [onerror]').length")
        == 0
    )
    assert browser.run("return document.scripts.length") == 3
    browser.choose("neurons-neuron", str(CELLS - 1))
    assert HOSTILE in browser.run("return document.getElementById('neurons-facts').textContent")
    assert browser.run("return document.querySelectorAll('#neurons-samples img').length") == 0
    _sound(browser)


def test_the_policy_of_the_page_stops_what_is_not_its_own(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    script = (
        "const one = document.createElement('script'); one.textContent = 'window.broken = true';"
        "document.body.append(one); return window.broken === undefined"
    )
    assert browser.run(script)
    fetched = "return fetch('http://127.0.0.1:9/').then(() => 'came', (error) => String(error))"
    assert browser.run(fetched) != "came"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_axe_finds_nothing_inaccessible(browser: Browser, hostile_page: Path) -> None:
    for dark, rules in ((False, {}), (True, {"runOnly": ["color-contrast"]})):
        browser.open(hostile_page, LAPTOP, dark)
        browser.run(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
        for summary in browser.driver.find_elements("css selector", "summary"):
            summary.click()
        found = browser.run("return axe.run(arguments[0]).then((found) => found.violations)", rules)
        told = [(one["id"], one["help"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found]
        assert told == []
    browser.run("document.querySelectorAll('label').forEach((label) => label.remove())")
    found = browser.run("return axe.run({runOnly: ['select-name']}).then((found) => found.violations)")
    assert [one["id"] for one in found] == ["select-name"]
