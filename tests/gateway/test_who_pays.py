"""Who asked, and who paid: a gateway in a closed namespace, and a listener on another machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from closed_home import Home
from gateway_client import Client, Seen
from prometheus_text import told as exposed
from trio.testing import MockClock

from punch import Listener, Router
from punch._subscribers import open_bus
from punch.admission import Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.cli.commands._story import tell
from punch.decision_log import LogLine, Story, open_decision_log, read_log, stories
from punch.dialer import chat_request
from punch.events import AttemptServed
from punch.exceptions import PunchError
from punch.gateway import (
    GatewayParts,
    GatewaySettings,
    KeyStore,
    build_application,
    open_usage,
    read_usage,
)
from punch.gateway.telemetry._metrics import Metrics
from punch.listener.members._usage import MAX_MEMBERS, MAX_SAID, SAY_SECONDS, UsageByMember
from punch.testing import MemoryNetwork, Swarm

DESK = PeerId("desk-machine-of-the-gateway")


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads."""

    async def run_here(work: Callable[..., object], *arguments: object, **_: object) -> object:
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "gateway.sqlite3") as store:
        yield store


@attrs.frozen(kw_only=True)
class Place:
    """A gateway of one machine, and a listener of another."""

    client: Client
    router: Router
    listener: Listener
    log: Path
    served: list[AttemptServed]


@asynccontextmanager
async def gateway_and_listener(
    home: Home, keys: KeyStore, folder: Path, *, limits: dict[str, Caps] | None = None
) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        served: list[AttemptServed] = []
        told = open_bus()
        stack.enter_context(told.account(AttemptServed, note=served.append))  # type: ignore[arg-type]  # a list takes any
        attic = home.member("attic")
        attic.names[DESK] = "desk"
        backend = MockBackend(MockScript())
        listener = await enter(
            home.listener("attic", membership=attic, backend=backend, limits=limits, events=told)
        )
        home.member(DESK, called="desk")
        gateway = home.member("gateway-process", knows=("attic",), on=DESK)
        events = open_bus()
        await enter(open_usage(keys.database, events=events))
        await enter(open_decision_log(folder / "decisions.jsonl", events))
        router = await enter(home.router("gateway-process", membership=gateway, events=events))
        await router.wait_for_peers(lambda found: len(found) == 1)
        parts = GatewayParts(settings=GatewaySettings(), events=events, keys=keys)
        swarm: Any = None
        client = Client(build_application(router, parts), Seen(), router, swarm)
        yield Place(
            client=client,
            router=router,
            listener=listener,
            log=folder / "decisions.jsonl",
            served=served,
        )


async def chat(client: Client, secret: str, *, tokens: int, request_id: str) -> int:
    reply = await client.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": tokens},
        authorization=f"Bearer {secret}",
        x_request_id=request_id,
    )
    assert reply.status is not None
    return reply.status


async def test_the_listener_sees_the_gateways_machine_and_the_gateway_which_key_paid(
    autojump_clock: MockClock, home: Home, keys: KeyStore, tmp_path: Path
) -> None:
    """No key is told to a peer; the story of a request says both."""
    (ada, ada_secret), (bob, bob_secret) = keys.create("ada"), keys.create("bob")
    async with gateway_and_listener(home, keys, tmp_path) as place:
        assert await chat(place.client, ada_secret, tokens=7, request_id="one") == 200
        assert await chat(place.client, ada_secret, tokens=8, request_id="two") == 200
        assert await chat(place.client, bob_secret, tokens=20, request_id="three") == 200
        (row,) = place.listener.statistics().members
        assert (row.machine, row.name, row.requests, row.tokens) == (DESK, "desk", 3, 35)
        assert row.prompt_tokens > 0
        assert {event.machine for event in place.served} == {DESK}
        assert {event.peer_id for event in place.served} == {"gateway-process"}
        assert not any(key.key_id in repr(row) for key in (ada, bob))
    used = read_usage(keys.database)
    assert [day.completion_tokens for day in used[ada.key_id]] == [15]
    assert [day.completion_tokens for day in used[bob.key_id]] == [20]
    found = {story.request_id: story for story in told(place.log)}
    for request_id, key in (("one", ada), ("three", bob)):
        story = found[f"{request_id}@{key.key_id}"]
        assert story.end is not None
        assert (story.end.key_id, story.end.machine) == (key.key_id, DESK)
        text = tell(story, {DESK: "desk"}.__getitem__)
        assert f"paid by key {key.key_id}; asked as desk ..{DESK[-8:]}" in text


