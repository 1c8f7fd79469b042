"""Machines of the laboratory: network namespaces on bridges, each with a home and an address.

::

    lab.machine("desk").bootstrap()            # the first machine is where the others meet
    shed = lab.machine("shed")
    shed.firewall("drop")                      # nothing gets in that was not asked for
    listener = shed.listener()
    shed.readdress()                           # as when a lease ends and another begins

A machine starts punch's programs as `integration.programs.Programs` does, and they live in its
network. All of it is apart from the network of the machine that runs the tests, which sees no
packet and gets no rule. Home routers, which are machines with two wires, are in `lab.routers`, and
long, thin and bad cables in `lab.cables`.

Everything is named after the process that made it, so that a later run removes what a killed one
has left, and nothing else; a watcher process removes it at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

# Not by a package name: the watcher runs this file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from integration.programs import Programs

PREFIX = "punch-lab"

# Where iproute2 keeps what it binds over /etc for the programs of one namespace.
NAMES = Path("/etc/netns")

# Set where the laboratory must run: in CI.
REQUIRED = "PUNCH_TEST_LAB"

# The port of a bootstrap where nobody says otherwise.
BOOTSTRAP_PORT = 51820

COMMAND_SECONDS = 20.0

_GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


class CommandFailedError(Exception):
    """A command of the laboratory ended with an error."""


def command(*words: str, typed: str = "") -> str:
    """Run *words*; what they print."""
    ended = subprocess.run(
        words, input=typed, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    if ended.returncode:
        raise CommandFailedError(f"{' '.join(words)}: {ended.stderr.strip() or ended.returncode}")
    return ended.stdout


def missing() -> str | None:
    """Why there can be no laboratory here; `None` if there can be one."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces are made by root"
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"there is no program {program}: install {package}"
    trial = f"{_own_prefix()}-trial"
    try:
        command("ip", "netns", "add", trial)
        command("ip", "netns", "exec", trial, "nft", "list", "ruleset")
        command("ip", "-n", trial, "link", "add", "name", "x", "type", "veth", "peer", "name", "y")
        command("ip", "-n", trial, "link", "add", "name", "z", "type", "bridge")
    except (CommandFailedError, OSError) as error:
        return f"this machine makes no network namespaces: {error}"
    finally:
        with suppress(CommandFailedError):
            command("ip", "netns", "delete", trial)
    return None


def _own_prefix(pid: int | None = None) -> str:
    """What the names begin with that a process makes: its number, and when it began."""
    process = psutil.Process(pid)
    return f"{PREFIX}-{process.pid}-{int(process.create_time() * 100)}"


def _namespaces(prefix: str) -> list[str]:
    listed = json.loads(command("ip", "-json", "netns", "list") or "[]")
    return [each["name"] for each in listed if each["name"].startswith(f"{prefix}-")]


