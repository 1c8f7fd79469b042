"""A gateway that serves HTTP with several processes, as its callers meet it."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from integration.programs import Program, Programs, limit, open_programs

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


def fronts_of(gateway: Program) -> dict[int, int]:
    """The processes that serve HTTP: their ids by their numbers."""
    found = {}
    for child in psutil.Process(gateway.pid).children(recursive=True):
        line = child.cmdline()
        if line[1:3] == ["-m", "punch.gateway.fronts"]:
            found[int(line[4])] = child.pid
    return found


def within(seconds: float, found: Callable[[], bool]) -> bool:
    """Whether it is so, at the latest then."""
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def count(gateway: Program, name: str, **headers: str) -> float:
    """A number of the metrics, of all labels together."""
    text = httpx.get(f"{gateway.url}/metrics", headers=headers).text
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """A place to meet."""
    with open_programs(tmp_path_factory.mktemp("processes")) as programs:
        programs.bootstrap()
        yield programs


@pytest.fixture(scope="module")
def gateway(programs: Programs) -> Program:
    """A gateway of two processes, and a listener beside them."""
    found = programs.gateway("--processes", "2", "--listen-too", "--backend", "mock")
    assert within(10, lambda: httpx.post(found.url + CHAT, json=QUESTION).status_code == 200)
    return found


@limit(60)
def test_both_processes_answer_and_the_metrics_are_of_both(gateway: Program) -> None:
    """Whoever has time takes the next connection."""
    # What was asked until now is told within a twentieth of a second.
    time.sleep(0.5)
    before = count(gateway, "punch_requests_total")
    busy = {pid: psutil.Process(pid).cpu_times().user for pid in fronts_of(gateway).values()}

    def ask(_: int) -> int:
        with httpx.Client() as client:
            return sum(client.post(gateway.url + CHAT, json=QUESTION).is_success for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 80
    assert within(2, lambda: count(gateway, "punch_requests_total") == before + 80)
    assert all(psutil.Process(pid).cpu_times().user > was for pid, was in busy.items())


@limit(60)
def test_the_same_id_is_answered_once_whichever_process_is_asked(gateway: Program) -> None:
    """The answer of the first request is that of all, and a stored one is told so."""
    for number in range(4):
        headers = {"x-request-id": f"tea-{number}"}
        # A connection each: which process accepts it is chance.
        replies = [httpx.post(gateway.url + CHAT, json=QUESTION, headers=headers) for _ in range(6)]
        assert [each.status_code for each in replies] == [200] * 6
        decided = Counter(each.headers["x-punch-decision"] == "replayed" for each in replies)
        assert decided == {False: 1, True: 5}
        other = httpx.post(gateway.url + CHAT, json={**QUESTION, "max_tokens": 3}, headers=headers)
        assert other.status_code == 409


@limit(60)
def test_one_connection_is_served_wherever_its_requests_lead(gateway: Program) -> None:
    """A client sees nothing of it, with a page and questions by turns."""
    with httpx.Client(base_url=gateway.url) as client:
        for number in range(6):
            assert client.get("/metrics").status_code == 200
            headers = {"x-request-id": f"turn-{number}"}
            assert client.post(CHAT, json=QUESTION, headers=headers).status_code == 200
            assert client.post(CHAT, json=QUESTION).status_code == 200
            assert client.get("/v1/models").status_code == 200
            assert "html" in client.get("/", headers={"accept": "text/html"}).text


@limit(60)
def test_a_stored_response_is_found_from_every_connection(gateway: Program) -> None:
    """It is kept in one process, which all that may refer to it come to."""
    first = httpx.post(f"{gateway.url}/v1/responses", json={"input": "hello"}).json()
    for _ in range(6):
        body = {"input": "and then?", "previous_response_id": first["id"]}
        assert httpx.post(f"{gateway.url}/v1/responses", json=body).status_code == 200


@limit(90)
def test_a_process_that_is_killed_loses_its_own_requests_and_is_started_again(
    gateway: Program,
) -> None:
    """The others serve meanwhile; ids of the killed one wait for it."""
    before = fronts_of(gateway)
    assert set(before) == {0, 1}
    psutil.Process(before[0]).kill()
    for _ in range(20):
        assert httpx.post(gateway.url + CHAT, json=QUESTION, timeout=20).status_code == 200
    headers = [{"x-request-id": f"kept-{number}"} for number in range(6)]
    for each in headers:
        reply = httpx.post(gateway.url + CHAT, json=QUESTION, headers=each, timeout=20)
        assert reply.status_code == 200
    assert within(20, lambda: set(fronts_of(gateway)) == {0, 1})
    assert fronts_of(gateway)[0] != before[0]
    assert fronts_of(gateway)[1] == before[1]
    gateway.wait_for("a process of the gateway has ended")


@pytest.mark.long
@limit(90)
def test_a_key_with_limits_gets_exactly_its_share(programs: Programs) -> None:
    """However many connections it opens, and whichever processes take them."""
    path = programs.folder / "keys"

    def create(*arguments: str) -> dict[str, Any]:
        said = programs.punch("keys", "create", *arguments, "--keys", str(path), "--json")
        assert said.code == 0, said
        found: dict[str, Any] = json.loads(said.out)
        return found

    free, tight = create("free"), create("tight", "--requests-per-minute", "7")
    gateway = programs.gateway(
        "--processes", "2", "--listen-too", "--backend", "mock", "--keys", str(path)
    )

    def ask(key: dict[str, Any]) -> int:
        headers = {"authorization": f"Bearer {key['secret']}"}
        return httpx.post(gateway.url + CHAT, json=QUESTION, headers=headers).status_code

    assert within(10, lambda: ask(free) == 200)
    with ThreadPoolExecutor(4) as pool:
        assert Counter(pool.map(lambda _: ask(tight), range(20))) == {200: 7, 429: 13}
        assert Counter(pool.map(lambda _: ask(free), range(10))) == {200: 10}
    assert ask({"secret": "pk-nobody-x"}) == 401
    time.sleep(1.0)
    assert gateway.stop().code == 0
    said = programs.punch("keys", "list", "--keys", str(path), "--json")
    used = {key["name"]: key for key in map(json.loads, said.out.splitlines())}
    (day,) = used["tight"]["usage"]
    assert (day["requests"], day["errors"], day["completion_tokens"]) == (20, 13, 28)


@pytest.mark.long
@limit(120)
def test_punch_up_serves_with_several_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a closed namespace each is a member by its machine, as every program of it is."""
    with open_programs(tmp_path_factory.mktemp("up")) as own:
        up = own.up("--processes", "2", "--backend", "mock", "--no-lan")
        assert set(fronts_of(up)) == {0, 1}
        assert within(20, lambda: httpx.post(up.url + CHAT, json=QUESTION).status_code == 200)
        assert within(2, lambda: count(up, "punch_requests_total") >= 1)
        fronts = list(fronts_of(up).values())
        assert own.punch("down").code == 0
        assert up.wait().code == 0
        assert not any(map(psutil.pid_exists, fronts))


@pytest.mark.long
@limit(90)
def test_the_end_of_the_gateway_waits_for_streams_and_leaves_nothing(programs: Programs) -> None:
    """With SIGTERM, what was begun is finished; with SIGKILL, nobody is left behind."""
    start = ("--processes", "2", "--listen-too", "--backend", "mock")
    gateway = programs.gateway(*start)
    assert within(10, lambda: httpx.post(gateway.url + CHAT, json=QUESTION).status_code == 200)
    fronts = list(fronts_of(gateway).values())
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({**QUESTION, "max_tokens": 600, "stream": True}).encode()
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(20)
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % (CHAT.encode(), len(body)) + body)
        seen = client.recv(1024)
        gateway.send(signal.SIGTERM)
        while data := client.recv(1 << 16):
            seen += data
    assert b"[DONE]" in seen
    assert gateway.wait().code == 0
    assert not any(map(psutil.pid_exists, fronts))

    gateway = programs.gateway(*start)
    fronts = list(fronts_of(gateway).values())
    gateway.kill()
    assert within(10, lambda: not any(map(psutil.pid_exists, fronts)))
