"""A limit for one machine, in real processes: its gateway's keys, and who is seen to have paid."""

from __future__ import annotations

from pathlib import Path

import httpx
from integration.programs import Program, Programs, limit
from integration.test_closed import Machine

from punch.gateway import KeyStore, read_usage
from punch.membership import homes

CHAT = "/v1/chat/completions"


def ask(gateway: Program, secret: str, *, tokens: int, name: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": tokens}
    headers = {"authorization": f"Bearer {secret}", "x-request-id": name}
    return httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=30)


@limit(120)
def test_a_limited_machine_is_held_to_it_and_each_key_of_its_gateway_pays(
    programs: Programs,
) -> None:
    """The listener counts the machine, by the name that the invite gave it; the story has both."""
    attic, laptop = Machine(programs, "attic"), Machine(programs, "laptop")
    attic.punch("namespace", "create", "home", "--called", "attic")
    attic.variables["PUNCH_LIMIT"] = "laptop, tokens=5, model=model-a*; attic, tokens=1"
    listener = attic.listener()
    warned = {line["member"]: line["event"] for line in listener.events("a limit names")}
    assert "no member that this machine has heard of yet" in warned["laptop"]
    assert "names this machine" in warned["attic"]

    code = Path(programs.folder / "code")
    attic.punch("invite", "--file", str(code), "--name", "laptop")
    laptop.punch("join", "--file", str(code))
    path = programs.folder / "keys"
    with KeyStore(path) as store:
        keys = [store.create(name) for name in ("ada", "bob")]
    gateway = programs.gateway("--keys", str(path), **laptop.variables)
    gateway.wait_until(
        lambda: httpx.get(gateway.url + "/ready", timeout=5).status_code == 200, "listener"
    )
    for number, (_, secret) in enumerate(keys):
        refused = ask(gateway, secret, tokens=6, name=f"long-{number}")
        assert refused.status_code == 400, refused.text
        assert "max_tokens is 6; at most 5" in refused.json()["error"]["message"]
        answered = ask(gateway, secret, tokens=5 - number, name=f"short-{number}")
        assert answered.status_code == 200, answered.text

    assert gateway.stop().code == 0
    assert listener.stop().code == 0
    (home,) = homes(programs.folder / "laptop" / "punch" / "namespaces")
    (line,) = [each for each in listener.events("asked by a member") if each["name"] == "laptop"]
    assert (line["machine"], line["requests"], line["tokens"]) == (home.machine, 2, 9)
    (ada, bob) = (key.key_id for key, _ in keys)
    used = {key: sum(d.completion_tokens for d in days) for key, days in read_usage(path).items()}
    assert used == {ada: 5, bob: 4}
    story = laptop.punch("why", f"short-1@{bob}", "--log", str(programs.decisions))
    assert f"paid by key {bob}; asked as laptop .." in story
    assert ada not in listener.err
    assert bob not in listener.err
