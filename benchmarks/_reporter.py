"""Runs a tree's own measurements again and again, as a process, and tells their rows.

It is started with the folder of that tree's benchmarks; all it imports besides is from there.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from typing import Any


def _exact(seconds: float) -> str:
    return f"{seconds * 1e3!r} ms"


def main() -> None:
    """Serve the parent."""
    folder = json.loads(sys.argv[1])["folder"]
    sys.path[0] = folder
    # Before any measurement takes it by name: three digits are for people.
    vars(importlib.import_module("_results"))["milliseconds"] = _exact
    processes = importlib.import_module("_processes")
    trio = importlib.import_module("trio")

    async def measure(*, name: str) -> list[tuple[str, str]]:
        module = importlib.import_module(name)
        report: Any = await trio.to_thread.run_sync(partial(module.measure, quick=True))
        return [(row.what, row.ours) for row in report.rows]

    trio.run(partial(processes.serve, {"measure": measure}))


if __name__ == "__main__":
    main()
