"""Runs commands on bad files, each in a child of its own with limits, and says what became of them.

Arguments: a JSON file with a list of argument lists of `circuitlab`. Prints a JSON list of exit code (or minus the
signal), standard error, seconds of CPU, seconds, and megabytes beyond an idle child.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from circuitlab.cli.main import main

WALL = 20


def idle() -> int:
    return 0


def child(work, out: int) -> None:
    signal.alarm(WALL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + (1 << 30), pages + (1 << 30)))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(out, 2)
    code = 99
    try:
        code = work()
    except BaseException as error:  # noqa: BLE001 (told as a traceback)
        print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(work) -> tuple[int, str, float, float, int]:
    with tempfile.TemporaryFile() as page:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(work, page.fileno())
        _, status, used = os.wait4(pid, 0)
        seconds = time.monotonic() - started
        page.seek(0)
        said = page.read().decode("utf-8", "replace")
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, said, used.ru_utime + used.ru_stime, seconds, used.ru_maxrss


def all_of(jobs: list[list[str]]) -> list[tuple[int, str, float, float, float]]:
    floor = max(run(idle)[4] for _ in range(3))
    found = []
    for job in jobs:
        code, said, cpu, seconds, most = run(lambda job=job: main(job))
        found.append((code, said, cpu, seconds, (most - floor) / 1024))
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[2:] == ["all"]:
        import matplotlib.pyplot  # noqa: F401

        import circuitlab.experiment.diagnose
        import circuitlab.experiment.repeat
        import circuitlab.experiment.simulate
    import circuitlab.cli.export
    import circuitlab.cli.inspect_print
    import circuitlab.record.circuits
    import circuitlab.report.figures
    import circuitlab.report.readings  # noqa: F401

    print(json.dumps(all_of(json.loads(Path(sys.argv[1]).read_text()))))
