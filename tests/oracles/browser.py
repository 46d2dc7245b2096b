"""A real browser without a window: Chromium by its own driver, and what it says of a page."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
LAPTOP, PHONE = (1280, 800), (390, 844)


def chromium() -> tuple[str, str] | None:
    """The programs of the browser and of its driver; None where one is missing."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (found, driver) if found and driver else None


class Browser:
    """One page at a time, opened from its file."""

    def __init__(self) -> None:
        os.environ["SE_OFFLINE"] = "true"  # Selenium itself downloads nothing
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        programs = chromium()
        assert programs is not None
        options = webdriver.ChromeOptions()
        options.binary_location = programs[0]
        for argument in (
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "no-first-run",
        ):
            options.add_argument(f"--{argument}")
        options.add_argument("--disable-background-networking")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(programs[1]))
        self.driver.set_script_timeout(120)

    def open(self, page: Path, size: tuple[int, int] = LAPTOP, dark: bool = False) -> None:
        """Open a page and wait until it has drawn everything."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.resolve().as_uri())
        self.until("return document.body.dataset.drawn === 'yes'")

    def run(self, script: str, *arguments: Any) -> Any:
        """A script's value."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, seconds: float = 60.0) -> None:
        """Wait until a script says yes."""
        last = time.monotonic() + seconds
        while not self.run(script, *arguments):
            assert time.monotonic() < last, f"not within {seconds:g} s: {script}"
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """Warnings and errors on the console since the page was opened, or since they were last asked for."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("WARNING", "SEVERE")
        ]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def plot(self, key: str) -> list[dict[str, Any]]:
        """The traces that a plot shows, read from the page."""
        return self.run(
            "return document.getElementById(arguments[0]).data.map(({name, x, y, z, text, type, meta}) => "
            "JSON.parse(JSON.stringify({name, x, y, z, text, type, meta})))",
            key,
        )

    def options(self, key: str) -> list[str]:
        """Values of a select."""
        return self.run("return [...document.getElementById(arguments[0]).options].map((o) => o.value)", key)

    def choose(self, key: str, value: str) -> None:
        """Choose an option by a click."""
        from selenium.webdriver.support.select import Select

        Select(self.driver.find_element("id", key)).select_by_value(value)

    def quit(self) -> None:
        """Close the browser."""
        self.driver.quit()
