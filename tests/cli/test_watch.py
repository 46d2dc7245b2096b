"""`circuitlab watch`: what it says of runs that go on, wait, complete, fail, are stopped, or die."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from circuitlab.cli.main import main
from circuitlab.cli.watch_print import ASCII, duration, page, sparkline
from circuitlab.graph.build import build
from circuitlab.record.run_file import RunWriter
from circuitlab.report.following import Follower
from circuitlab.spec.circuit import load_circuit
from tests.cli.conftest import CORTEX, EXPERIMENT

TOP = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from circuitlab.cli.main import entry; entry()", "watch"]


def begin(path: Path, *, epochs: int = 4, per_epoch: int = 5) -> RunWriter:
    """A run file in its writer's hands, of so many epochs of so many steps of ten samples."""
    circuit = build(load_circuit("cortex.yaml", text=CORTEX), seed=0)
    writer = RunWriter.create(
        path,
        circuit=circuit,
        circuit_yaml=CORTEX,
        experiment_yaml="experiment: watched\nlearn: {rule: least_control, batch_size: 10}\n",
        attributes={"seed": 7},
    )
    writer.attributes(
        "training", epochs=epochs, steps_per_epoch=per_epoch, samples=10 * per_epoch, data="digits"
    )
    return writer


def metric(writer: RunWriter, name: str, value: float, index: str | None) -> None:
    extra = {} if index is None else {"index": f"training/{index}"}
    writer.append(f"training/{name}", np.array(value), units="none", description="[row] it", **extra)


def step(writer: RunWriter, number: int, *, missing: int = 0) -> None:
    metric(writer, "step", number, None)
    metric(writer, "step_loss", 1 / number, "step")
    metric(writer, "step_unconverged", missing, "step")
    writer.append(
        "activity/cells/data", np.zeros((10, 5)), units="none", description="[frame, sample, unit] soma"
    )


def epoch(writer: RunWriter, number: int, accuracy: float, loss: float) -> None:
    metric(writer, "evaluation", number, None)
    if number:
        metric(writer, "epoch", number, None)
    metric(writer, "test_accuracy", accuracy, "evaluation")
    metric(writer, "test_loss", loss, "evaluation")


