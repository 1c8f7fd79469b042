"""What is started in the wrong order comes together: a meeting point last, a network later."""

from __future__ import annotations

import json
import time
from typing import Any

from integration.programs import Program, limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine
from lab.members import closed_namespace, let_in

# What a program has to find what came meanwhile.
SOON_SECONDS = 40.0

POST = """
import sys, urllib.error, urllib.request
try:
    data = sys.argv[2].encode()
    head = {"Content-Type": "application/json"}
    asked = urllib.request.Request(sys.argv[1], data=data, headers=head)
    print(urllib.request.urlopen(asked, timeout=20).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


def ask(machine: Machine, url: str, model: str) -> Any:
    """What a gateway of *machine* answers there."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 3,
    }
    path = f"{url}/v1/chat/completions"
    return json.loads(machine.shell("python3", "-c", POST, path, json.dumps(body)))


def answered(machine: Machine, url: str, model: str) -> float:
    """Seconds until *model* has answered there."""
    began = time.monotonic()
    while "choices" not in (said := ask(machine, url, model)):
        assert time.monotonic() - began < SOON_SECONDS, said
        time.sleep(0.2)
    return time.monotonic() - began


def start_up(machine: Machine, **variables: str) -> Program:
    """A `punch up` whose engine is a mock that is called as its machine."""
    return machine.start_punch(
        "up",
        "--port",
        "11435",
        # A machine's own model never stands for another one's.
        PUNCH_ANY_NAME="0",
        PUNCH_INFERENCE_BACKEND="mock",
        PUNCH_MOCK_MODEL=f"model-{machine.name}",
        **variables,
    )


URL = "http://127.0.0.1:11435"


@limit(120)
def test_a_bootstrap_that_comes_last_brings_together_who_waits_for_it(lab: Lab) -> None:
    """Listener and gateway began when nobody was there, on machines of their own."""
    desk, shed, attic = (lab.machine(name) for name in ("desk", "shed", "attic"))
    listener = shed.start("listener")
    gateway = attic.gateway()
    assert "error" in ask(attic, gateway.url, "auto")
    desk.bootstrap("--listen", f"/ip4/{desk.ip4}/tcp/{BOOTSTRAP_PORT}")
    shed.ready(listener)
    answered(attic, gateway.url, "auto")


@limit(200)
def test_members_come_together_whatever_comes_last(lab: Lab) -> None:
    """A machine whose network comes after its `punch up`, and the first machine after all others.

    Each of them serves alone meanwhile.
    """
    desk, shed, attic = (lab.machine(name) for name in ("desk", "shed", "attic"))
    closed_namespace(lab, desk)
    first = start_up(desk)
    first.wait_out("dashboard")
    let_in(desk, [shed, attic])
    assert first.stop().code == 0

    shed.link("eth0", "down")
    programs = [start_up(shed), start_up(attic)]
    for program in programs:
        program.wait_out("dashboard")
    answered(shed, URL, "model-shed")
    shed.link("eth0", "up")
    answered(attic, URL, "model-shed")
    answered(shed, URL, "model-attic")

    start_up(desk).wait_out("dashboard")
    answered(attic, URL, "model-desk")
    answered(desk, URL, "model-shed")
    assert [program.process.poll() for program in programs] == [None, None]
