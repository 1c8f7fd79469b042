"""`punch models fit --ask`: workers of a namespace are asked, and the answer is planned with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration.programs import Programs, free_port, limit

from punch.capability import PeerId
from punch.cli import ExitCode
from punch.cli.commands import models
from punch.libp2p import load_key
from punch.peers import short_id


@limit(180)
def test_fit_plans_with_the_workers_of_the_namespace(
    programs: Programs, model_path: Path, llama_cpp_folder: Path
) -> None:
    """One lends to this peer and is planned with; one lends to another and is named with why."""
    programs.bootstrap()
    key = programs.folder / "coordinator.key"
    common = ("--namespace", "home", "--no-calibrate", "--memory", "1GiB")
    engine = str(llama_cpp_folder / "llama-server")
    ours, other = (
        programs.start("cluster.worker", *common, "--lend-to", lend_to, LLAMA_CPP_EXE=engine)
        for lend_to in (load_key(key).peer_id, load_key(programs.folder / "another.key").peer_id)
    )
    ids = [worker.wait_for("lending", 60)["peer"] for worker in (ours, other)]
    asked = ("fit", str(model_path), "--ask", "--namespace", "home", "--identity", str(key))
    told = programs.start_punch("models", *asked, "--json", LLAMA_CPP_EXE=engine).wait(90)
    assert told.code == 0, told.err
    found = json.loads(told.out)
    (worker,) = found["workers"]
    assert (worker["peer_id"], worker["memory"]) == (ids[0], 1 << 30)
    assert worker["link"]["rtt"] < 1
    assert list(found["left_out"]) == [ids[1]]
    assert found["here"]["is_measured"]
    assert found["split"]["shares"][-1]["holder"] == short_id(PeerId(ids[0]))
    assert found["fits_here"]


@limit(60)
def test_a_namespace_that_lets_nobody_in_is_told(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With where nobody was, and what to do."""
    monkeypatch.setattr("punch.cli.splits._asked.JOIN_SECONDS", 0.5)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("PUNCH_SETTINGS", "none")
    nowhere = f"/ip4/127.0.0.1/tcp/{free_port()}"
    arguments = ["fit", str(model_path), "--ask", "--namespace", "home", "--bootstrap", nowhere]
    assert models(arguments) == ExitCode.NETWORK
    assert "bootstrap" in capsys.readouterr().err
