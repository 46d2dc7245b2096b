"""What torch allocates while something runs, by its own profiler."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def allocations(work: Callable[[], object]) -> list[int]:
    """Sizes in bytes of all memory that torch's allocator of the CPU hands out during `work`, freed since or not."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    sizes = [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
    return [size for size in sizes if size > 0]
