"""`circuitlab report`: pages of every kind of file, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.cli.report import size
from circuitlab.errors import CircuitlabError
from tests.oracles.reported import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.h5")


def page_of(*given: object, folder: Path) -> str:
    out = folder / "page.html"
    assert main(["report", *map(str, given), "-o", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_page_is_written_and_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = page_of(run, folder=run.parent)
    assert page_of(run, folder=run.parent) == first
    out = capsys.readouterr()
    assert "page.html (" in out.out and not out.err
    assert sorted(path.name for path in run.parent.iterdir()) == ["page.html", "run.h5"]


def test_neurons_by_name_and_number_are_in_it(run: Path) -> None:
    page = page_of(run, "--neurons", "3", "--neuron", "cells:AVAL", "--neuron", "cells:4", folder=run.parent)
    assert '"ids":[0,4,11]' in page
    assert "This page holds 3 of 12 recorded neurons" in page


def test_equilibria_simulations_and_diagnoses_have_pages(cortex: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.standard_normal((5, 6)))
    np.save(tmp_path / "y.npy", np.arange(5) % 2)
    given = ["--input", str(tmp_path / "x.npy"), "--target", str(tmp_path / "y.npy")]
    assert main(["equilibrium", str(cortex), *given, "-o", str(tmp_path / "eq.h5")]) == 0
    page = page_of(tmp_path / "eq.h5", folder=tmp_path)
    assert (
        "equilibria, complete" in page
        and "controlled equilibrium" in page
        and 'id="convergence-residual"' in page
    )
    assert main(
        ["simulate", str(cortex), *given[:2], "--duration", "5 ms", "--record", "l23", "-o", str(tmp_path / "sim.h5")]
    ) == 0  # fmt: skip
    page = page_of(tmp_path / "sim.h5", tmp_path / "eq.h5", folder=tmp_path)
    assert "simulation in real time, complete" in page and "5 ms in steps of 0.1 ms by rk4, free" in page
    experiment = (
        f"experiment: look\ncircuit: {cortex.name}\ndata: {{name: file, train: d.npz, inputs: {{retina: x}}, "
        "targets: {readout: y}}\n"
    )
    np.savez(cortex.parent / "d.npz", x=random.standard_normal((12, 6)), y=np.arange(12) % 2)
    (cortex.parent / "look.yaml").write_text(experiment)
    look = ["diagnose", str(cortex.parent / "look.yaml"), "--samples", "4", "--quiet"]
    assert main([*look, "-o", str(tmp_path / "look.h5")]) == 0
    page = page_of(tmp_path / "look.h5", folder=tmp_path)
    assert "diagnosis, complete" in page and 'id="diagnosis-values"' in page and "the theory asks" in page


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["-o", "page.pdf"], "a report is a file ending in .html or .htm"),
        (["-o", "missing/page.html"], "there is no folder"),
        (
            ["-o", "page.html", "--budget", "much"],
            "--budget: 'much' is no size; allowed: such as 8MB or 500kB",
        ),
        (["-o", "page.html", "--budget", "1kB"], "1,000 bytes hold no report; allowed: 200,000 or more"),
        (["-o", "page.html", "--neuron", "cells:AVAR"], "has no neuron of this name. Did you mean 'AVAL'?"),
        (["-o", "page.html", "--neuron", "cell:1"], "no population 'cell'; there are pixels, cells, digits."),
        (["-o", "page.html", "--neuron", "cells:12"], "cells has neurons 0 to 11"),
        (["-o", "page.html", "--neuron", "cells"], "name a neuron as POPULATION:INDEX or POPULATION:NAME"),
        (["other.h5", "-o", "page.html"], "other.h5: there is no such file"),
        (["-o", "folder.html"], "is a folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run: Path,
    given: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.parent)
    Path("folder.html").mkdir()
    before = sorted(path.name for path in run.parent.iterdir())
    assert main(["report", "run.h5", *given]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sorted(path.name for path in run.parent.iterdir()) == before


def test_a_run_file_is_never_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = run.rename(run.with_name("run.html"))
    content = hidden.read_bytes()
    assert main(["report", str(hidden), "-o", str(hidden)]) == 1
    assert "is one of the run files" in capsys.readouterr().err
    assert hidden.read_bytes() == content


def test_without_plotly_one_line_says_what_to_install(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    assert main(["report", str(run), "-o", str(run.parent / "page.html")]) == 1
    assert 'pip install "circuitlab[report]"' in capsys.readouterr().err
    assert not (run.parent / "page.html").exists()


def test_sizes() -> None:
    found = [size(text) for text in ("8MB", "500 kB", "2000000", "1.5M", "1GB")]
    assert found == [8_000_000, 500_000, 2_000_000, 1_500_000, 10**9]
    with pytest.raises(CircuitlabError):
        size("1 GiB")