def remove(prefix: str) -> list[str]:
    """Remove every namespace whose name begins with *prefix*, with the processes in it."""
    names = _namespaces(prefix)
    for name in names:
        with suppress(CommandFailedError):
            for pid in command("ip", "netns", "pids", name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with suppress(CommandFailedError):
            command("ip", "netns", "delete", name)
    for folder in NAMES.glob(f"{prefix}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    return names


def sweep() -> list[str]:
    """Remove what processes have left that are no more; the names of the namespaces."""
    prefixes = {"-".join(name.split("-")[:4]) for name in _namespaces(PREFIX)}
    prefixes |= {"-".join(folder.name.split("-")[:4]) for folder in NAMES.glob(f"{PREFIX}-*")}
    left = []
    for prefix in sorted(prefixes):
        pid = prefix.split("-")[2]
        try:
            lives = pid.isdigit() and _own_prefix(int(pid)) == prefix
        except psutil.NoSuchProcess:
            lives = False
        if not lives:
            left += remove(prefix)
    return left


class Wire:
    """A bridge that machines are plugged into, with an IPv4 and an IPv6 network of its own."""

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.bridge = f"wire{number}"
        self._net = number
        self._hosts = 0
        command("ip", "-n", namespace, "link", "add", "name", self.bridge, "type", "bridge")
        command("ip", "-n", namespace, "link", "set", self.bridge, "up")

    def attach(self, interface: str) -> None:
        """Lead to what is behind an *interface* that is in the namespace already."""
        command("ip", "-n", self.namespace, "link", "set", interface, "master", self.bridge, "up")

    def block_multicast(self) -> None:
        """Carry no mDNS between the machines of any wire, as a network for guests."""
        text = (
            "table bridge lab { chain forward { type filter hook forward priority 0; "
            "policy accept; udp dport 5353 drop\n}\n}\n"
        )
        command("ip", "netns", "exec", self.namespace, "nft", "-f", "-", typed=text)

    def next_host(self) -> int:
        """The last part of an address that no machine had before."""
        self._hosts += 1
        return self._hosts

    def ip4(self, host: int) -> str:
        """The IPv4 address of *host* on this wire."""
        return f"10.77.{self._net}.{host}"

    def ip6(self, host: int) -> str:
        """The IPv6 address of *host* on this wire."""
        return f"fd77:{self._net + 1}::{host}"


class Machine(Programs):
    """A machine: a network namespace with a firewall, a hosts file and a home. By `Lab.machine`.

    Its programs are started, and found again, as those of every other test.
    """

    def __init__(
        self,
        lab: Lab,
        name: str,
        folder: Path,
        *,
        wire: Wire | None = None,
        interface: str = "eth0",
    ) -> None:
        super().__init__(folder)
        self.name = name
        self.lab = lab
        self.port = BOOTSTRAP_PORT
        self.namespace = f"{lab.prefix}-{name}"
        self.wire = lab.wire() if wire is None else wire
        self._interfaces = 0
        self.plugged: dict[str, tuple[Wire, str]] = {}
        """Where each interface leads, and what the other end of its cable is called there."""
        self.etc = NAMES / self.namespace
        self.etc.mkdir(parents=True)
        self.hosts({})
        # No name server: what the hosts file does not know is not known.
        (self.etc / "resolv.conf").write_text(
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
        )
        command("ip", "netns", "add", self.namespace)
        self.ip("link", "set", "lo", "up")
        self.host = self.plug(self.wire, interface)
        self.prefix = ("ip", "netns", "exec", self.namespace)

    # ---- its place in the network ----

    @property
    def ip4(self) -> str:
        """Its IPv4 address on the first wire."""
        return self.wire.ip4(self.host)

    @property
    def ip6(self) -> str:
        """Its IPv6 address on the first wire."""
        return self.wire.ip6(self.host)

    @property
    def address(self) -> str:
        """Where its programs meet the others, if nothing else is said."""
        return self.lab.meeting

    def plug(self, wire: Wire, name: str = "") -> int:
        """Another interface, on *wire*, with an address there; the host's number.

        Args:
          wire: Where it leads.
          name: What the machine calls it; by default ``eth`` and the next number.

        """
        inside = name or f"eth{self._interfaces}"
        outside = f"{self.name}{self._interfaces}"
        self._interfaces += 1
        host = wire.next_host()
        pair = ("link", "add", "name", inside, "type", "veth", "peer", "name", outside)
        self.ip(*pair, "netns", wire.namespace)
        wire.attach(outside)
        self.plugged[inside] = (wire, outside)
        self.ip("link", "set", inside, "up")
        self._give(inside, wire, host)
        return host

    def _give(self, interface: str, wire: Wire, host: int) -> None:
        self.ip("addr", "add", f"{wire.ip4(host)}/24", "dev", interface)
        self.ip("addr", "add", f"{wire.ip6(host)}/64", "dev", interface, "nodad")

    def readdress(self) -> str:
        """Have other addresses on the first wire, as after a new lease; the IPv4 one."""
        for kind, address in (("24", self.ip4), ("64", self.ip6)):
            self.ip("addr", "delete", f"{address}/{kind}", "dev", "eth0")
        self.host = self.wire.next_host()
        self._give("eth0", self.wire, self.host)
        return self.ip4

    def go_link_local(self) -> None:
        """Have no address on the first wire but the one that the system gives each link."""
        self.ip("addr", "flush", "dev", "eth0", "scope", "global")

    def link(self, interface: str, state: str) -> None:
        """Put an interface ``up`` or ``down``."""
        self.ip("link", "set", interface, state)
        if state == "up":
            # Global IPv6 addresses go with the link.
            with suppress(CommandFailedError):
                self.ip("addr", "add", f"{self.ip6}/64", "dev", interface, "nodad")

    def destroy(self) -> None:
        """Be gone for good: every program killed, the home deleted, the cable cut."""
        self.ip("link", "set", "eth0", "down")
        while pids := command("ip", "netns", "pids", self.namespace).split():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            for program in self._running:
                program.process.poll()
            time.sleep(0.05)
        shutil.rmtree(self.folder)

    def hosts(self, names: Mapping[str, str]) -> None:
        """Have *names* stand for these addresses, from now on, for running programs too."""
        lines = {"localhost": "127.0.0.1", **names}
        # In place: a running program sees this very file.
        with (self.etc / "hosts").open("w", encoding="utf-8") as file:
            file.writelines(f"{address}\t{name}\n" for name, address in lines.items())

    # ---- its firewall ----

    def firewall(self, verdict: str = "drop", *, allow: Sequence[int] = ()) -> None:
        """Let nothing in that the machine has not asked for, but TCP to the ports of *allow*.

        Args:
          verdict: ``drop``, or ``reject``, which says so.
          allow: Ports that are open.

        """
        ports = f"tcp dport {{ {', '.join(map(str, allow))} }} accept" if allow else ""
        refuse = "reject with icmpx admin-prohibited" if verdict == "reject" else "drop"
        self._rules(
            "type filter hook input priority 0; policy accept;",
            'iifname "lo" accept',
            "ct state established,related accept",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            ports,
            refuse,
        )

    def silence(self) -> None:
        """Drop every packet in, of whatever connection: the machine has vanished."""
        self._rules("type filter hook input priority 0; policy accept;", 'iifname != "lo" drop')

    def mute(self) -> None:
        """Drop mDNS in and out, as a firewall of the machine's own that knows it not."""
        rules = "udp dport 5353 drop"
        chains = "\n".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; policy accept; {rules}\n}}"
            for hook in ("input", "output")
        )
        text = f"flush ruleset\ntable inet lab {{\n{chains}\n}}\n"
        command("ip", "netns", "exec", self.namespace, "nft", "-f", "-", typed=text)

    def open(self) -> None:
        """Have no firewall."""
        self.shell("nft", "flush", "ruleset")

    def _rules(self, head: str, *rules: str) -> None:
        text = "\n".join(
            ["flush ruleset", "table inet lab { chain input {", head, *rules, "}", "}", ""]
        )
        command("ip", "netns", "exec", self.namespace, "nft", "-f", "-", typed=text)

    # ---- commands in it ----

    def ip(self, *words: str) -> str:
        """Run ``ip`` for it."""
        return command("ip", "-n", self.namespace, *words)

    def get(self, url: str) -> str:
        """What a web server of its network answers, whatever the status."""
        return self.shell(sys.executable, "-c", _GET, url)

    def shell(self, *words: str) -> str:
        """Run a command in it, and wait; what it prints."""
        return command("ip", "netns", "exec", self.namespace, *words)


