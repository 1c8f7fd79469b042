"""Addresses that change, names, and one setting for all: programs on machines of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine

# What the issue promises, and what a test may wait beyond for a machine that is busy.
FOLLOWED_SECONDS = 10.0

ASK = ("--ask", "hello", "--no-stream", "--json", "--timeout", "20")


def until(ready: Callable[[], Any], what: str, seconds: float = 30.0) -> float:
    """Wait until *ready*; the seconds that it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.1)
    return time.monotonic() - began


class Watch:
    """``punch peers --json`` on a machine: which listeners can be asked from there."""

    def __init__(self, machine: Machine) -> None:
        self._program = machine.start_punch("peers", "--json")
        self._seen = 0

    def heard(self) -> set[str]:
        """Peers heard in the second before they were printed, since the last call."""
        lines = self._program.out.splitlines()
        new, self._seen = lines[self._seen : -1], max(self._seen, len(lines) - 1)
        found = [json.loads(line) for line in new]
        return {one["peer_id"] for one in found if one["connected"] and one["age"] < 1.5}

    def wait_for(self, *peers: str, what: str) -> float:
        """Wait until each of *peers* is heard anew; the seconds that it took."""
        # What was heard before says nothing: the old sessions end within five seconds.
        began = time.monotonic()
        time.sleep(2.5)
        self.heard()
        left = set(peers)

        def all_heard() -> bool:
            left.difference_update(self.heard())
            return not left

        until(all_heard, f"{what}: {left}")
        return time.monotonic() - began


@limit(200)
def test_an_address_that_changes_is_followed(lab: Lab) -> None:
    """A lease ends and another begins: sessions are back in under ten seconds, on either side.

    One listener has the default address, one all that its machine has, one its machine's IPv6.
    """
    boot, a, b, c = (lab.machine(name) for name in ("boot", "a", "b", "c"))
    port = BOOTSTRAP_PORT
    boot.bootstrap("--listen", f"/ip4/0.0.0.0/tcp/{port},/ip6/::/tcp/{port}", "--transport", "tcp")
    usual = a.start("listener")
    wild = c.start("listener", "--listen", "/ip4/0.0.0.0/tcp/0")
    sixth = c.start("listener", PUNCH_BOOTSTRAP=f"/ip6/{boot.ip6}/tcp/{port}")
    watch = Watch(b)
    listeners = [one.ready(it) for one, it in ((a, usual), (c, wild), (c, sixth))]
    assert usual.addresses[0].startswith(f"/ip4/{a.ip4}/tcp/21820/")
    assert sixth.addresses[0].startswith(f"/ip6/{c.ip6}/tcp/21820/")
    ids = [listener.peer_id for listener in listeners]
    watch.wait_for(*ids, what="found")

    a.readdress()
    c.readdress()
    assert watch.wait_for(*ids, what="the listeners moved") < FOLLOWED_SECONDS
    b.readdress()
    assert watch.wait_for(*ids, what="the dialer moved") < FOLLOWED_SECONDS

    for machine, listener in zip((a, c, c), listeners, strict=True):
        said = listener.wait_for("this machine's addresses are others")
        where = machine.ip6 if listener is sixth else machine.ip4
        assert [place for place in said["listening"] if f"/{where}/tcp/" in place]
    assert "/tcp/21820" in usual.events("this machine's addresses are others")[0]["listening"][0]
    assert b.dial(*ASK).json()["executor"] in ids


@pytest.mark.long
@limit(300)
@pytest.mark.parametrize("seconds", [3, 8, 20, 45])
def test_a_link_that_goes_and_comes_is_followed(lab: Lab, seconds: float) -> None:
    """A cable is pulled and plugged again: sessions are back ten seconds after that."""
    boot, a, b = (lab.machine(name) for name in ("boot", "a", "b"))
    boot.bootstrap("--listen", f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}")
    listener, watch = a.listener(), Watch(b)
    watch.wait_for(listener.peer_id, what="found")
    for machine in (a, b):
        machine.link("eth0", "down")
        time.sleep(seconds)
        machine.link("eth0", "up")
        taken = watch.wait_for(listener.peer_id, what=f"the link of {machine.name} is up")
        assert taken < FOLLOWED_SECONDS


