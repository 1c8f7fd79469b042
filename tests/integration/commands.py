"""The programs of docs/programs.md that are commands: what each is made to do, and what it got.

Each is run as its section says, with the section's file where it belongs. A tool is called because
the mock calls what the last message names, with the smallest arguments that fit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
from integration.page import QUESTION, ROWS, code, commands, node_of, python_of, run
from integration.programs import free_port

Got = dict[str, Any]


def path_of(heading: str) -> str:
    """A PATH that has the commands of a section."""
    if ROWS[heading].is_node:
        return node_of(heading)[1]
    return f"{python_of(heading).parent}{os.pathsep}{os.environ['PATH']}"


def events(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The lines that are JSON objects."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def said(lines: Sequence[str]) -> str:
    """What was printed, without the colours."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", "\n".join(lines)).strip()


def put(file: Path, text: str) -> None:
    """Write a file of the section where the program looks for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def pi(heading: str, url: str, folder: Path) -> Got:
    """Writes a file, since the mock calls `write`; streamed, an answer that its limit cuts."""
    file, models = folder / ".pi" / "agent" / "models.json", code("pi", "json", url)
    command, path = commands("pi").strip(), path_of(heading)
    put(file, models)
    text = said(run(["bash", "-ec", command], folder, PATH=path))
    run(["bash", "-ec", command.replace(QUESTION, "Use write.")], folder, PATH=path)
    put(file, re.sub(r'"maxTokens": \d+', '"maxTokens": 9', models))
    streamed = events(run(["bash", "-ec", f"{command} --mode json"], folder, PATH=path))
    updates = [event for event in streamed if event["type"] == "message_update"]
    deltas = [event["assistantMessageEvent"].get("delta", "") for event in updates]
    # The file says not to ask for it; without it, the newer one takes a cut answer for none.
    assert [
        (event["message"]["stopReason"], event["message"]["usage"]["output"])
        for event in streamed
        if event["type"] == "message_end" and event["message"]["role"] == "assistant"
    ] == [("length", 9)]
    return {
        "text": text,
        "stream": [delta for delta in deltas if delta],
        "tools": (folder / "text").read_text(encoding="utf-8"),
    }


def codex(heading: str, url: str, folder: Path) -> Got:
    """Runs a command, since the mock calls `exec_command`."""
    put(folder / ".codex" / "config.toml", code(heading, "toml", url))
    command, path = commands(heading).strip(), path_of(heading)
    text = said(run(["bash", "-ec", command], folder, PATH=path))
    command = command.replace("codex exec", "codex exec --json")
    use = command.replace(QUESTION, "Use exec_command.")
    items = [
        event["item"]
        for event in events(run(["bash", "-ec", use], folder, PATH=path))
        if event["type"] == "item.completed"
    ]
    (called,) = [item for item in items if item["type"] == "command_execution"]
    return {"text": text, "stream": text.split(), "tools": called["command"]}


def claude_code(heading: str, url: str, folder: Path) -> Got:
    """Reads a file, since the mock calls `Read`."""
    script, path = commands(heading, url), path_of(heading)
    text = said(run(["bash", "-ec", script], folder, PATH=path))
    told = "claude --verbose --output-format stream-json --include-partial-messages -p"
    streamed = events(run(["bash", "-ec", script.replace("claude -p", told)], folder, PATH=path))
    deltas = [
        event["event"]["delta"].get("text", "")
        for event in streamed
        if event["type"] == "stream_event" and event["event"]["type"] == "content_block_delta"
    ]
    use = script.replace("claude -p", told).replace(QUESTION, "Use Read.")
    called = [
        block["name"]
        for event in events(run(["bash", "-ec", use], folder, PATH=path))
        if event["type"] == "assistant"
        for block in event["message"]["content"]
        if block["type"] == "tool_use"
    ]
    return {"text": text, "stream": deltas, "tools": called[0]}


def opencode(heading: str, url: str, folder: Path) -> Got:
    """Looks for files, since the mock calls `glob`."""
    put(folder / "opencode.json", code(heading, "json", url))
    command, path = commands(heading).strip(), path_of(heading)
    text = said(run(["bash", "-ec", command], folder, PATH=path)).splitlines()[-1]
    use = command.replace(QUESTION, "Use glob.").replace("run", "run --format json")
    called = [
        event["part"]["state"]["input"]["pattern"]
        for event in events(run(["bash", "-ec", use], folder, PATH=path))
        if event["type"] == "tool_use"
    ]
    return {"text": text, "stream": text.split(), "tools": called[0]}


def continue_(heading: str, url: str, folder: Path) -> Got:
    """Writes a file, since the mock calls `Write`."""
    put(folder / ".continue" / "config.yaml", code(heading, "yaml", url))
    command, path = commands(heading).strip(), path_of(heading)
    text = said(run(["bash", "-ec", command], folder, PATH=path))
    use = command.replace(QUESTION, "Use Write.").replace("cn ", "cn --auto ")
    run(["bash", "-ec", use], folder, PATH=path)
    return {
        "text": text,
        "stream": text.split(),
        "tools": (folder / "text").read_text(encoding="utf-8"),
    }


def shell_gpt(heading: str, url: str, folder: Path) -> Got:
    """Runs a command, since the mock calls `execute_shell_command`."""
    path, script = path_of(heading), commands(heading, url)
    caches = {"CACHE_PATH": str(folder / "one"), "CHAT_CACHE_PATH": str(folder / "two")}
    caches |= {"COLUMNS": "1000"}
    text = said(run(["bash", "-ec", script], folder, PATH=path, **caches))
    export = script.splitlines()[0]
    use = f'{export}\nsgpt --install-functions\nsgpt --no-cache "Use execute_shell_command."'
    called = said(run(["bash", "-ec", use], folder, PATH=path, **caches))
    # Streamed unless DISABLE_STREAMING says otherwise.
    return {"text": text, "stream": text.split(), "tools": called}


def aider(heading: str, url: str, folder: Path) -> Got:
    """Whole and streamed; it has no tools."""
    script, path = commands(heading, url), path_of(heading)
    quiet = {"AIDER_CHECK_UPDATE": "false", "AIDER_ANALYTICS_DISABLE": "true"}
    quiet |= {"AIDER_SHOW_RELEASE_NOTES": "false", "AIDER_PRETTY": "false"}
    streamed = said(run(["bash", "-ec", script], folder, PATH=path, **quiet))
    whole = script.replace("aider --model", "aider --no-stream --model")
    text = said(run(["bash", "-ec", whole], folder, PATH=path, **quiet))
    return {"text": text, "stream": streamed.split()}


def llm(heading: str, url: str, folder: Path) -> Got:
    """Streamed and whole, with the file that the page has."""
    put(folder / "extra-openai-models.yaml", code(heading, "yaml", url))
    path, script = path_of(heading), commands(heading)
    streamed, text = run(["bash", "-ec", script], folder, PATH=path, LLM_USER_PATH=str(folder))
    return {"text": text, "stream": streamed.split()}


def lm_eval(heading: str, url: str, folder: Path) -> Got:
    """One task that lies on the disk, with the answers in its record of samples."""
    put(folder / "tasks" / "sky.yaml", code(heading, "yaml"))
    line = json.dumps({"question": QUESTION, "answer": "scattering"})
    put(folder / "tasks" / "sky.jsonl", f"{line}\n")
    script = f"{commands(heading, url).strip()} --output_path out --log_samples"
    run(["bash", "-ec", script], folder, PATH=path_of(heading))
    (samples,) = folder.glob("out/**/samples_sky_*.jsonl")
    (sample,) = events(samples.read_text(encoding="utf-8").splitlines())
    return {"text": sample["resps"][0][0]}


@contextmanager
def litellm_proxy(url: str, folder: Path) -> Iterator[str]:
    """The address of LiteLLM's proxy with the section's file."""
    heading = "LiteLLM's proxy"
    put(folder / "config.yaml", code(heading, "yaml", url))
    port = str(free_port())
    words = commands(heading).strip().replace("4000", port).split()
    inherited = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    process = subprocess.Popen(
        [python_of(heading).parent / words[0], *words[1:]],
        cwd=folder,
        env=inherited | {"HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{address}/health/liveliness").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "LiteLLM's proxy has ended"
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def as_anthropics_client(address: str) -> None:
    """LiteLLM's proxy at *address* serves Anthropic's API, too, and asks the gateway in another."""
    tool: Any = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
    asked: Any = {
        "model": "punch",
        "max_tokens": 30,
        "messages": [{"role": "user", "content": QUESTION}],
        "system": [{"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}],
    }
    with anthropic.Anthropic(base_url=address, api_key="none") as client:
        assert client.messages.create(**asked).content[0].type == "text"
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text()
        choices: Any = ({"type": "any"}, {"type": "tool", "name": "add"})
        for choice in choices:
            message = client.messages.create(**asked, tools=[tool], tool_choice=choice)
            assert [block.type for block in message.content] == ["tool_use"]


def through_litellm(heading: str, url: str, folder: Path) -> Got:
    """What OpenAI's Python client gets from LiteLLM's proxy in front of the gateway."""
    del heading
    with litellm_proxy(url, folder) as address:
        parts = [
            (Path(__file__).parent / "asked" / "_before.py").read_text(encoding="utf-8"),
            code("OpenAI's Python client", "python", address).split("raw = ")[0],
            (Path(__file__).parent / "asked" / "litellm_s_proxy.py").read_text(encoding="utf-8"),
        ]
        script = folder / "asks.py"
        script.write_text("\n".join(parts).replace('"auto"', '"punch"'), encoding="utf-8")
        kinds = ("text", "stream", "tools", "structured")
        lines = run([sys.executable, script, *kinds], folder)
        as_anthropics_client(address)
        return {event["kind"]: event["got"] for event in events(lines) if "kind" in event}


COMMANDS: dict[str, Callable[[str, str, Path], Got]] = {
    "LiteLLM's proxy": through_litellm,
    "lm-eval": lm_eval,
    "llm": llm,
    "shell_gpt": shell_gpt,
    "aider": aider,
    "pi": pi,
    "pi (its successor)": pi,
    "Codex": codex,
    "Claude Code": claude_code,
    "opencode": opencode,
    "Continue": continue_,
}
