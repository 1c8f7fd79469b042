"""Plays what a document shows of terminals, on machines of the laboratory, and compares.

A block of the page that is marked ``console`` has commands, each behind the name of its machine and
`PROMPT`, and below each what it prints, line by line, on a terminal:

1. What is new each time (keys, fingerprints, codes, addresses, ports, digits, days) may differ, and
   is the same wherever the page has the same. In commands the page's own is replaced by the real.
   A machine may be found at its IPv6 address where the page has the other: mDNS brings both.
2. A line ``...``, and one with ``...`` at an end, stands for whatever is printed there, if anything
   is. Where it is the last one, the command runs on, in a terminal of its own.
3. Below ``# continues`` is what the last command of that machine prints after what others did.
4. A person types what stands behind ``[y/N]``, and at ``code:`` the code that was printed last.
5. ``^C`` ends the last command that runs on.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import psutil
from integration.programs import ROOT
from lab.machines import Machine

DOCUMENT = ROOT / "docs" / "network.md"
PROMPT = "$ "
CONTINUES = "# continues"
INTERRUPT = "^C"
ANYTHING = "..."

# A command on a busy machine; the longest looks for members on the LAN.
COMMAND_SECONDS = 40.0

# What is new each time. Of those that name somebody no two may be the same.
NAMES = {
    "code": r"\bpunch1[a-z2-7]{40,}",
    "peer": r"\b12D3KooW[1-9A-HJ-NP-Za-km-z]{44}\b",
    "host": r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    "fingerprint": r"(?<=@)[a-z2-7]{8}\b",
}
NEW = (
    {"place": r"(?<=/)ip[46]/[0-9a-f.:]+"}
    | NAMES
    | {
        "port": r"(?<=/tcp/)\d+",
        "digits": r"(?<![\d-])\d{3}(?=[ -]\d{3}(?![\d-]))|(?<=(?<![\d-])\d{3}[ -])\d{3}(?![\d-])",
        "day": r"\b\d{4}-\d\d-\d\d(?: \d\d:\d\d UTC)?",
    }
)
# A machine is found by whichever of its addresses is the first that answers.
ON_A_LINK = "ip6zone/[a-z0-9]+/ip6/fe80::[0-9a-f:]+"
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in NEW.items()))

# How a program ends that is interrupted: it had nothing left to do, or it had.
ENDED = (0, 130)

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_QUESTION = re.compile(r"(.*\[y/N\]) (\w+)")

# Runs the rest of its command line on a machine that is called as its first word says.
_NAMED = 'hostname "$0" && exec "$@"'


@attrs.frozen
class Step:
    """A command of the page, or more of what it prints."""

    machine: str
    command: str
    lines: tuple[str, ...]
    is_continued: bool
    """Whether more of what it prints comes later."""

    @property
    def runs_on(self) -> bool:
        """Whether the command does not end by itself."""
        return bool(self.lines) and self.lines[-1].endswith(ANYTHING)


def blocks_below(heading: str, document: Path = DOCUMENT) -> list[str]:
    """The blocks of terminals below a *heading* of the page, up to the next heading."""
    found = re.search(
        rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#+ |\Z)",
        document.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"{document.name} has no heading {heading!r}"
    return re.findall(r"^```console\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def steps_of(blocks: Sequence[str]) -> Iterator[Step]:
    """The commands of *blocks*, in order."""
    found: list[tuple[str, str, list[str]]] = []
    for line in "".join(blocks).splitlines():
        if match := re.fullmatch(rf"(\w+){re.escape(PROMPT)}(.*)", line):
            found.append((match[1], match[2], []))
        elif line.strip():
            found[-1][2].append(line.rstrip())
    for number, (machine, command, lines) in enumerate(found):
        later = next((other for name, other, _ in found[number + 1 :] if name == machine), "")
        yield Step(machine, command, tuple(lines), is_continued=later == CONTINUES)


class Terminal:
    """A command in a terminal of *machine*, as in the home of somebody who has just begun.

    Args:
      machine: Where it runs.
      line: What is typed.
      folder: Has the program ``punch``.

    """

    def __init__(self, machine: Machine, line: str, folder: Path) -> None:
        self.line = f"{machine.name}{PROMPT}{line}"
        self.expected: list[str] = []
        """What the page says that it has printed so far."""
        mine, its = os.openpty()
        command = ("setsid", "--ctty", "bash", "-c", line)
        named = ("unshare", "--uts", "sh", "-c", _NAMED, machine.name)
        self.process = subprocess.Popen(
            [*machine.prefix, *named, *command],
            stdin=its,
            stdout=its,
            stderr=its,
            cwd=machine.folder,
            env={
                "HOME": str(machine.folder),
                "PATH": f"{folder}:{os.environ['PATH']}",
                "LANG": "C.UTF-8",
                "TERM": "xterm",
            },
        )
        os.close(its)
        self._file = mine
        self._printed: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._file, 1 << 16)
            except OSError:  # Nobody has the other end any more.
                return
            self._printed.append(data)

    @property
    def text(self) -> str:
        """What it has printed, without colours and spaces at the ends of lines."""
        text = b"".join(self._printed).decode("utf-8", "replace")
        lines = _COLOURS.sub("", text).replace("\r\n", "\n").split("\n")
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until it has printed *text*."""
        deadline = time.monotonic() + COMMAND_SECONDS
        while text not in self.text:
            assert time.monotonic() < deadline, f"{self.line}: no {text!r}:\n{self.text}"
            time.sleep(0.05)

    def wait_until_ended(self) -> None:
        """Wait for its end, which must be a good one."""
        try:
            code = self.process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.line}: does not end:\n{self.text}") from None
        self._reader.join(5)
        assert code == 0, f"{self.line}: exit code {code}:\n{self.text}"

    def close(self) -> int:
        """End it, by Ctrl-C if it runs; its exit code."""
        if self.process.poll() is None:
            self.type("\x03")
        try:
            code = self.process.wait(COMMAND_SECONDS)
        finally:
            self.kill()
        return code

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        os.close(self._file)


