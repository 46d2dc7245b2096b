"""Pictures of a report for the documentation, taken by Chromium from a page made on the spot.

Use: python benchmarks/report_pictures.py [FOLDER]      (needs chromium, chromedriver and selenium; a minute)
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.oracles.browser import LAPTOP, PHONE, Browser  # noqa: E402 (the tests' own browser, below the root)

FOLDER = ROOT / "docs" / "images" / "report"
RUNS = {
    "least_control": ("recurrent_digits", "seed=0"),
    "least_control_1": ("recurrent_digits", "seed=1"),
    "backprop": ("recurrent_digits", "learn.rule=recurrent_backprop"),
    "cortex": ("cortical_digits", "seed=0"),
}
"""Experiments and what is changed in them; all make EPOCHS epochs."""
EPOCHS = 12
COLOURS = 256


@dataclass(frozen=True)
class Picture:
    """What of which page: the element whose upper edge is the picture's, after some selects were set."""

    runs: tuple[str, ...]
    at: str
    size: tuple[int, int] = LAPTOP
    dark: bool = False
    height: int = 800
    set: tuple[tuple[str, str], ...] = ()


PICTURES = {
    "overview": Picture(("least_control", "least_control_1", "backprop"), "body"),
    "curves": Picture(("least_control", "least_control_1", "backprop"), "#learning", height=840),
    "neurons": Picture(
        ("cortex",), "#neurons", height=1150, set=(("neurons-neuron", "3"), ("neurons-sample", "mean"))
    ),
    "map": Picture(("least_control",), "#neurons-variable", height=640, set=(("neurons-order", "class"),)),
    "weights": Picture(("least_control",), "#weights", height=1010),
    "dark": Picture(("cortex",), "body", dark=True),
    "phone": Picture(("cortex",), "#neurons", PHONE, height=844),
}


def main(folder: Path) -> None:
    """Train, make the pages, take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for run, (experiment, change) in RUNS.items():
            file = ROOT / "experiments" / f"{experiment}.yaml"
            given = ["--set", f"learn.epochs={EPOCHS}", "--set", change, "-o", f"{run}.h5", "--quiet"]
            circuitlab("run", str(file), *given, folder=work)
        browser = Browser()
        try:
            for key, picture in PICTURES.items():
                page = work / f"{key}.html"
                circuitlab("report", *(f"{run}.h5" for run in picture.runs), "-o", page.name, folder=work)
                browser.open(page, picture.size, picture.dark)
                save(browser, picture, folder / f"{key}.png")
        finally:
            browser.quit()


def circuitlab(*given: str, folder: Path) -> None:
    """One command, in a folder."""
    code = "from circuitlab.cli.main import entry; entry()"
    subprocess.run([sys.executable, "-c", code, *given], cwd=folder, check=True, env=environment())


def environment() -> dict[str, str]:
    """This process's own, with the repository's circuitlab."""
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def save(browser: Browser, picture: Picture, path: Path) -> None:
    """Take a picture, in few colours."""
    for key, value in picture.set:
        browser.choose(key, value)
    top = browser.run(
        "return document.querySelector(arguments[0]).closest('.controls, section, body').getBoundingClientRect().top"
        " + scrollY",
        picture.at,
    )
    clip = {"x": 0, "y": max(0, top - 12), "width": picture.size[0], "height": picture.height, "scale": 1}
    taken = browser.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    image = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
