"""A command reaches the running punch and nobody else does, over a port and in memory."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from punch.admin import Admin, Call, Handler, Replies, call, follow, open_admin
from punch.admin._client import SILENT_SECONDS
from punch.admin._door import FILE, Door, read_door
from punch.admin._lines import (
    AT_WORK,
    MAX_COMMAND_BYTES,
    Command,
    Told,
    encode_command,
    encode_reply,
)
from punch.admin._server import (
    AT_WORK_SECONDS,
    HEAR_SECONDS,
    MAX_CALLERS,
    MAX_STRANGERS,
    SEND_SECONDS,
    AdminStatistics,
)
from punch.exceptions import (
    AddressUnavailable,
    ConfigurationError,
    NotRunning,
    PunchError,
    QuotaExceeded,
    RequestError,
)

TOKEN = "ab" * 32

# Real connections are made in real time; none of them takes a second.
LIMIT_SECONDS = 30.0


async def echo(command: Call) -> Any:
    """Give back what was asked."""
    return dict(command.arguments)


async def count(command: Call) -> int:
    """Tell numbers."""
    for number in range(command.arguments["to"]):
        await command.tell(number)
    return -1


async def wrong(command: Call) -> None:
    """Refuse."""
    raise ConfigurationError("line 3 of settings.toml is wrong: mend it")


async def buggy(command: Call) -> None:
    """Fail by a bug."""
    raise KeyError("something secret")


async def endless(command: Call) -> None:
    """Tell values without end, as fast as the caller takes them."""
    while True:
        await command.tell("x" * 65536)


HANDLERS: dict[str, Handler] = {
    "echo": echo,
    "count": count,
    "wrong": wrong,
    "buggy": buggy,
    "endless": endless,
}


def line(name: str, token: str = TOKEN, **arguments: Any) -> bytes:
    """A command as it is sent."""
    return encode_command(Command(token=token, name=name, arguments=arguments))


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end."""
    data = b""
    while some := await stream.receive_some():
        data += some
    return data


@asynccontextmanager
async def attended(admin: Admin) -> AsyncIterator[trio.abc.Stream]:
    """A connection in memory to *admin*, which closes it at its end."""
    ours, its = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.attend, its)
        yield ours
        await ours.aclose()


# ---- a program and its commands, over a real port


async def test_a_command_gets_its_value(tmp_path: Path) -> None:
    """Found by the file, and answered over loopback."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path / "admin", HANDLERS):
            value = {"a": [1, None, "ä\n"], "command": "x"}
            assert await call(tmp_path / "admin", "echo", **value) == value
        with pytest.raises(NotRunning, match="start it with `punch up`"):
            await call(tmp_path / "admin", "echo")


async def test_a_command_is_told_values_before_the_last(tmp_path: Path) -> None:
    """In their order, and then the last one."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            async with follow(tmp_path, "count", to=3) as replies:
                assert [number async for number in replies] == [0, 1, 2]
                assert replies.value == -1
                assert [number async for number in replies] == []


async def test_an_error_of_the_handler_is_the_callers(tmp_path: Path) -> None:
    """The very class, so that the exit code is the same."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            with pytest.raises(ConfigurationError, match=r"^line 3 of settings.toml is wrong"):
                await call(tmp_path, "wrong")


async def test_a_bug_ends_its_command_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller hears its kind, and the log the rest."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            with pytest.raises(PunchError, match="has a bug \\(KeyError\\)") as caught:
                await call(tmp_path, "buggy")
            assert type(caught.value) is PunchError
            assert "secret" not in str(caught.value)
            assert await call(tmp_path, "echo") == {}
    assert "a command has a bug" in caplog.text


async def test_a_command_that_is_not_known_is_told_which_are(tmp_path: Path) -> None:
    """Another version may run."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            with pytest.raises(RequestError, match="'dance', but buggy, count, echo"):
                await call(tmp_path, "dance")


