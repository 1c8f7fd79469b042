"""Listeners in front of servers that are not ours, as programs: what dialers get to see of them."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from integration.programs import Program, Programs, free_port, limit
from model_servers import ANSWER, JSON_ANSWER, LmStudio, ModelServer, Ollama, Reply, error

SECRET = "hunter2:Pa55&w/rd"
KEY = "sk-Very-Secret_0123456789"


@pytest.fixture
def port() -> int:
    """Where the server is."""
    return free_port()


def listener(programs: Programs, port: int, *arguments: str, **environment: str) -> Program:
    """A listener in front of the server at *port*."""
    variables = {
        "PUNCH_INFERENCE_BACKEND": "openai",
        "PUNCH_OPENAI_URL": f"http://127.0.0.1:{port}/v1",
        **environment,
    }
    return programs.listener(*arguments, **variables)


def get(url: str) -> Any:
    """The JSON at *url*."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def eventually(check: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait until *check* is true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


def models(url: str) -> set[str]:
    """The models of a gateway."""
    return {row["id"] for row in get(f"{url}/v1/models")["data"]} - {"auto"}


@limit(120)
def test_a_listener_in_front_of_many_models_listens_at_once_and_loads_none(
    programs: Programs, port: int
) -> None:
    """Six to load, an embedder, one that fails; what is pulled or removed later is followed."""
    server = Ollama(*(f"m{number}" for number in range(6)), "nomic-embed-text", "broken")
    server.running = {"m1": 4096, "broken": 4096}
    server.cannot_chat["broken"] = 500
    with server.serve(port):
        program = listener(programs, port, "--namespace", "n")
        assert program.events("listening")[0]["models"]
        gateway = programs.gateway("--namespace", "n")
        eventually(lambda: models(gateway.url) >= {"m1", "m5", "nomic-embed-text"})
        assert chat(gateway.url, "m1") == ANSWER
        (row,) = [each for each in get(f"{gateway.url}/api/tags")["models"] if "m1" in each["name"]]
        assert (row["digest"], row["size"]) == (server.digest("m1"), 2019393189)
        shown = post(f"{gateway.url}/api/show", {"model": "m1"})
        assert "tools" in shown["capabilities"]
        question = {"model": "m1", "messages": [{"role": "user", "content": "?"}]}
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = post(f"{gateway.url}/v1/chat/completions", {**question, "response_format": form})
        assert answer["choices"][0]["message"]["content"] == JSON_ANSWER
        tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
        answer = post(f"{gateway.url}/v1/chat/completions", {**question, "tools": [tool]})
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        body = {"model": "nomic-embed-text", "input": ["a", "b"]}
        assert len(post(f"{gateway.url}/v1/embeddings", body)["data"]) == 2
        server.models.append("late")
        server.models.remove("m5")
        eventually(lambda: {"late", "m5"} & models(gateway.url) == {"late"})
    assert set(server.loaded_by_asking) == {"nomic-embed-text"}
    assert server.chats().count("m1") == 4
    warnings = [line for line in program.log if line["level"] == "warning"]
    assert any(line.get("model") == "broken" for line in warnings)


