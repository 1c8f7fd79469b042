"""A running gateway, and ``punch keys`` beside it: real processes over one file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import httpx
from integration.programs import Program, Programs, limit

CHAT = "/v1/chat/completions"


def ask(gateway: Program, secret: str, **fields: Any) -> int:
    """The status of a short chat."""
    body = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 2} | fields
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=30).status_code


def within(seconds: float, found: Callable[[], bool]) -> bool:
    """Whether it is so, at the latest then."""
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@limit(180)
def test_a_running_gateway_and_punch_keys_share_the_file(programs: Programs) -> None:
    """Whatever was looked up, made and revoked beside it counts; and nothing used is lost."""
    path = programs.folder / "keys"

    def keys(*arguments: str) -> list[dict[str, Any]]:
        said = programs.punch("keys", *arguments, "--keys", str(path), "--json")
        assert said.code == 0, said
        return [json.loads(line) for line in said.out.splitlines()]

    programs.bootstrap()
    (old,) = keys("create", "old")
    gateway = programs.gateway("--listen-too", "--backend", "mock", "--keys", str(path))
    assert within(30, lambda: ask(gateway, old["secret"]) == 200), gateway.err

    assert [key["name"] for key in keys("list")] == ["old"]
    assert path.with_name("keys-wal").exists()
    (new,) = keys("create", "new")
    assert within(2, lambda: ask(gateway, new["secret"]) == 200)
    keys("revoke", old["key_id"])
    assert within(2, lambda: ask(gateway, old["secret"]) == 401)

    for _ in range(5):
        assert ask(gateway, new["secret"]) == 200
    time.sleep(1.5)
    gateway.kill()
    listed = {key["name"]: key for key in keys("list")}
    assert listed["old"]["state"] == "revoked"
    (day,) = listed["new"]["usage"]
    assert day["requests"] >= 6
    assert day["completion_tokens"] == 2 * (day["requests"] - day["errors"])
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