class Lab:
    """Machines on wires, of one test. Made by `open_lab`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.prefix = f"{_own_prefix()}-{number}"
        self.machines: dict[str, Machine] = {}
        self.meeting = ""
        """Where the programs meet: the first machine, if nothing else is set."""
        self._wires: list[Wire] = []
        self._switch = f"{self.prefix}-switch"
        command("ip", "netns", "add", self._switch)

    def wire(self, number: int = 0) -> Wire:
        """The first wire, or another one, made when it is first asked for."""
        while len(self._wires) <= number:
            self._wires.append(Wire(self._switch, len(self._wires)))
        return self._wires[number]

    def machine(self, name: str) -> Machine:
        """A machine; made when its *name*, of at most eight letters, is new."""
        if name not in self.machines:
            home = self.folder / name
            home.mkdir(parents=True)
            machine = self.machines[name] = Machine(self, name, home)
            self.meeting = self.meeting or f"/ip4/{machine.ip4}/tcp/{BOOTSTRAP_PORT}"
        return self.machines[name]

    def close(self) -> None:
        """End every program and remove everything; fail if a program does not end."""
        errors: list[str] = []
        running = list(self.machines.values())
        for machine in running:
            machine.ask_to_end()
        for machine in running:
            try:
                machine.close()
            except AssertionError as error:
                errors.append(f"{machine.name}: {error}")
        remove(self.prefix)
        assert not errors, errors


def _watch(prefix: str) -> None:
    """Wait for the end of standard input, then remove all that begins with *prefix*."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # A program that was being started may come a moment later than its starter went.
    for _ in range(2):
        remove(prefix)
        time.sleep(0.2)


@contextmanager
def open_watch() -> Iterator[None]:
    """Have everything of this process removed at its end, whatever ends it."""
    prefix = _own_prefix()
    watch = subprocess.Popen(
        [sys.executable, __file__, prefix], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        assert watch.stdin is not None
        watch.stdin.close()
        watch.wait(COMMAND_SECONDS)


@contextmanager
def open_lab(folder: Path, number: int = 0) -> Iterator[Lab]:
    """A laboratory that is gone when the block ends."""
    lab = Lab(folder, number)
    try:
        yield lab
    finally:
        lab.close()


if __name__ == "__main__":
    _watch(sys.argv[1])