def learn(writer: RunWriter) -> None:
    """Two epochs, of which the first was the better, and three steps of the third; three samples unconverged."""
    epoch(writer, 0, 0.1, 2.0)
    for number in range(1, 14):
        step(writer, number, missing=3 if number == 11 else 0)
        if number in (5, 10):
            epoch(writer, number // 5, *((0.8, 0.5) if number == 5 else (0.7, 0.6)))


def shown(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_running_file_says_how_far_and_how_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.h5"
    with begin(path) as writer:
        learn(writer)
        writer.publish()
        assert main(["watch", str(path), "--once", "--json"]) == 0
        (found,) = shown(capsys)
        assert main(["watch", str(path), "--once"]) == 0
        text = capsys.readouterr().out
    assert (found["status"], found["title"], found["kind"]) == ("running", "watched", "training")
    assert (found["epoch"], found["epochs"], found["step"], found["steps"]) == (2, 4, 13, 20)
    assert found["metrics"]["test_accuracy"] == {"last": 0.7, "best": 0.8, "best_at": 1, "rows": 3}
    assert found["metrics"]["test_loss"] == {"last": 0.6, "best": 0.5, "best_at": 1, "rows": 3}
    assert (found["unconverged_samples"], found["samples_seen"]) == (3, 130)
    assert found["records"] == {"cells": {"rows": 13, "shape": [10, 5]}}
    assert found["bytes"] == path.stat().st_size or found["status"] == "running"
    for part in ("running", "watched", "epoch 2 of 4, step 13 of 20", "3 of 130", "test accuracy", "65%"):
        assert part in text


def test_speed_and_time_left_from_flush_to_flush(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with begin(path, epochs=10, per_epoch=100) as writer:
        began = time.time() - 60
        writer.attributes(
            "/", session_began=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(began)), session_began_at_step=100
        )  # fmt: skip
        began = float(int(began))
        metric(writer, "step", 200, None)
        writer.publish()
        os.utime(path, (began + 50, began + 50))
        follower = Follower(path)
        assert follower.look()
        assert follower.speed == pytest.approx(100 / 50)  # since the session began, at step 100
        metric(writer, "step", 240, None)
        writer.publish()
        os.utime(path, (began + 60, began + 60))
        assert follower.look()
        assert follower.speed == pytest.approx(140 / 60)
        age = time.time() - (began + 60)
        assert follower.seconds_left == pytest.approx((1000 - 240) / (140 / 60) - age, abs=1)
        assert not follower.look()


def test_a_file_that_was_not_touched_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.h5"
    with begin(path) as writer:
        learn(writer)
        writer.publish()
        follower = Follower(path)
        assert follower.look()
        monkeypatch.setattr("circuitlab.report.glance.open_run", None)
        assert not follower.look()


def test_a_writer_that_finishes_while_it_is_looked_at_has_not_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuitlab.report import glance

    path, real = tmp_path / "run.h5", glance.open_run
    writer = begin(path)
    writer.publish()
    asked: list[Path] = []

    def slow(path: Path) -> Any:
        run = real(path)
        if not asked:
            assert str(run.attributes["status"]) == "running"
            writer.finish("complete")
        asked.append(path)
        return run

    monkeypatch.setattr(glance, "open_run", slow)
    assert glance.look(path).status == "complete"


@pytest.mark.parametrize(("status", "code"), [("complete", 0), ("interrupted", 3), ("failed", 3)])
def test_the_exit_code_says_how_it_ended(
    status: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.h5"
    writer = begin(path)
    writer.attributes("/", failure="no space left on device" if status == "failed" else "")
    writer.finish(status)
    assert main(["watch", str(path)]) == code
    said = capsys.readouterr()
    assert status in said.out
    if status == "failed":
        assert said.err == f"{path}: failed: no space left on device\n"
    elif status == "interrupted":
        assert "stopped" in said.err
        assert "--resume" in said.err
    else:
        assert said.err == ""


def test_a_killed_writer_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.h5"
    with begin(path) as writer:
        learn(writer)
    program = f"""
        import time
        from circuitlab.record.run_file import RunWriter
        writer = RunWriter.resume({str(path)!r})
        print("ready", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, cwd=TOP
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    killer = threading.Timer(0.7, process.kill)
    killer.start()
    assert main(["watch", str(path), "--json", "--every", "0.1"]) == 3
    process.wait()
    process.stdout.close()
    said = capsys.readouterr()
    states = [json.loads(line)["status"] for line in said.out.splitlines()]
    assert states == ["running", "interrupted"]
    assert said.err.startswith(f"{path}: interrupted: its writer is gone")
    assert "\n" not in said.err.strip()


def test_a_failed_training_leaves_its_reason_and_a_resumed_one_takes_it_away(
    cortex: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from circuitlab.learn.train import Trainer
    from circuitlab.record.reader import open_run

    folder, rng = cortex.parent, np.random.default_rng(0)
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", retina=rng.random((20, 6)), readout=rng.integers(0, 2, 20))
    (folder / "exp.yaml").write_text(EXPERIMENT)
    path, real = folder / "run.h5", Trainer._epoch
    given = ["run", str(folder / "exp.yaml"), "-o", str(path), "--quiet", "--set", "data.validation=0"]

    def fail(trainer: Trainer) -> None:
        if trainer.at.epoch == 1:
            raise MemoryError("the machine has no memory left\nand more words")
        real(trainer)

    monkeypatch.setattr(Trainer, "_epoch", fail)
    assert main(given) == 3
    assert main(["watch", str(path)]) == 3
    assert f"{path}: failed: the machine has no memory left\n" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "_epoch", real)
    assert main([*given, "--resume"]) == 0
    assert main(["watch", str(path)]) == 0
    with open_run(path) as run:
        assert run.status == "complete"
        assert run.attributes["failure"] == ""
        # 20 samples are one minibatch, so each of the two epochs is one step.
        about = dict(run.file["training"].attrs)
    assert (about["epochs"], about["steps_per_epoch"], about["samples"]) == (2, 1, 20)


def test_a_simulation_says_its_time(cortex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, path = cortex.parent / "x.npy", cortex.parent / "sim.h5"
    np.save(x, np.zeros((2, 6)))
    options = [
        "--input",
        str(x),
        "-o",
        str(path),
        "--duration",
        "8 ms",
        "--dt",
        "0.5 ms",
        "--every",
        "4 steps",
    ]
    assert main(["simulate", str(cortex), *options]) == 0
    capsys.readouterr()
    assert main(["watch", str(path), "--json"]) == 0
    (found,) = shown(capsys)
    assert (found["kind"], found["clock_ms"], found["clock_end_ms"], found["steps"]) == (
        "simulation",
        8,
        8,
        16,
    )
    assert found["records"]["l23_soma"]["rows"] == 5  # at 0, 2, 4, 6 and 8 ms
    assert main(["watch", str(path)]) == 0
    assert "8 of 8 ms" in capsys.readouterr().out


def test_a_missing_file_is_waited_for_only_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "later.h5"
    assert main(["watch", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: there is no such file; --wait waits for it\n"

    def later() -> None:
        with begin(path) as writer:
            learn(writer)

    threading.Timer(0.5, later).start()
    assert main(["watch", str(path), "--wait", "--every", "0.1", "--json"]) == 0
    states = [one["status"] for one in shown(capsys)]
    assert states[0] == "waiting"
    assert states[-1] == "complete"


def test_what_is_no_run_file_is_refused_with_every_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    files = [str(tmp_path / name) for name in ("text.h5", "none.h5", "text.h5")]
    assert main(["watch", *files]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 2
    assert "Traceback" not in said.err


def test_several_runs_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{status}.h5" for status in ("complete", "failed")]
    for path in paths:
        writer = begin(path)
        learn(writer)
        writer.finish(path.stem)
    assert main(["watch", *map(str, paths), "--once"]) == 3
    said = capsys.readouterr()
    for path in paths:
        (row,) = [line for line in said.out.splitlines() if path.name in line]
        assert path.stem in row
        assert "test accuracy" in row
    assert said.err == f"{paths[1]}: failed: no reason is on record\n"


def test_a_file_that_vanishes_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitlab.report.following.PATIENCE_SECONDS", 0.0)
    path = tmp_path / "run.h5"
    writer = begin(path)
    writer.publish()
    follower = Follower(path)
    follower.look()
    path.unlink()
    assert follower.look()
    assert follower.now.status == "lost"
    assert "no such file" in follower.now.reason
    writer.close()


@pytest.mark.parametrize(("width", "height"), [(24, 8), (40, 20), (63, 24), (80, 24), (130, 50)])
@pytest.mark.parametrize("count", [1, 3])
def test_no_line_is_wider_than_the_terminal(count: int, width: int, height: int, tmp_path: Path) -> None:
    followers = []
    for number in range(count):
        path = tmp_path / f"a_run_with_quite_a_long_name_{number}.h5"
        with begin(path) as writer:
            learn(writer)
        followers.append(Follower(path))
        followers[-1].look()
    terminal = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    terminal.print(page(followers, width, height))
    lines = terminal.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("complete" in line for line in lines)
    assert len(lines) <= max(height, 17)
    if count == 1:
        assert any("test accuracy" in line for line in lines)
        assert any("step 13 of 20" in line for line in lines)


def screen(width: int, height: int, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """`circuitlab watch` on a terminal of this size."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(TOP), "LANG": "C.UTF-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen([*COMMAND, *arguments], stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    return process, ours


@pytest.fixture
def read_all() -> Iterator[Callable[[int, subprocess.Popen[bytes], Callable[[str], bool]], str]]:
    """Reads a terminal until its text satisfies a condition or its process ends."""

    def read(ours: int, process: subprocess.Popen[bytes], enough: Callable[[str], bool]) -> str:
        text, last = b"", time.monotonic() + 40
        os.set_blocking(ours, False)
        while time.monotonic() < last:
            try:
                part = os.read(ours, 65536)
            except BlockingIOError:
                part = b""
            except OSError:
                break
            text += part
            if enough(text.decode(errors="replace")) or (not part and process.poll() is not None):
                break
            if not part:
                time.sleep(0.02)
        return text.decode(errors="replace")

    yield read


def test_ctrl_c_leaves_the_run_alone_and_the_terminal_whole(tmp_path: Path, read_all: Any) -> None:
    path = tmp_path / "run.h5"
    with begin(path) as writer:
        learn(writer)
        writer.publish()
        process, ours = screen(40, 24, str(path), "--every", "0.1")
        text = read_all(ours, process, lambda text: text.count("running") >= 2)
        process.send_signal(signal.SIGINT)
        text += read_all(ours, process, lambda text: False)
        assert process.wait(20) == 130
        os.close(ours)
        assert "Traceback" not in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden, and is back
        assert "\x1b[?1049h" not in text  # what stood on the screen stays
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        assert max(len(line) for line in re.split(r"[\r\n]+", plain)) <= 40
        assert "step 13 of 20" in plain
        assert writer.due is not None  # the run goes on
        step(writer, 14)


def test_the_screen_follows_to_the_end(tmp_path: Path, read_all: Any) -> None:
    path = tmp_path / "run.h5"
    with begin(path, epochs=1, per_epoch=3) as writer:
        step(writer, 1)
        writer.publish()
        process, ours = screen(100, 30, str(path), "--every", "0.1")
        text = read_all(ours, process, lambda text: "step 1 of 3" in text)
        step(writer, 2)
        writer.publish()
        text += read_all(ours, process, lambda text: "step 2 of 3" in text)
        step(writer, 3)
        epoch(writer, 1, 0.5, 0.5)
    text += read_all(ours, process, lambda text: False)
    assert process.wait(20) == 0
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert plain.index("step 1 of 3") < plain.index("step 2 of 3") < plain.index("complete")
    assert "epoch 1 of 1, step 3 of 3" in plain


def test_sparklines_rise_and_fall_with_their_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 7], 8, blocks=ASCII) == "_#"
    assert sparkline([1.0, float("nan"), 2.0], 3) == "▁ █"
    assert sparkline([3.0] * 4, 4) == "▁▁▁▁"
    assert len(sparkline(list(range(1000)), 30)) == 30
    assert sparkline([], 30) == ""


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.2, 59, 61, 3660, 90000, None)] == [
        "0 s", "59 s", "1 min 01 s", "1 h 01 min", "1 d 1 h", "unknown",
    ]  # fmt: skip
