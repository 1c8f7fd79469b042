"""Tells how far a program is with loading its model, as far as that can be seen from outside.

Engines say little while they load. What can be seen is how much of the file their processes have
read or hold: that is the share, an estimate, and absent where the system does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil
import trio

from .._logs import get_logger
from ._child import Child

log = get_logger(__name__)

# Most models are there before the first line; a big one on a slow disk takes minutes.
FIRST_SECONDS = 3.0
EVERY_SECONDS = 10.0

# The program also reads libraries and makes room for its caches, so the estimate stops short.
_MOST = 0.99


async def tell_loading(
    name: str, child: Callable[[], Child | None], model_bytes: int | None
) -> None:
    """Log, until cancelled, for how long a program has been loading, and how much of its model.

    Args:
      name: What the log calls the program.
      child: The program, once it has been started.
      model_bytes: Size of the model; `None` if not known.

    """
    began = trio.current_time()
    await trio.sleep(FIRST_SECONDS)
    while True:
        share = loaded_share(child(), model_bytes)
        known = {} if share is None else {"percent": round(100 * share)}
        seconds = round(trio.current_time() - began)
        log.info("an engine is loading its model", engine=name, seconds=seconds, **known)
        await trio.sleep(EVERY_SECONDS)


def loaded_share(child: Child | None, model_bytes: int | None) -> float | None:
    """How much of its model a program has read, 0 to 1; `None` if that is not known."""
    pid = None if child is None else child.pid
    if pid is None or not model_bytes:
        return None
    most = 0
    with suppress(psutil.Error, OSError):
        program = psutil.Process(pid)
        # A wrapper script reads nothing, and what it has started does.
        for process in (program, *program.children(recursive=True)):
            most = max(most, _read_bytes(process))
    return min(_MOST, most / model_bytes) if most else None


def _read_bytes(process: psutil.Process) -> int:
    """What a process has read from files, or holds of them in memory where they are mapped."""
    held = 0
    with suppress(psutil.Error, OSError):
        held = int(process.memory_info().rss)
    with suppress(psutil.Error, OSError, AttributeError, NotImplementedError):
        # Not on macOS. A model that goes to a GPU is read, and not held.
        held = max(held, int(getattr(process.io_counters(), "read_chars", 0)))
    return held
