"""A router for programs that do not run on trio: over a network in memory, in its own thread."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import punch
from punch import blocking, dialer
from punch.backends import MockBackend, MockScript
from punch.testing import open_swarm


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router of these tests has a swarm of its own."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(**arguments: Any) -> Any:
        arguments.pop("namespace", None)
        async with open_swarm() as swarm:
            await swarm.listener("a", MockBackend(MockScript(decode_rate=1000.0)))
            async with swarm.router(**arguments) as router:
                yield router

    monkeypatch.setattr(dialer, "open_router", opened)


@contextmanager
def router() -> Iterator[blocking.BlockingRouter]:
    """The router that is tested."""
    with blocking.open_router() as found:
        yield found


def test_a_blocking_program_asks_and_reads() -> None:
    """Whole and in parts, one after the other."""
    with router() as asking:
        response = asking.ask("hello", max_tokens=5)
        parts = list(asking.stream("hello", max_tokens=5))
        assert [peer.peer_id for peer in asking.peers] == ["a"]
    assert response.result is not None
    assert (response.executor, len(parts)) == ("a", 5)


def test_one_question_is_one_call() -> None:
    """Text and peer, and nothing is left of it; wishes that nobody meets are said."""
    response = blocking.ask("hello", model="mock", max_tokens=5, namespace="home", max_load=0.8)
    assert (response.executor, len(response.text.split())) == ("a", 5)
    with pytest.raises(punch.NoPeerAvailable, match="tokens a second"):
        blocking.ask("hello", min_rate=1e9)
    assert [each.name for each in threading.enumerate() if each.name == "punch"] == []


def test_a_stream_that_is_left_is_cancelled() -> None:
    """And the next request is answered."""
    with router() as asking:
        stream = asking.stream("a long story", max_tokens=4000)
        assert next(stream)
        stream.close()
        assert asking.ask("hello", max_tokens=3).status == "success"


def test_asyncio_awaits_answers_side_by_side() -> None:
    """A task that is cancelled cancels its request and nothing else."""

    async def program() -> list[str]:
        with router() as asking:
            late = asyncio.ensure_future(asking.ask_async("long", max_tokens=100_000))
            await asyncio.sleep(0)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            found = await asyncio.gather(
                *[asking.ask_async(f"hello {n}", max_tokens=3) for n in range(3)]
            )
            return [response.status for response in found]

    assert asyncio.run(program()) == ["success"] * 3


def test_errors_are_raised_where_the_question_was_asked() -> None:
    """As they are; the router lives on."""
    with router() as asking:
        with pytest.raises(punch.UnknownModel):
            asking.ask("hello", model="nobody has it")
        with pytest.raises(punch.UnknownModel):
            list(asking.stream("hello", model="nobody has it"))
        assert asking.ask("hello", max_tokens=3).status == "success"


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_in_the_readme_run_as_they_are_printed(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On trio and without it."""
    monkeypatch.setattr(punch, "open_router", dialer.open_router)
    readme = (Path(punch.__file__).parent.parent / "README.md").read_text()
    program = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[number]
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    assert "Provenance" in capsys.readouterr().out or number == 1


def test_opening_on_asyncio_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of an error from the depths of trio."""
    monkeypatch.undo()

    async def program() -> None:
        async with punch.open_router():
            pass

    with pytest.raises(punch.ConfigurationError, match=r"punch\.blocking\.open_router"):
        asyncio.run(program())


def test_a_membership_is_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or by what the calls for closed namespaces return; without one the error says what to do."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    memberships = []
    opened = dialer.open_router

    def noting(*, membership: Any, **arguments: Any) -> Any:
        memberships.append(membership)
        return opened(**arguments)

    monkeypatch.setattr(dialer, "open_router", noting)
    with (
        pytest.raises(punch.ConfigurationError, match="namespace create"),
        blocking.open_router(membership="home"),
    ):
        pass
    home = punch.create_namespace("home")
    for which in ("home", str(home.namespace), home):
        with blocking.open_router(membership=which) as router:
            assert router.ask("hello", max_tokens=3).status == "success"
        assert memberships[-1].namespace == home.namespace
    assert len(memberships) == 3