def told(log: Path) -> list[Story]:
    return list(stories([line for line in read_log(log) if isinstance(line, LogLine)]))


async def test_a_limit_of_the_gateways_machine_holds_for_all_its_keys(
    autojump_clock: MockClock, home: Home, keys: KeyStore, tmp_path: Path
) -> None:
    """And is no fault of theirs, nor of the listener: each hears what is allowed."""
    secrets = [keys.create(name)[1] for name in ("ada", "bob")]
    limits = {"desk": Caps(max_output=10)}
    async with gateway_and_listener(home, keys, tmp_path, limits=limits) as place:
        for number, secret in enumerate(secrets):
            assert await chat(place.client, secret, tokens=11, request_id=f"a{number}") == 400
            assert await chat(place.client, secret, tokens=10, request_id=f"b{number}") == 200


async def test_what_was_refused_failed_or_cancelled_is_counted_too(
    autojump_clock: MockClock, home: Home
) -> None:
    """Each in its place, and what was sent until then."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        backend = MockBackend(MockScript(decode_rate=10.0, fail_after=50))
        listener = await enter(home.listener("a", backend=backend))
        router = await enter(home.router("kid", knows=("a",)))
        await router.wait_for_peers(lambda found: len(found) == 1)
        session = router._dispatch.pool.session(PeerId("a"))
        assert session is not None
        strict = attrs.evolve(chat_request("hello", timeout=20.0), strict=True)
        await session.ask(strict).receive()
        with pytest.raises(PunchError):
            await router.ask(chat_request("hello", max_tokens=60, timeout=20.0))
        with trio.move_on_after(2.05):
            await router.ask(chat_request("hello", max_tokens=40, timeout=20.0))
        await trio.sleep(1)
        await router.ask(chat_request("hello", max_tokens=5, timeout=20.0))
        (row,) = listener.statistics().members
        assert (row.machine, row.requests, row.refused, row.failed) == ("kid", 4, 1, 1)
        assert 70 <= row.tokens <= 80


async def test_an_open_namespace_has_one_row(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Identities are free there: a row for each would be a row for each whim."""
    listener = await swarm.listener("a", MockBackend(MockScript()))
    for name in ("b", "c"):
        async with swarm.router(name) as router:
            await router.ask("hello")
    assert [(row.machine, row.requests) for row in listener.statistics().members] == [(None, 2)]


def test_however_many_members_ask_rows_and_lines_are_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that come late are one row; the log names the busiest."""
    usage = UsageByMember(lambda machine: machine.upper())
    usage.say(0.0)
    for number in range(MAX_MEMBERS + 50):
        for _ in range(2 if number == 7 else 1):
            usage.note(PeerId(f"machine-{number}"), None, 1)
    rows = usage.all()
    assert len(rows) == MAX_MEMBERS + 1
    assert rows[-1].machine is None
    assert rows[-1].requests == 50
    caplog.set_level("INFO", logger="punch.listener")
    usage.say(SAY_SECONDS - 1)
    assert not caplog.records
    usage.say(SAY_SECONDS)
    lines: list[Any] = [record.msg for record in caplog.records]
    assert len(lines) == MAX_SAID + 1
    assert (lines[0]["name"], lines[0]["requests"]) == ("MACHINE-7", 2)
    assert lines[-1]["members"] == MAX_MEMBERS - MAX_SAID
    caplog.clear()
    usage.note(PeerId("machine-3"), None, 4)
    usage.say(2 * SAY_SECONDS)
    (line,) = [record.msg for record in caplog.records]
    assert isinstance(line, dict)
    assert (line["machine"], line["requests"], line["tokens"]) == ("machine-3", 1, 4)


async def test_the_metrics_of_a_gateway_have_its_own_listeners_members(
    autojump_clock: MockClock,
) -> None:
    """By machine; its name is in a row of its own, as a name may change."""

    class Nobody:
        peers = ()
        sessions = 0

    usage = UsageByMember({"m1": "desk"}.get)  # type: ignore[arg-type]  # names by text
    usage.note(PeerId("m1"), None, 5)
    metrics = Metrics(Nobody(), served=usage.all)
    found = await exposed(metrics)
    assert found["punch_served_requests_total", "m1"] == 1
    assert found["punch_served_tokens_total", "m1"] == 5
    assert found["punch_served_machine_info", "m1", "desk"] == 1
