"""Listeners behind firewalls, and whoever else is met at an address: what each side says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab

CANNOT = "this listener cannot be reached from everywhere"


def until(ready: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Wait until *ready*."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@limit(200)
def test_a_firewalled_listener_is_named_with_its_reason_on_all_sides(lab: Lab) -> None:
    """The bootstrap, the listener and three kinds of dialers say so; and that it is mended."""
    boot, shut, open_, asker = (lab.machine(name) for name in ("boot", "shut", "open", "asker"))
    shut.firewall("drop")
    # One that relays would lead them to it: `test_relay`.
    server = boot.bootstrap("--listen", f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}", "--no-relay")
    listener, well = shut.start("listener"), open_.start("listener")
    watch = asker.start_punch("peers", "--json")
    gateway = asker.start("gateway", "--port", "8080")
    for machine, program in ((shut, listener), (open_, well)):
        machine.ready(program)
    place = f"/ip4/{shut.ip4}/tcp/21820"

    said = server.wait_for("a listener cannot be reached")
    assert (said["peer"], said["address"], said["why"]) == (listener.peer_id, place, "no_answer")
    said = listener.wait_for(CANNOT)
    assert place in said["why"]
    assert "ufw allow 21820/tcp" in said["remedy"]
    gateway.wait_for("serving")

    def ready() -> dict[str, Any]:
        return dict(json.loads(asker.get("http://127.0.0.1:8080/ready")))

    def named() -> bool:
        why = ready().get("unreachable", {}).get(listener.peer_id, "")
        return "no answer within 5 s" in why and "the bootstrap could not reach it" in why

    until(named, "/ready names it")
    assert ready()["peers"] == 1

    def away() -> bool:
        lines = [json.loads(line) for line in watch.out.splitlines()[:-1]]
        last = [one for one in lines if one["peer_id"] == listener.peer_id][-1:]
        return any("no answer within" in one["unreachable_why"] for one in last)

    until(away, "punch peers --json names it")
    shown = asker.punch("peers", "--once")
    assert f"{listener.peer_id} cannot be asked: " in shown.out
    assert place in shown.out

    shut.open()
    until(lambda: "unreachable" not in ready(), "it can be asked")
    assert ready()["peers"] == 2
    assert not well.events(CANNOT)
    assert len(listener.events(CANNOT)) == 1


@limit(120)
def test_a_listener_beside_its_bootstrap_is_told_by_who_cannot_dial_it(lab: Lab) -> None:
    """Its firewall lets the bootstrap's port in and not its own, which the bootstrap cannot see."""
    desk, asker = lab.machine("desk"), lab.machine("asker")
    desk.firewall("reject", allow=[BOOTSTRAP_PORT])
    listener = desk.listener()
    asked = asker.dial("--ask", "x", "--timeout", "20")
    assert asked.code == 3
    assert listener.peer_id in asked.err
    watch = asker.start("dialer")
    said = listener.wait_for(CANNOT)
    assert "another machine could not reach it" in said["why"]
    assert f"/ip4/{desk.ip4}/tcp/21820" in said["why"]
    assert watch.process.poll() is None


@limit(100)
def test_who_is_met_in_place_of_a_bootstrap_is_said(lab: Lab) -> None:
    """A web server, one that is silent, one that speaks first, a listener, nobody: by its kind."""
    desk, asker = lab.machine("desk"), lab.machine("asker")
    script = """
import socket, sys, threading, http.server
def serve(port, first):
    server = socket.create_server(("0.0.0.0", port))
    held = []
    while True:
        held.append(server.accept()[0])
        held[-1].sendall(first)
for port, first in ((81, b""), (82, b"SSH-2.0-OpenSSH_9.6\\r\\n"), (83, b"+OK ready\\r\\n")):
    threading.Thread(target=serve, args=(port, first), daemon=True).start()
http.server.test(port=80, bind="0.0.0.0")
"""
    desk.start_script(script).wait_out("Serving")
    listener = desk.listener()
    kinds = {
        80: "a web server (HTTP) answers there",
        81: "no answer within 5 s, though connections are accepted",
        82: "an SSH server answers there",
        83: "something that begins with '+OK ready",
        84: "connection refused",
        int(listener.addresses[0].split("/")[4]): "it is no bootstrap of punch",
    }
    places = ",".join(f"{desk.ip4}:{port}" for port in kinds)
    asking = asker.start("listener", "--bootstrap", places, "--log-level", "info")
    alone = asker.start("dialer", "--ask", "x", "--bootstrap", f"{desk.ip4}:80")
    for port, what in kinds.items():

        def said(place: str = f"/ip4/{desk.ip4}/tcp/{port}") -> str:
            lines = asking.events("the bootstrap is out of reach")
            return " ".join(one["why"] for one in lines if one["address"] == place)

        until(said, f"something about port {port}")
        assert what in said()
    ended = alone.wait(60)
    assert (ended.code, kinds[80] in ended.err) == (7, True), ended