@pytest.mark.long
@limit(300)
def test_a_bootstrap_whose_name_stands_for_another_address_is_found_there(lab: Lab) -> None:
    """Members look its name up again, and the bootstrap listens at its machine's new address."""
    boot, a, b = (lab.machine(name) for name in ("boot", "a", "b"))
    lab.meeting = f"/dns4/boot.test/tcp/{BOOTSTRAP_PORT}"

    def name_it() -> None:
        for machine in (boot, a, b):
            machine.hosts({"boot.test": boot.ip4})

    name_it()
    server = boot.bootstrap()
    listener = a.listener()
    assert b.dial(*ASK).json()["executor"] == listener.peer_id
    boot.readdress()
    name_it()
    until(lambda: listener.events("the bootstrap is back"), "the bootstrap is back", 60)
    assert server.events("this machine's addresses are others")
    assert b.dial(*ASK).json()["executor"] == listener.peer_id


@limit(120)
@pytest.mark.parametrize(
    "form",
    [
        "desk",
        "10.77.0.99:51820,/dns4/desk.test/tcp/51820",
        *(
            pytest.param(form, marks=pytest.mark.long)
            for form in (
                "/dns/desk.test/tcp/51820",
                "/dns6/desk6.test/tcp/51820",
                "desk.test",
                "{ip4}:51820",
                "[{ip6}]:51820",
                "/ip4/{ip4}/udp/51820/quic-v1",
            )
        ),
    ],
)
def test_one_setting_for_the_bootstrap_works_on_every_machine(lab: Lab, form: str) -> None:
    """On the machine that it names, where a listener serves it, and on another that dials it."""
    desk, other = lab.machine("desk"), lab.machine("other")
    lab.meeting = form.format(ip4=desk.ip4, ip6=desk.ip6)
    other.hosts({"desk.test": desk.ip4, "desk6.test": desk.ip6, "desk": desk.ip4})
    # As Debian has it: the machine's own name is loopback, for itself.
    desk.hosts({"desk.test": desk.ip4, "desk6.test": desk.ip6, "desk": "127.0.1.1"})
    transport = {"PUNCH_TRANSPORT": "quic"} if "quic" in form else {}
    asked = other.start("dialer", *ASK, variables=transport)
    listener = desk.listener(**transport)
    answered = asked.wait()
    assert answered.json()["executor"] == listener.peer_id


# Says when somebody comes to a port that is this machine's alone.
_DOOR = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    door = socket.create_server((host, 9999), family=family)
    selector.register(door, selectors.EVENT_READ)
print("open", flush=True)
while True:
    for key, _ in selector.select():
        key.fileobj.accept()
        print("knock", flush=True)
"""


@pytest.mark.long
@limit(120)
@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_nobody_knocks_at_its_own_doors_for_a_member_elsewhere(lab: Lab, is_closed: bool) -> None:
    """A member names loopback addresses; the machine where it is met has a door behind them."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    door = desk.start_script(_DOOR)
    door.wait_out("open")
    lie = [
        word
        for host in ("/ip4/127.0.0.1", "/ip6/::1", "/ip6/::ffff:127.0.0.1", "/dns4/localhost")
        for word in ("--announce", f"{host}/tcp/9999")
    ]
    if is_closed:
        full = desk.punch("namespace", "create", "home").out.strip()
        code = str(lab.folder / "code")
        own = desk.ready(desk.start("listener", "--no-lan"))
        assert desk.punch("invite", "--file", code).code == 0
        assert shed.punch("join", "--file", code).out.strip() == full
    else:
        desk.bootstrap("--listen", f"/ip4/{desk.ip4}/tcp/{BOOTSTRAP_PORT}")
        own = desk.listener()
    liar = shed.ready(shed.start("listener", "--no-lan", *lie))
    watch = desk.start_punch("peers", "--json", "--no-lan")
    until(lambda: own.peer_id in watch.out and liar.peer_id in watch.out, "both are heard")
    for _ in range(3):
        assert desk.dial(*ASK, "--no-lan").json()["executor"] in {own.peer_id, liar.peer_id}
    own.stop()  # And a start anew, which goes by what was kept.
    desk.ready(desk.start("listener", "--no-lan"))
    assert desk.dial(*ASK, "--no-lan").code == 0
    assert "knock" not in door.out