def post(url: str, body: dict[str, Any]) -> Any:
    """The answer to a POST of JSON."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def chat(url: str, model: str) -> str:
    """The answer of a gateway to a question."""
    body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
    answer: str = post(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"]
    return answer


@limit(120)
def test_a_server_may_come_late_and_go_and_come_back(programs: Programs, port: int) -> None:
    """The listener waits, says so once, and everybody can see why."""
    server = LmStudio("qwen3-4b")
    program = listener(programs, port, "--namespace", "n")
    assert program.events("listening")[0]["waiting"] == ["its server cannot be reached"]
    gateway = programs.gateway("--namespace", "n")
    peers = programs.run("__main__", "peers", "--once", "--namespace", "n")
    assert "starting" in peers.out
    assert "its server cannot be reached" in peers.out
    # Where its machine has it is nobody's business.
    assert str(port) not in peers.out
    with server.serve(port):
        program.wait_for("a server of models is there")
        eventually(lambda: models(gateway.url) == {"qwen3-4b"})
        assert chat(gateway.url, "qwen3-4b") == ANSWER
    eventually(lambda: models(gateway.url) == set())

    def lane() -> tuple[str, str | None]:
        (peer,) = get(f"{gateway.url}/api/dashboard/snapshot")["peers"]
        (row,) = peer["lanes"]
        return row["state"], row["reason"]

    eventually(lambda: lane() == ("resting", "its server cannot be reached"))
    with server.serve(port):
        eventually(lambda: models(gateway.url) == {"qwen3-4b"})
        assert chat(gateway.url, "qwen3-4b") == ANSWER
    assert len(program.events("waiting for")) <= 3


@limit(120)
def test_what_one_server_will_not_do_is_done_by_another(programs: Programs, port: int) -> None:
    """It has no such model any more: its own limit, and nothing that a caller hears of."""
    servers = {port: ModelServer("m"), free_port(): ModelServer("m")}
    with ExitStack() as stack:
        for place, server in servers.items():
            stack.enter_context(server.serve(place))
            listener(programs, place, "--namespace", "n")
        gateway = programs.gateway("--namespace", "n")
        known = f"{gateway.url}/api/dashboard/snapshot"
        eventually(lambda: len(get(known).get("peers", ())) == 2)
        before = {place: len(server.chats()) for place, server in servers.items()}
        assert chat(gateway.url, "m") == ANSWER
        # The one that is asked first, so that it will be asked again.
        limited = max(servers, key=lambda place: len(servers[place].chats()) - before[place])
        asked = len(servers[limited].chats())
        servers[limited].cannot_chat["m"] = 404
        for _ in range(60):
            assert chat(gateway.url, "m") == ANSWER
            if len(servers[limited].chats()) > asked:
                break
        else:
            pytest.fail("the one that has no such model any more was not asked again")
        assert chat(gateway.url, "m") == ANSWER


FORMS: list[Callable[[str], str]] = [
    str,
    quote,
    lambda text: quote(text, safe=""),
    quote_plus,
    lambda text: json.dumps(text)[1:-1],
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: text.encode().hex(),
]


QUESTION = b'{"model": "m", "messages": [{"role": "user", "content": "?"}]}'


class Telling(ModelServer):
    """A server that tells all that it was sent in each of its errors."""

    def chat(self, asked: Any) -> Reply:
        """Fail, and tell."""
        return error(self.refuses, f"{asked.headers} {asked.headers['host']}")

    refuses = 400


@pytest.mark.parametrize("how", ["user", "query", "broken key"])
@limit(120)
def test_no_secret_and_no_address_reach_anybody(programs: Programs, port: int, how: str) -> None:
    """Not a dialer, not a log, not a file, not a page; searched for in every form."""
    host = f"127.0.0.1:{port}"
    user = f"http://ann:{quote(SECRET, safe='')}@{host}/v1"
    environment = {
        "user": {"PUNCH_OPENAI_URL": user},
        "query": {"PUNCH_OPENAI_URL": f"http://{host}/v1?api_key={KEY}"},
        "broken key": {"PUNCH_OPENAI_KEY": f"{KEY}\nX-Evil: 1"},
    }[how]
    told: dict[str, str] = {}
    owner: dict[str, str] = {}
    server = Telling("m")
    with server.serve(port):
        if how in ("query", "broken key"):
            variables = {
                "PUNCH_INFERENCE_BACKEND": "openai",
                "PUNCH_OPENAI_URL": f"http://{host}/v1",
                **environment,
            }
            ended = programs.run("listener", "--namespace", "n", variables=variables)
            assert ended.code == 2, ended
            assert ("PUNCH_OPENAI_URL" if how == "query" else "PUNCH_OPENAI_KEY") in ended.err
            told["error"] = ended.out + ended.err
            secrets = [KEY]
        else:
            program = listener(programs, port, "--namespace", "n", "--no-calibrate", **environment)
            gateway = programs.gateway("--namespace", "n")
            eventually(lambda: models(gateway.url) == {"m"})
            ask = ("--namespace", "n", "--timeout", "8", "--explain", "--json", "--ask", "?")
            said = programs.dial(*ask)
            told["dialer"] = said.out + said.err
            settings = programs.run("__main__", "settings", "list", variables=environment)
            assert "[hidden]" in settings.out
            owner["settings"] = settings.out + settings.err
            for status in (400, 500, 404, 401):
                server.refuses = status
                told[f"answer {status}"] = _page(f"{gateway.url}/v1/chat/completions", QUESTION)
            for path in ("/api/dashboard/snapshot", "/ready", "/metrics", "/v1/models"):
                told[path] = _page(gateway.url + path)
            told["gateway's log"] = gateway.err
            owner["listener's log"] = program.err
            used = [each.headers.get("authorization", "") for each in server.asked]
            assert all(header.startswith("Basic ") for header in used)
            basic = base64.b64encode(f"ann:{SECRET}".encode()).decode()
            secrets = [SECRET, f"ann:{SECRET}", basic]
            assert len(used) > 4
            _search(told, [host])
    _search(told | owner, secrets)
    files = {
        str(path): path.read_bytes().decode("utf-8", "replace")
        for path in programs.folder.rglob("*")
        if path.is_file()
    }
    _search(files, secrets)


def _page(url: str, body: bytes | None = None) -> str:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            data: bytes = response.read()
    except urllib.error.HTTPError as problem:
        data = problem.read()
    return data.decode()


def _search(places: dict[str, str], secrets: list[str]) -> None:
    """Fail if a place has a secret in any form."""
    for place, text in places.items():
        for secret in secrets:
            for form in FORMS:
                assert form(secret) not in text, f"{place}: {secret}"


@limit(60)
def test_a_name_that_no_dialer_could_use_is_cleaned_or_left_out(
    programs: Programs, port: int
) -> None:
    """It is never listening with an advert that nobody can read."""
    server = ModelServer("a\nb", "x" * 300, "fine", "  ", "lost\ufffd")
    with server.serve(port):
        program = listener(programs, port, "--namespace", "n")
        names = program.events("listening")[0]["models"]
        assert {"a_b", "fine"} <= set(names)
        assert len(names) == 3
        gateway = programs.gateway("--namespace", "n")
        eventually(lambda: models(gateway.url) == set(names))
        for name in names:
            assert chat(gateway.url, name) == ANSWER
