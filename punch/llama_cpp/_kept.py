"""Keeps what was found out about some programs, in a file, until the machine starts anew.

What is kept belongs to the very files that it was found out about: another build in the same place
is another program. Losing it costs a second of asking again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..processes import ProcessMark

MAX_KEPT: Final = 64


class Kept:
    """What was kept about *programs*, by *what* was asked of them.

    Args:
      file: Where it is kept; `None` for nowhere.
      programs: The programs.
      what: What was asked, as JSON has it.

    """

    def __init__(self, file: Path | None, programs: Sequence[Path], what: Sequence[Any]) -> None:
        self._file = file
        mark = ProcessMark.of(os.getpid())
        self._boot = "" if mark is None else mark.boot
        described: list[Any] = [*what]
        for program in programs:
            with contextlib.suppress(OSError):
                status = program.stat()
                described += [str(program), status.st_size, status.st_mtime_ns]
        self._key = json.dumps(described)
        self.value: Any = self._read().get(self._key)
        """What was kept, as JSON has it; `None` if nothing was."""

    def _read(self) -> dict[str, Any]:
        if self._file is None or not self._boot:
            return {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self._file.read_text(encoding="utf-8"))
            if told["boot"] == self._boot and isinstance(told["kept"], dict):
                return dict(told["kept"])
        return {}

    def keep(self, value: Any) -> None:
        """Keep *value*, if the file can be written."""
        self.value = value
        if self._file is None or not self._boot:
            return
        known = self._read()
        known.pop(self._key, None)
        known[self._key] = value
        latest = dict(list(known.items())[-MAX_KEPT:])
        new = self._file.with_name(f".{self._file.name}-{os.getpid()}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps({"boot": self._boot, "kept": latest}), encoding="utf-8")
            new.replace(self._file)