async def test_arguments_that_are_no_json_are_refused_here(tmp_path: Path) -> None:
    """Nothing is sent."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            with pytest.raises(ConfigurationError, match="cannot be sent"):
                await call(tmp_path, "echo", path=tmp_path)


async def test_a_handler_is_cancelled_when_its_caller_goes(tmp_path: Path) -> None:
    """Ctrl-C in the terminal that follows ends the following."""
    ended = trio.Event()

    async def waiting(command: Call) -> None:
        try:
            await command.tell("begun")
            await trio.sleep_forever()
        finally:
            ended.set()

    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, {"wait": waiting}) as admin:
            async with follow(tmp_path, "wait") as replies:
                assert await anext(replies) == "begun"
                assert admin.statistics() == AdminStatistics(callers=1, strangers=0)
            await ended.wait()
            await wait_all_tasks_blocked()
            assert admin.statistics() == AdminStatistics(callers=0, strangers=0)


async def test_a_caller_is_told_when_the_program_ends(tmp_path: Path) -> None:
    """And is not left waiting."""

    async def waiting(command: Call) -> None:
        await command.tell("begun")
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            ends = trio.Event()

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                async with open_admin(tmp_path, {"wait": waiting}):
                    task_status.started()
                    await ends.wait()

            await nursery.start(serve)
            async with follow(tmp_path, "wait") as replies:
                await anext(replies)
                ends.set()
                with pytest.raises(NotRunning, match="ended before it had answered"):
                    await anext(replies)


async def test_a_second_program_does_not_take_the_folder(tmp_path: Path) -> None:
    """Commands go on to reach the first."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            with pytest.raises(ConfigurationError, match="takes the commands"):
                async with open_admin(tmp_path, HANDLERS):
                    raise AssertionError
            assert await call(tmp_path, "echo") == {}


async def test_no_port_is_an_error_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder is free again."""

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(98, "Address already in use")

    with monkeypatch.context() as context:
        context.setattr("trio.open_tcp_listeners", refuse)
        with pytest.raises(AddressUnavailable):
            async with open_admin(tmp_path, {}):
                raise AssertionError
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            assert await call(tmp_path, "echo") == {}


async def test_only_loopback_is_open(tmp_path: Path) -> None:
    """One port, which the system chose."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            door = read_door(tmp_path)
            assert door is not None
            stream = await trio.open_tcp_stream("127.0.0.1", door.port)
            async with stream:
                assert stream.socket.getpeername()[0] == "127.0.0.1"
                await stream.send_all(line("echo", token="00" * 32))
                assert await all_of(stream) == b""


