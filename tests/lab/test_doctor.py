"""`punch doctor` on machines that are broken on purpose: it names the cause, and only that."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from integration.programs import limit
from lab.machines import BOOTSTRAP_PORT, Lab, Machine
from lab.members import closed_namespace, done, let_in, serving


def examined(machine: Machine, *options: str, **variables: str) -> dict[str, Any]:
    """What the doctor says on a machine: each check that something is wrong with, or noted."""
    found = machine.start_punch("doctor", "--json", *options, **variables).wait(60)
    report = json.loads(found.out)
    assert found.code == (0 if report["well"] else 11), found
    told: dict[str, Any] = {}
    for each in report["findings"]:
        if each["state"] == "wrong":
            told.setdefault(each["check"], []).append(each)
    return told


@pytest.mark.long
@limit(240)
def test_the_doctor_names_the_cause_in_an_open_namespace(lab: Lab) -> None:
    """A firewall, addresses, an engine, an identity, a cable; it is silent about what is sound."""
    boot, shut, asker = (lab.machine(name) for name in ("boot", "shut", "asker"))
    where = f"/ip4/{boot.ip4}/tcp/{BOOTSTRAP_PORT}"
    server = boot.bootstrap("--listen", where, "--no-relay")
    well = boot.listener()
    shut.firewall("drop")
    listener = shut.start("listener")
    shut.ready(listener)
    server.wait_for("a listener cannot be reached")

    # The machine itself, and who would ask it.
    told = examined(shut)
    assert set(told) == {"firewall"}
    assert "no answer" in told["firewall"][0]["said"]
    assert "firewall" in told["firewall"][0]["remedy"]
    told = examined(asker)
    assert set(told) == {"hello"}
    assert listener.peer_id in told["hello"][0]["said"]
    assert well.peer_id not in told["hello"][0]["said"]

    shut.open()
    listener.wait_for("this listener can be reached again")
    assert examined(shut) == {}
    assert examined(asker) == {}

    # Where the namespace is met.
    causes = {
        "/dns4/nowhere.invalid/tcp/51820": "IP address",
        f"/ip4/{boot.ip4}/tcp/9": "start `punch up`",
        f"/ip4/{shut.ip4}/tcp/21820": "a listener is there",
    }
    for place, remedy in causes.items():
        told = examined(asker, "--bootstrap", f"{where},{place}")
        assert set(told) == {"meeting points"}, (place, told)
        assert [remedy in each["remedy"] for each in told["meeting points"]] == [True], told
    boot.silence()
    told = examined(asker)
    assert "no_answer" in told["meeting points"][0]["said"]
    boot.open()

    # What would run here, and what is set.
    engine = asker.folder / "llama-server"
    engine.write_text("#!/bin/sh\nexit 3\n")
    engine.chmod(0o755)
    told = examined(asker, LLAMA_CPP_EXE=str(engine), PUNCH_SLOTS="many")
    assert set(told) == {"engines", "settings"}
    assert "PUNCH_SLOTS" in told["settings"][0]["remedy"]

    # Somebody else is where the bootstrap was.
    server.stop()
    (boot.data / "identities" / "bootstrap.key").unlink()
    boot.bootstrap("--listen", where, "--no-relay")
    told = examined(asker)
    assert set(told) == {"meeting points"}
    assert "known_peers" in told["meeting points"][0]["remedy"]

    asker.link("eth0", "down")
    assert "interfaces" in examined(asker)


@pytest.mark.long
@limit(240)
def test_the_doctor_names_the_cause_in_a_closed_namespace(lab: Lab) -> None:
    """A damaged grant, a member that is off, a removed one; it is silent about what is sound."""
    desk, shed = lab.machine("desk"), lab.machine("shed")
    closed_namespace(lab, desk)
    programs = serving([desk])
    let_in(desk, [shed])
    programs |= serving([shed])
    assert (examined(desk), examined(shed)) == ({}, {})

    chain = next((shed.data / "namespaces").glob("home@*")) / "chain"
    whole = chain.read_bytes()
    chain.write_bytes(b"damaged")
    assert set(examined(shed)) == {"grant"}
    chain.write_bytes(whole)

    programs["desk"].stop()
    told = examined(shed)
    assert set(told) <= {"meeting points"}, told

    programs |= serving([desk])
    done(desk, "members", "remove", "shed")
    deadline = time.monotonic() + 30
    while "grant" not in (told := examined(shed)):
        assert time.monotonic() < deadline, told
    assert "punch join" in told["grant"][0]["remedy"]
