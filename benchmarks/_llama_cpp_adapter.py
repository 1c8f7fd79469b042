"""A pytest plugin: llama.cpp's own server tests ask a gateway of ours.

Their tests start a server of theirs for each test and ask it over HTTP. Here `start` finds a
gateway that was started with what maps (context, slots), or starts it; it answers from SmolLM2 in a
llama-server of its own, and stays until the session ends. Whatever else they set is an option of
their command line, or belongs to their model: it changes nothing, and a test that is about it is
in the table of `_llama_cpp_excluded`.

`llama_cpp_tests.py` runs it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
import types
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from _llama_cpp_excluded import any_words, reason
from _programs import Programs

# Set by the script: where their tests are, what they ask, and where the outcomes go.
TESTS = Path(os.environ["LLAMA_CPP_TESTS"])
SERVER = os.environ["LLAMA_CPP_TESTS_SERVER"]
MODEL = os.environ["LLAMA_CPP_TESTS_MODEL"]
OUTCOMES = Path(os.environ["LLAMA_CPP_TESTS_OUTCOMES"])
ALL = os.environ.get("LLAMA_CPP_TESTS_ALL") == "1"

START_SECONDS = 120.0

# Their server has these also without a version.
UNVERSIONED = ("/chat/completions", "/completions", "/responses", "/embeddings")


class _NoLock:
    """In place of `filelock.FileLock`: nothing is downloaded, so nobody waits."""

    def __init__(self, path: str) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def _stub(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


class Gateways:
    """One gateway for each context and number of slots, until the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._ports: dict[tuple[int, int], int] = {}

    def port(self, context: int, slots: int) -> int:
        """Where the one with these settings listens."""
        if (context, slots) not in self._ports:
            self._ports[context, slots] = self._start(context, slots)
        return self._ports[context, slots]

    def _start(self, context: int, slots: int) -> int:
        folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="punch-llama-cpp-"))
        )
        process, line = self._stack.enter_context(
            Programs(folder).program(
                *("gateway", "--port", "0", "--listen-too"),
                *("--context", str(context), "--slots", str(slots), "--queue", "64"),
                ready="serving",
                environment={
                    "PUNCH_INFERENCE_BACKEND": "llama_cpp",
                    "LLAMA_CPP_EXE": SERVER,
                    "LLAMA_GGUF_PATH": MODEL,
                },
            )
        )
        port = int(line["url"].rpartition(":")[2])
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(port):
            if process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                said = (folder / "gateway-1.log").read_text(encoding="utf-8", errors="replace")
                pytest.exit(f"the gateway has no model: {said[-2000:]}")
            time.sleep(0.2)
        return port

    def close(self) -> None:
        """End them all."""
        self._stack.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10):
            return True
    except urllib.error.URLError:
        return False


GATEWAYS = Gateways()


def _replace() -> None:
    """Put our server class in the place of theirs, before their tests take all names of it."""
    _stub("filelock", FileLock=_NoLock)
    _stub("wget")
    sys.path.insert(0, str(TESTS))
    utils = importlib.import_module("utils")
    theirs: Any = utils.ServerProcess

    class Gateway(theirs):  # type: ignore[misc]  # known when it runs only
        """A gateway of ours, as their server."""

        def start(self, timeout_seconds: int = 0) -> None:
            slots = self.n_slots or 1
            self.server_port = GATEWAYS.port((self.n_ctx or 2048) // slots, slots)

        def stop(self) -> None:
            pass

        def make_url(self, path: str, host: str | None = None) -> str:
            prefix = "/v1" if path in UNVERSIONED else ""
            url: str = super().make_url(prefix + path, host)
            return url

    vars(utils)["ServerProcess"] = Gateway
    utils.ServerPreset.load_all = staticmethod(lambda: None)


_replace()


# ---- what pytest calls ----


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is in the table; and what needs a model of billions of weights."""
    for item in items:
        why = reason(item.nodeid, is_slow=item.get_closest_marker("slow") is not None)
        if why is not None:
            item.user_properties.append(("excluded", why))
            if not ALL or item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(autouse=True)
def _words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any text do where the table says so."""
    if any_words(request.node.nodeid):
        monkeypatch.setattr(request.module, "match_regex", lambda regex, text: bool(text))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what came of it; what fails before or after its test has failed."""
    if report.when != "call" and report.passed:
        return
    excluded = dict(report.user_properties).get("excluded")
    line = {"test": report.nodeid, "outcome": report.outcome, "excluded": excluded}
    if report.failed:
        print(f"\n{report.nodeid}\n{report.longreprtext[-1500:]}", flush=True)
    with OUTCOMES.open("a", encoding="utf-8") as into:
        into.write(json.dumps(line) + "\n")


def pytest_sessionfinish() -> None:
    """Leave nothing running."""
    GATEWAYS.close()