async def test_a_port_where_nobody_is_any_more_is_nobody_who_runs(tmp_path: Path) -> None:
    """The program hangs or ends, and what to type is said."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            text = (tmp_path / FILE).read_text()
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        (tmp_path / FILE).write_text(json.dumps({**json.loads(text), "port": port}))
        with pytest.raises(NotRunning, match=f"process {os.getpid()}. does not answer"):
            await call(tmp_path, "echo")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400\r\n\r\n", b"{}\n", b'{"told":1}\n[\n', b"\xff\n"])
async def test_a_port_where_another_program_answers_is_not_believed(
    tmp_path: Path, said: bytes
) -> None:
    """Whatever it says."""

    async def other(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(said)

    with trio.fail_after(LIMIT_SECONDS):
        async with open_admin(tmp_path, HANDLERS):
            text = (tmp_path / FILE).read_text()
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, other, [listener])
            port = listener.socket.getsockname()[1]
            (tmp_path / FILE).write_text(json.dumps({**json.loads(text), "port": port}))
            with pytest.raises(NotRunning):
                await call(tmp_path, "echo")
            nursery.cancel_scope.cancel()


# ---- strangers and slow callers, in memory and in virtual time


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff\xfe\n",
        b"[" * 5000 + b"\n",
        b"x" * (MAX_COMMAND_BYTES + 1),
        b"x" * (MAX_COMMAND_BYTES * 3),
        line("echo", token=""),
        line("echo", token=TOKEN[:-1]),
        line("echo", token=TOKEN.upper()),
        line("echo", token="\ud800"),
        line("echo")[:-2],
        b'{"token":"' + TOKEN.encode() + b'"}\n',
    ],
)
async def test_who_does_not_know_the_word_gets_nothing(
    said: bytes, autojump_clock: MockClock
) -> None:
    """No error, and no byte, whatever comes; and nothing is left of it."""
    admin = Admin(TOKEN, HANDLERS)
    async with attended(admin) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(said)
        assert await all_of(stream) == b""
    assert admin.statistics() == AdminStatistics(callers=0, strangers=0)


async def test_who_says_nothing_is_dropped(autojump_clock: MockClock) -> None:
    """After a few seconds, though a byte comes now and then."""
    admin = Admin(TOKEN, HANDLERS)
    began = trio.current_time()
    async with attended(admin) as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in line("echo"):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.5)

        nursery.start_soon(drip)
        assert await all_of(stream) == b""
        assert trio.current_time() - began == HEAR_SECONDS
        nursery.cancel_scope.cancel()


async def test_too_many_strangers_hold_up_nobody_who_knows(autojump_clock: MockClock) -> None:
    """The oldest of them gives way, and a command is answered at once."""
    admin = Admin(TOKEN, HANDLERS)
    async with trio.open_nursery() as nursery:
        streams = []
        for _ in range(MAX_STRANGERS):
            ours, its = memory_stream_pair()
            nursery.start_soon(admin.attend, its)
            streams.append(ours)
            await wait_all_tasks_blocked()
        assert admin.statistics().strangers == MAX_STRANGERS
        began = trio.current_time()
        async with attended(admin) as stream:
            await stream.send_all(line("echo"))
            assert await all_of(stream) == b'{"value":{}}\n'
        assert await all_of(streams[0]) == b""
        assert trio.current_time() == began
        assert admin.statistics().strangers == MAX_STRANGERS - 1
        nursery.cancel_scope.cancel()


async def test_too_many_commands_at_a_time_are_refused(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With what to do about it; whoever is there stays."""

    async def waiting(command: Call) -> None:
        await trio.sleep_forever()

    admin = Admin(TOKEN, {"wait": waiting})
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_CALLERS):
            ours, its = memory_stream_pair()
            nursery.start_soon(admin.attend, its)
            await ours.send_all(line("wait"))
        await wait_all_tasks_blocked()
        async with attended(admin) as stream:
            await stream.send_all(line("wait"))
            said = json.loads(await all_of(stream))
            assert said["error"]["code"] == QuotaExceeded.code
        assert admin.statistics().callers == MAX_CALLERS
        nursery.cancel_scope.cancel()


async def test_a_caller_hears_that_its_handler_is_at_work(autojump_clock: MockClock) -> None:
    """Once a second, so that a program that hangs is told from one that works."""

    async def slow(command: Call) -> str:
        await trio.sleep(3.5 * AT_WORK_SECONDS)
        return "done"

    async with attended(Admin(TOKEN, {"slow": slow})) as stream:
        await stream.send_all(line("slow"))
        assert await all_of(stream) == b'\n\n\n{"value":"done"}\n'


async def test_a_program_that_hangs_is_told_from_one_that_works(
    autojump_clock: MockClock,
) -> None:
    """The one says nothing, and is named with what to do; the other says that it is at work."""
    ours, its = memory_stream_pair()
    replies = Replies(ours, Door.at(4000))
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            for _ in range(100):
                await trio.sleep(AT_WORK_SECONDS)
                await its.send_all(AT_WORK)
            await its.send_all(encode_reply(Told(value="done")))

        nursery.start_soon(work)
        assert await anext(replies) == "done"
    began = trio.current_time()
    with pytest.raises(NotRunning, match=rf"process {os.getpid()}. says nothing .* `punch down`"):
        await anext(replies)
    assert trio.current_time() - began == SILENT_SECONDS


async def test_a_caller_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    """Its handler ends, and holds no memory."""
    admin = Admin(TOKEN, HANDLERS)
    ours, its = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.attend, its)
        await ours.send_all(line("endless"))
        await wait_all_tasks_blocked()
        assert admin.statistics().callers == 1
    assert SEND_SECONDS <= trio.current_time() - began <= SEND_SECONDS + AT_WORK_SECONDS
    assert admin.statistics().callers == 0
    await ours.aclose()


async def test_a_value_that_is_no_json_is_a_bug_of_ours(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller is answered all the same."""

    async def odd(command: Call) -> object:
        return object()

    async with attended(Admin(TOKEN, {"odd": odd})) as stream:
        await stream.send_all(line("odd"))
        assert json.loads(await all_of(stream))["error"]["code"] == PunchError.code
    assert "a command has a bug" in caplog.text
