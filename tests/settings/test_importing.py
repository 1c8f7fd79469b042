"""What of SynapticLlamas' settings is taken over, and what is said of the rest."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.__main__ import _run
from punch.cli import ExitCode
from punch.exceptions import ConfigurationError
from punch.settings import find_setting, read_import, set_value
from punch.settings.file import import_of

# What SynapticLlamas 0.1.2 writes when everything in it is used.
WHOLE: dict[str, Any] = {
    "mode": "distributed",
    "collaborative_mode": True,
    "refinement_rounds": 1,
    "agent_timeout": 120,
    "ast_voting_enabled": True,
    "quality_threshold": 0.7,
    "max_quality_retries": 2,
    "flockparser_enabled": False,
    "dashboard_verbose": True,
    "dashboard_enable_dask": True,
    "model": "llama3.2",
    "synthesis_model": "llama3.1:70b",
    "strategy": None,
    "task_distribution_enabled": True,
    "model_sharding_enabled": True,
    "distributed_inference_enabled": True,
    "rpc_backends": [{"host": "10.9.66.45", "port": 50052}, {"host": "10.9.66.48"}],
    "redis_logging_enabled": True,
    "redis_host": "localhost",
    "redis_port": 6379,
    "redis_db": 0,
    "redis_password": "hunter2",
    "coordinator_url": "http://127.0.0.1:18080",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("PUNCH_SETTINGS", str(path))
    return path


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / ".synapticllamas.json"
    path.write_text(json.dumps(WHOLE), encoding="utf-8")
    return path


def data(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_a_whole_file_is_taken_over_and_each_of_its_settings_is_told_of(
    path: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Theirs stays as it is; a password is shown nowhere and taken nowhere."""
    before = theirs.read_bytes()
    assert _run(["settings", "import", str(theirs)]) == ExitCode.OK

    assert data(path) == {
        "version": 2,
        "dialer": {"timeout": 120, "model": "llama3.2"},
        "gateway": {"timeout": 120},
        "rpc": {"backend": ["10.9.66.45:50052", "10.9.66.48:50052"]},
        "adopt": {"servers": ["http://127.0.0.1:18080"]},
    }
    shown = capsys.readouterr().out
    for key, value in WHOLE.items():
        assert (f" {key} " in shown) == (value is not None), key
    assert "hunter2" not in shown + path.read_text()
    assert shown.count("a feature of another program: agents") == 6
    assert shown.count("a feature of another program: FlockParser") == 1
    assert "before plain RPC is allowed" in shown
    assert theirs.read_bytes() == before


def test_its_servers_are_adopted(path: Path, tmp_path: Path) -> None:
    """The file of its `save` command, which has one entry for each Ollama."""
    nodes = tmp_path / "nodes.json"
    one = {"url": "http://10.9.66.45:11434", "name": "ollama-1", "priority": 0}
    nodes.write_text(json.dumps({"nodes": [one]}), encoding="utf-8")
    set_value(path, find_setting("adopt.servers"), ["http://nas:11434"])

    assert _run(["settings", "import", str(nodes)]) == ExitCode.OK
    assert data(path)["adopt"] == {"servers": ["http://nas:11434", "http://10.9.66.45:11434"]}


def test_nothing_is_overwritten_unless_that_is_said(
    path: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value of ours stays, and is named with its place; a list grows, and only once."""
    set_value(path, find_setting("dialer.model"), ["qwen3:8b"])
    for _ in range(2):
        assert _run(["settings", "import", str(theirs)]) == ExitCode.OK
        shown = capsys.readouterr().out
        assert f"not yet: {path}:4 has dialer.model = qwen3:8b; --replace takes this" in shown
        assert data(path)["dialer"] == {"model": "qwen3:8b", "timeout": 120}
        assert len(data(path)["rpc"]["backend"]) == 2  # type: ignore[index]  # A table of TOML.

    assert _run(["settings", "import", str(theirs), "--replace"]) == ExitCode.OK
    assert data(path)["dialer"] == {"model": "llama3.2", "timeout": 120}


def test_what_is_wrong_in_it_is_left_with_the_rule(path: Path) -> None:
    """The rest is taken all the same."""
    found = import_of(
        {
            "agent_timeout": "soon",
            "model": ["llama3.2"],
            "rpc_backends": [{"host": "gpu", "port": 0}, {"host": "fd00::5", "port": 50052}, 7],
            "theirs_some_day": 1,
        }
    )
    assert [(one.key, one.texts) for one in found.taken] == [("rpc_backends", ("[fd00::5]:50052",))]
    assert [one.key for one in found.left] == [
        "agent_timeout",
        "agent_timeout",
        "model",
        "rpc_backends[0]",
        "rpc_backends[2]",
        "theirs_some_day",
    ]
    assert all("must" in one.why or "write" in one.why for one in found.left[:2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"mode": "standard",\n "model": }', r":2: it is no JSON: .*mend that line"),
        (b"\xff\xfe", "is no JSON that can be read"),
        (b"[" * 100_000, "nothing was taken"),
        (b"[]", "is one JSON object"),
        (b"{" + b" " * 300_000 + b"}", "more than 262144 bytes"),
    ],
)
def test_a_broken_file_is_refused_and_nothing_is_taken(
    path: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    """With its line, where it has one."""
    theirs = tmp_path / "theirs.json"
    theirs.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        read_import(theirs)
    assert _run(["settings", "import", str(theirs)]) == ExitCode.USAGE
    assert not path.exists()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read"):
        read_import(tmp_path / "none.json")


@given(
    st.dictionaries(
        st.sampled_from([*WHOLE, "nodes", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["host", "port", "url"]), inner)
            ),
        ),
    )
)
def test_whatever_is_in_a_file_becomes_something_or_is_left_with_a_reason(
    said: dict[str, object],
) -> None:
    """And what is taken is right by the rule of its setting."""
    found = import_of(said)
    for taken in found.taken:
        for text in taken.texts:
            taken.setting.rule.value(text)
    assert all(one.why for one in found.left)
    keys = [*(one.key for one in found.taken), *(one.key for one in found.left)]
    named = {key.partition("[")[0] for key in keys}
    assert named <= {key for key, value in said.items() if value is not None}
