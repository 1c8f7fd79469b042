"""Which programs of punch run here, by what each of them wrote down when it started.

A file of each is in the data folder, with its process id, when it started and in which boot, and it
goes with the program. One whose program was killed says nothing: no other process has its mark.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from ..._logs import get_logger
from ...processes import ProcessMark
from ...settings import data_folder

log = get_logger(__name__)

# Files that are looked at, and bytes of one: a machine runs a handful of programs.
MAX_FILES = 1024
MAX_BYTES = 1024


@attrs.frozen(kw_only=True)
class Running:
    """A program of punch that runs."""

    name: str
    """What it is, such as ``punch listener``."""

    mark: ProcessMark
    """Its process."""


@contextmanager
def noted(name: str) -> Iterator[None]:
    """Write this process down as the program *name*, for as long as the context lasts."""
    mark = ProcessMark.of(os.getpid())
    assert mark is not None, "we run"
    path = _folder() / f"{mark.pid}.json"
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.write_text(json.dumps({"name": name, **attrs.asdict(mark)}), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        # It runs all the same; only `punch down` will not know of it.
        log.warning("`punch down` will not find this program", path=str(path), why=error.strerror)
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        yield
        return
    try:
        yield
    finally:
        # Not one that another process has written since, which has our number elsewhere.
        if _read(path) == Running(name=name, mark=mark):
            with suppress(OSError):
                path.unlink()


def running_here() -> tuple[Running, ...]:
    """The programs of this user that run, by process id; what is left of others is removed."""
    found = []
    try:
        paths = sorted(_folder().glob("*.json"))[:MAX_FILES]
    except OSError:
        return ()
    for path in paths:
        one = _read(path)
        if one is not None and one.mark.is_running:
            found.append(one)
        else:
            with suppress(OSError):
                path.unlink()
    return tuple(sorted(found, key=lambda each: each.mark.pid))


def _folder() -> Path:
    return data_folder() / "running"


def _read(path: Path) -> Running | None:
    """What is written in *path*; `None` if it is nothing of ours."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(MAX_BYTES))
        name, pid, start, boot = (said[key] for key in ("name", "pid", "start", "boot"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(each, str) for each in (name, start, boot)) or type(pid) is not int:
        return None
    return Running(name=name, mark=ProcessMark(pid=pid, start=start, boot=boot))
