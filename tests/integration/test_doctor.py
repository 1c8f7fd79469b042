"""`punch doctor` beside real programs: silent about what is sound, and it names what is broken."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from integration.programs import Programs, free_port, limit

from punch.cli import ExitCode


def wrong(report: dict[str, Any]) -> set[tuple[str, str]]:
    """The checks that found something, with the state."""
    return {
        (each["check"], each["state"])
        for each in report["findings"]
        if each["state"] in ("wrong", "note")
    }


@limit(60)
def test_the_doctor_names_what_is_broken_and_a_bundle_names_nobody(
    programs: Programs, tmp_path: Path
) -> None:
    """A port of another program, a meeting point that is off, a wrong value."""
    programs.bootstrap()
    programs.listener(PUNCH_NAME="quite-a-name")
    off, bundle = f"/ip4/127.0.0.1/tcp/{free_port()}", tmp_path / "report.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = programs.start_punch(
            *("doctor", "--json", "--bundle", str(bundle)),
            PUNCH_BOOTSTRAP=f"{programs.address},{off}",
            PUNCH_GATEWAY_PORT=str(port),
            PUNCH_SLOTS="many",
            PUNCH_NAME="quite-a-name",
        ).wait(40)

    assert ended.code == ExitCode.UNWELL, ended
    report = json.loads(ended.out)
    assert wrong(report) == {
        ("settings", "wrong"),
        ("ports", "wrong"),
        ("meeting points", "wrong"),
        ("engines", "note"),  # A mock.
    }
    said = " ".join(each["said"] for each in report["findings"])
    assert f"nothing listens at {off}" in said
    assert str(port) in said
    posted = bundle.read_text()
    secrets = (off, "127.0.0.1", programs.address, "quite-a-name", "many", str(tmp_path))
    assert [each for each in (*secrets, socket.gethostname()) if each in posted] == []


@limit(60)
def test_the_doctor_is_silent_about_a_sound_machine(programs: Programs, tmp_path: Path) -> None:
    """A closed namespace with its `punch up`: nothing is wrong but what the test has chosen."""
    variables = {
        "HOME": str(tmp_path),
        "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "PUNCH_LAN": "0",
        "PUNCH_GATEWAY_PORT": str(free_port()),
        "PUNCH_ADOPT_FOUND": "0",
        "PUNCH_INFERENCE_BACKEND": "mock",
    }
    up = programs.start_punch("up", **variables)
    up.wait_out("dashboard")

    ended = programs.start_punch("doctor", "--json", **variables).wait(40)

    assert ended.code == ExitCode.OK, ended
    assert wrong(json.loads(ended.out)) <= {("engines", "note"), ("disk", "note")}
