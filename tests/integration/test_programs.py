"""docs/programs.md: its code is run as it stands, by the programs that it is about.

CI runs what most people have. The rest of the page's table takes minutes, is marked `long`, and is
what `bins/programs` runs besides.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.commands import COMMANDS, path_of, put
from integration.page import (
    ADDRESS,
    ANSWER,
    DOCUMENT,
    KINDS,
    ROWS,
    ask,
    check,
    code,
    commands,
    known,
    python_of,
    run,
    served,
)
from integration.programs import Programs, limit, open_programs

from punch.gateway import DEFAULT_PORT

# What most people have; the rest is in the table, too.
IN_CI = (
    "OpenAI's Python client",
    "OpenAI's Node client",
    "Anthropic's Python client",
    "Anthropic's TypeScript client",
    "Ollama's Python client",
    "Ollama's JavaScript client",
    "LangChain",
    "LlamaIndex",
    "pi (its successor)",
    "Codex",
)
# Two load a model at once, and measure it.
LOAD_SECONDS = 300.0
# A small model may talk until its context is full.
REAL_SECONDS = 600.0

LIBRARIES = tuple(name for name in ROWS if name not in COMMANDS and name != "curl")


def selected(*names: str) -> list[object]:
    """Programs as parameters of a test; those that CI does not run are marked."""
    return [
        pytest.param(name, id=name, marks=[] if name in IN_CI else [pytest.mark.long])
        for name in names
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in front of two mock listeners."""
    with open_programs(tmp_path_factory.mktemp("programs")) as programs:
        yield served(programs)


@pytest.fixture(scope="module")
def real_url(
    tmp_path_factory: pytest.TempPathFactory, model_path: Path, llama_cpp_folder: Path
) -> Iterator[str]:
    """A gateway in front of two listeners with a small real model."""
    with open_programs(tmp_path_factory.mktemp("programs")) as programs:
        yield served_for_real(programs, model_path, llama_cpp_folder)


def served_for_real(programs: Programs, model: Path, folder: Path) -> str:
    """The address of a gateway that knows two listeners, each with a model of its own."""
    programs.bootstrap()
    environment = {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        # They share the cores: threads that wait for each other would wait most of the time.
        "LLAMA_CPP_EXE": f"'{folder / 'llama-server'}' --threads 1",
        "LLAMA_GGUF_PATH": str(model),
        "PUNCH_CONTEXT": "4096",
    }
    real = {"environment": environment}
    programs.listeners(real, real, seconds=LOAD_SECONDS)
    return known(programs)


# ---- what the page has said for longer ----


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
def test_openais_python_client_says_who_answered(url: str, tmp_path: Path) -> None:
    """Whole, streamed, and with an id of its own."""
    script = code("OpenAI's Python client", "python", url)
    *answers, last = run([sys.executable, "-c", script], tmp_path)
    assert answers == [ANSWER] * 3
    assert re.fullmatch(r"sky-1 12D3\w+", last)


@limit(120)
def test_ollamas_python_client_lists_what_is_on_offer(url: str, tmp_path: Path) -> None:
    """What is on offer, whole and streamed."""
    script = code("Ollama's Python client", "python", url)
    assert run([sys.executable, "-c", script], tmp_path) == ["['mock']", ANSWER, ANSWER]


# ---- the table ----


@limit(900)
@pytest.mark.parametrize("heading", selected(*LIBRARIES))
def test_a_library_gets_what_the_table_says(heading: str, url: str, tmp_path: Path) -> None:
    """It runs the code of its section, and goes on where that ends."""
    check(ask(heading, url, tmp_path), ROWS[heading].kinds)


@limit(900)
@pytest.mark.parametrize("heading", selected(*COMMANDS))
def test_a_command_gets_what_the_table_says(heading: str, url: str, tmp_path: Path) -> None:
    """It is run as its section says, with the section's file."""
    got = COMMANDS[heading](heading, url, tmp_path)
    assert list(got) == list(ROWS[heading].kinds)
    assert all(got.values()), got
    assert len(got.get("stream", "ab")) > 1


@pytest.mark.long
@limit(1800)
@pytest.mark.parametrize("heading", LIBRARIES)
def test_a_library_gets_it_from_a_real_model(heading: str, real_url: str, tmp_path: Path) -> None:
    """All but calls that the model has to think of: a small one does not."""
    kinds = [kind for kind in KINDS if kind != "tools"]
    got = ask(heading, real_url, tmp_path, kinds, REAL_SECONDS)
    check(got, [kind for kind in ROWS[heading].kinds if kind in kinds])


@pytest.mark.long
@limit(600)
@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Claude Code", "Prompt is too long"),
        ("Codex", "ran out of room in the model's context window"),
    ],
)
def test_an_agent_says_that_a_real_models_context_is_too_small(
    heading: str, words: str, real_url: str, tmp_path: Path
) -> None:
    """In words of its own: its prompt is longer than that, and it knows the error for it."""
    put(tmp_path / ".codex" / "config.toml", code("Codex", "toml", real_url))
    script = f"({commands(heading, real_url)}) 2>&1 || true"
    said = run(["bash", "-ec", script], tmp_path, REAL_SECONDS, PATH=path_of(heading))
    assert words in "\n".join(said)


# ---- the page itself ----


def test_the_configurations_name_what_is_there() -> None:
    """The file of pi is JSON of the shape that it documents; both have our port and path."""
    (provider,) = json.loads(code("pi", "json"))["providers"].values()
    assert provider["baseUrl"] == f"http://{ADDRESS}/v1"
    assert provider["api"] == "openai-completions"
    assert f"OPENAI_API_BASE_URL: http://host.docker.internal:{DEFAULT_PORT}/v1\n" in code(
        "Open WebUI", "yaml"
    )


def test_every_section_is_in_the_table() -> None:
    """A program that is added to the page is added there, and so is tested; one is not run."""
    sections = re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)
    assert {name.split(" (")[0] for name in ROWS} == set(sections) - {"Open WebUI"}
    for heading, row in ROWS.items():
        assert set(row.kinds) <= set(KINDS)
        if not row.installs:
            assert python_of(heading) == Path(sys.executable)
