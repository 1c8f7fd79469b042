"""Writes what the code knows into the documents: ``--help`` texts, exit codes, diagram and limits.

python docs/help.py           rewrites the parts between markers
python docs/help.py --check   exits with 1 if that would change anything
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["NO_COLOR"] = "1"

from punch.bootstrap import __main__ as bootstrap
from punch.cli import ExitCode
from punch.cli.splits._coordinator import ABOUT as COORDINATOR
from punch.cli.splits._split_settings import CoordinatorSettings
from punch.cli.up._up import ABOUT as UP
from punch.cli.up._up_settings import UpSettings
from punch.cluster.worker import __main__ as worker
from punch.dialer import __main__ as dialer
from punch.gateway import __main__ as gateway
from punch.gateway import fields_table, refused_table, taken_table
from punch.listener import __main__ as listener
from punch.settings import (
    BootstrapSettings,
    DialerSettings,
    GatewaySettings,
    ListenerSettings,
    WorkerSettings,
    help_text,
)
from punch.wire import LIMITS, diagram

ROOT = Path(__file__).parent.parent


def helps() -> str:
    """The help of every program."""
    texts = [
        help_text(f"python -m {program.__package__}", program.ABOUT, kind)
        for program, kind in (
            (listener, ListenerSettings),
            (dialer, DialerSettings),
            (gateway, GatewaySettings),
            (bootstrap, BootstrapSettings),
            (worker, WorkerSettings),
        )
    ]
    texts.insert(0, help_text("punch up", UP, UpSettings))
    texts.append(help_text("punch coordinator", COORDINATOR, CoordinatorSettings))
    return "\n".join(f"```text\n{text.rstrip()}\n```" for text in texts)


def exits() -> str:
    """The exit codes, as a table."""
    source = (ROOT / "punch" / "cli" / "_exits.py").read_text(encoding="utf-8")
    rows = ["| code | name | meaning |", "| --- | --- | --- |"]
    for code in ExitCode:
        match = re.search(rf'{code.name} = \d+\n    """(.*?)"""', source, re.DOTALL)
        assert match, code
        meaning = match[1].replace("\\\n", "")  # Where the source goes on in the next line.
        rows.append(f"| {code.value} | {code.name} | {meaning} |")
    return "\n".join(rows)


TYPES = {int: "whole number", float: "number", str: "text", bytes: "bytes", tuple: "list"}


def limits() -> str:
    """What a request may hold, as a table."""
    rows = ["| field | type | least | most | of |", "| --- | --- | ---: | ---: | --- |"]
    for name, limit in LIMITS.items():
        least = f"above {limit.least:,}" if limit.above else f"{limit.least:,}"
        kind, most = TYPES[limit.type], f"{int(limit.most):,}"
        rows.append(f"| `{name}` | {kind} | {least} | {most} | {limit.unit} |")
    return "\n".join(rows)


PARTS = {
    "INFERENCE.md": {"help": helps, "exits": exits},
    "docs/gateway.md": {"fields": fields_table},
    "docs/fields.md": {"taken": taken_table, "refused": refused_table},
    "docs/protocol.md": {"diagram": diagram, "limits": limits},
}


def rewritten(name: str) -> tuple[str, str]:
    """A document as it is, and as it should be."""
    before = after = (ROOT / name).read_text(encoding="utf-8")
    for marker, make in PARTS[name].items():
        text = make()
        after = re.sub(
            rf"(<!-- {marker}:begin[^\n]*-->\n).*?(<!-- {marker}:end -->)",
            lambda match, text=text: f"{match[1]}{text}\n{match[2]}",
            after,
            flags=re.DOTALL,
        )
    return before, after


def main() -> int:
    """Rewrite or check; 1 if something was out of date and *--check* was given."""
    stale = []
    for name in PARTS:
        before, after = rewritten(name)
        if before != after:
            stale.append(name)
            if "--check" not in sys.argv:
                (ROOT / name).write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run python docs/help.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