class Player:
    """Plays the page.

    Args:
      folder: Where the program ``punch`` is put.
      machines: The machines, each by the address that it has on the page.
      document: The page.

    """

    def __init__(
        self, folder: Path, machines: Mapping[str, Machine], document: Path = DOCUMENT
    ) -> None:
        self.document = document
        self.machines = {machine.name: machine for machine in machines.values()}
        self.known = {address: machine.ip4 for address, machine in machines.items()}
        """What stands on the page for something that is new each time, and what it is now."""
        self._places = {
            f"ip4/{address}": f"(?:ip4/{re.escape(machine.ip4)}|ip6/{machine.ip6}|{ON_A_LINK})"
            for address, machine in machines.items()
        }
        self.running: dict[str, list[Terminal]] = {name: [] for name in self.machines}
        """Of each machine, the commands that run on."""
        self._last: dict[str, Terminal] = {}
        self._code = ""
        self._bin = folder / "bin"
        self._bin.mkdir()
        program = self._bin / "punch"
        program.write_text(
            f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} -m punch "$@"\n'
        )
        program.chmod(0o755)

    def play(self, heading: str) -> None:
        """Do what stands below *heading*; fail where anything else is printed."""
        steps = list(steps_of(blocks_below(heading, self.document)))
        assert steps, f"there is nothing to type below {heading!r}"
        for step in steps:
            if step.command == INTERRUPT:
                assert self.running[step.machine].pop().close() in ENDED
                continue
            if step.command != CONTINUES:
                line = TOKEN.sub(lambda found: self.known.get(found[0], found[0]), step.command)
                machine = self.machines[step.machine]
                self._last[step.machine] = Terminal(machine, line, self._bin)
            self._watch(self._last[step.machine], step)

    def _watch(self, terminal: Terminal, step: Step) -> None:
        for line in step.lines:
            question = _QUESTION.fullmatch(line)
            if question is not None or line == "code:":
                self._wait(terminal, line if question is None else question[1])
                terminal.type(f"{self._code if question is None else question[2]}\n")
            terminal.expected.append(line)
        if step.runs_on:
            if terminal not in self.running[step.machine]:
                self.running[step.machine].append(terminal)
        elif not step.is_continued:
            terminal.wait_until_ended()
        self._wait(terminal)
        if not step.is_continued and terminal.process.poll() is not None:
            terminal.close()

    def _wait(self, terminal: Terminal, unended: str | None = None) -> None:
        """Wait until *terminal* shows what is expected of it, and a line that has not ended."""
        lines = [*terminal.expected, *([] if unended is None else [unended])]
        deadline = time.monotonic() + COMMAND_SECONDS
        while (found := self._compare(lines, terminal.text)) is None:
            is_over = terminal.process.poll() is not None or time.monotonic() > deadline
            if is_over and self._compare(lines, terminal.text) is None:
                expected = "\n".join(lines)
                raise AssertionError(
                    f"{terminal.line}\n\n{terminal.text}\n\nand not, as the page has it,\n\n"
                    f"{expected}\n\nwith {self.known}"
                )
            time.sleep(0.05)
        self.known |= found

    def _compare(self, lines: Sequence[str], text: str) -> dict[str, str] | None:
        """What stands for what, if *text* is what *lines* say; else `None`."""
        groups: dict[str, str] = {}
        parts, end = [], 0
        page = "\n".join(lines)
        anything = re.escape(ANYTHING)
        # A line of its own may stand for no line at all.
        wild = rf"(?P<lines>\n{anything}(?=\n|\Z))|(?P<any>{anything})"
        for token in re.finditer(rf"{TOKEN.pattern}|{wild}", page):
            parts.append(re.escape(page[end : token.start()]))
            end = token.end()
            kind = token.lastgroup
            assert kind is not None
            if kind == "lines":
                parts.append(r"(?:\n[\s\S]*)?")
            elif kind == "any":
                parts.append(r"[\s\S]*")
            elif kind == "day":
                parts.append(NEW[kind])
            elif kind == "place":
                parts.append(self._places[token[0]])
            elif token[0] in self.known:
                parts.append(re.escape(self.known[token[0]]))
            elif token[0] in groups:
                parts.append(f"(?P={groups[token[0]]})")
            else:
                groups[token[0]] = f"{kind}_{len(groups)}"
                parts.append(f"(?P<{groups[token[0]]}>{NEW[kind]})")
        parts.append(re.escape(page[end:]))
        found = re.fullmatch("".join(parts), text)
        if found is None:
            return None
        now = {token: found[group] for token, group in groups.items()}
        named = [now[token] for token, group in groups.items() if group.split("_")[0] in NAMES]
        taken = {each for each in self.known.values() if each not in now}
        if len(set(named)) < len(named) or taken & set(named):
            return None  # One stands for two.
        self._code = next(
            (now[token] for token, group in groups.items() if group.startswith("code")), self._code
        )
        return now

    def spent(self) -> float:
        """Seconds of processor time of all commands so far, those that run included."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + sum(map(_used, self._alive()))

    def _alive(self) -> Iterator[Terminal]:
        for terminals in self.running.values():
            yield from (each for each in terminals if each.process.poll() is None)

    def destroy(self, name: str) -> None:
        """Take a machine away for good."""
        for terminal in self.running.pop(name):
            terminal.kill()
        self.machines[name].destroy()

    def close(self) -> None:
        """End all that runs, by Ctrl-C; fail if something ends otherwise."""
        try:
            codes = {each.line: each.close() for each in list(self._alive())}
            assert all(code in ENDED for code in codes.values()), codes
        finally:
            # One that has not said what is on the page runs on, and nobody has it.
            for terminal in self._last.values():
                if terminal.process.poll() is None:
                    terminal.kill()


def _used(terminal: Terminal) -> float:
    times = psutil.Process(terminal.process.pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
