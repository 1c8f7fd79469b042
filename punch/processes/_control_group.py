"""A control group of Linux (cgroup v2) for one child: a limit on the memory of all that it starts.

A group can be made where the system has given this process a part of the tree, as systemd does with
``Delegate=yes``, and as root; nowhere else, and then there is none. In a group that is over its
limit the kernel ends what is in it.

https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TREE = Path("/sys/fs/cgroup")
_OURS = Path("/proc/self/cgroup")


@contextmanager
def open_control_group(
    memory_bytes: int, *, tree: Path = _TREE, ours: Path = _OURS
) -> Iterator[Path | None]:
    """The folder of a new control group, for `start_child`; removed on the way out.

    `None` where no group can be made. What is in it must have ended before the way out.

    Args:
      memory_bytes: Main memory for all processes in it together; there is no swap beyond that.
      tree: Where the system has its control groups.
      ours: The file that names the group of this process.

    """
    group = _make(memory_bytes, tree, ours)
    try:
        yield group
    finally:
        if group is not None:
            with suppress(OSError):
                group.rmdir()


def _make(memory_bytes: int, tree: Path, ours: Path) -> Path | None:
    for parent in _parents(tree, ours):
        group = parent / f"punch-{secrets.token_hex(8)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "memory.max").write_text(str(memory_bytes), encoding="ascii")
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            with suppress(OSError):  # Without swap there is no such file.
                (group / name).write_text(value, encoding="ascii")
        return group
    return None


def _parents(tree: Path, ours: Path) -> Iterator[Path]:
    """Groups under which one with a limit on memory may be made: our own, and what it is in."""
    with suppress(OSError, ValueError):
        for line in ours.read_text(encoding="utf-8").splitlines():
            number, _, name = line.split(":", 2)
            if number != "0":
                continue
            own = tree / name.lstrip("/")
            # A group with processes has no groups with limits in it, unless it is the root.
            for group in (own, own.parent):
                if group.is_relative_to(tree) and "memory" in _given_on(group):
                    yield group


def _given_on(group: Path) -> list[str]:
    """The controllers that the groups in *group* have."""
    with suppress(OSError):
        return (group / "cgroup.subtree_control").read_text(encoding="ascii").split()
    return []
