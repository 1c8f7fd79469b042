"""llama.cpp's RPC server: asked, started, bounded and ended; real programs and sockets."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import trio

from punch.cluster.worker import open_rpc_lender
from punch.exceptions import BackendCrashed, BackendError
from punch.llama_cpp import (
    Engine,
    RpcDevice,
    RpcFacts,
    RpcVersion,
    _rpc_server,
    _speeds,
    ask_program,
    check_engine,
    fastest,
    find_rpc_server,
    measure_device,
    measure_lent,
    open_rpc_server,
    rpc_hello,
)
from punch.llama_cpp._trial import open_head
from punch.model_store import layout_of
from punch.placement import Mix, Wants, _room
from punch.processes import open_child, open_control_group

LIMIT = 120

HELLO = struct.pack("<BQ", 14, 24) + bytes(24)
HELLO_7 = struct.pack("<Q", 28) + bytes((7, 0, 0)).ljust(28, b"\0")
TWO_DEVICES = (
    struct.pack("<QI", 4, 2)
    + struct.pack("<QQQ", 16, 5 << 30, 8 << 30)
    + struct.pack("<QQQ", 16, 9 << 30, 7 << 30)
)

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture(autouse=True)
async def a_limit() -> AsyncIterator[None]:
    """No test of this file waits for ever."""
    with trio.fail_after(LIMIT):
        yield


@asynccontextmanager
async def fake_server(serve: Serve) -> AsyncIterator[int]:
    """A port on loopback on which *serve* gets the connections, one after the other."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def accept() -> None:
        while True:
            stream = await listener.accept()
            async with stream:
                await serve(stream)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def answering(data: bytes) -> Serve:
    """Answers *data* to the first bytes, and waits for the end."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)
        with trio.move_on_after(5):
            async for _ in stream:
                pass

    return serve


# ---- hello, in front of what answers something else ----


async def test_hello_tells_version_and_devices() -> None:
    """Free memory is never told as more than there is."""
    async with fake_server(answering(HELLO_7 + TWO_DEVICES)) as port:
        assert await rpc_hello("127.0.0.1", port) == RpcFacts(
            version=RpcVersion(7, 0, 0),
            devices=(
                RpcDevice(total_bytes=8 << 30, free_bytes=5 << 30),
                RpcDevice(total_bytes=7 << 30, free_bytes=7 << 30),
            ),
        )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers something else: it answers"),
        (struct.pack("<Q", 2**63), f"it answers {2**63} bytes, and not 4096 at most"),
        (struct.pack("<Q", 2) + b"\7\0", "its hello has 2 bytes, and not 3 or more"),
        (HELLO_7 + struct.pack("<QI", 4, 1000), "it has 1000 devices, and not 64 at most"),
        (HELLO_7 + struct.pack("<Q", 3) + b"abc", "an answer has 3 bytes, and not 4"),
    ],
)
async def test_hello_says_what_is_wrong_with_garbage(data: bytes, words: str) -> None:
    """At once, not when its patience is over."""
    async with fake_server(answering(data)) as port:
        with trio.fail_after(5), pytest.raises(BackendError) as caught:
            await rpc_hello("127.0.0.1", port, patience=60)
    assert words in str(caught.value)
    assert "no RPC server of llama.cpp" in str(caught.value)


async def test_hello_says_that_the_connection_was_closed() -> None:
    """As a server does that speaks another version."""

    async def close(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with fake_server(close) as port:
        with pytest.raises(BackendError, match="closed the connection"):
            await rpc_hello("127.0.0.1", port)


async def test_hello_says_that_nobody_listens() -> None:
    """The port was somebody's a moment ago."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(BackendError, match=f"127.0.0.1:{port} cannot be reached: .*refused"):
        await rpc_hello("127.0.0.1", port)


@pytest.mark.parametrize("leaves", ["impatient", "cancelled"])
async def test_a_hello_that_was_begun_is_never_abandoned(leaves: str) -> None:
    """The caller gets its error in time; the server finds its client there, however late it is."""
    told = trio.Event()
    got: list[bytes] = []
    ended = trio.Event()

    async def late(stream: trio.SocketStream) -> None:
        await told.wait()
        got.append(await stream.receive_some())
        for number in range(3):  # Each is a write of its own, as llama.cpp does it.
            await stream.send_all(HELLO_7[number * 12 : number * 12 + 12])
            await trio.sleep(0.05)
        got.append(await stream.receive_some())
        ended.set()

    async with fake_server(late) as port:
        if leaves == "impatient":
            with trio.fail_after(5), pytest.raises(BackendError, match="answers nothing"):
                await rpc_hello("127.0.0.1", port, patience=0.2)
        else:
            with trio.move_on_after(0.1) as cancelled:
                await rpc_hello("127.0.0.1", port, patience=60)
            assert cancelled.cancelled_caught
        told.set()
        await ended.wait()
    assert got[:2] == [HELLO, b""]


async def test_a_server_is_asked_by_one_at_a_time_and_not_again_before_it_answers() -> None:
    """A second connection would wait behind the first one, and be one more to be abandoned."""
    answers = trio.Event()
    connections = 0

    async def late(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await answers.wait()
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(HELLO_7 + TWO_DEVICES)
            async for _ in stream:
                pass

    said: list[str] = []
    async with fake_server(late) as port:

        async def ask(patience: float) -> None:
            try:
                await rpc_hello("127.0.0.1", port, patience=patience)
            except BackendError as error:
                said.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.2)
            await trio.sleep(0.05)
            nursery.start_soon(ask, 0.1)
            nursery.start_soon(ask, 60)
        assert [
            next(word for word in ("asked by", "nothing; it", "asked before") if word in line)
            for line in said
        ] == ["asked by", "nothing; it", "asked before"]
        assert connections == 1
        answers.set()
        with trio.fail_after(5):
            while True:
                await trio.sleep(0.02)
                with suppress(BackendError):
                    await rpc_hello("127.0.0.1", port)
                    break
    assert connections == 2


async def test_hellos_that_nobody_answers_are_bounded() -> None:
    """Servers that hang for ever would otherwise hold a descriptor each."""
    end = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        await end.wait()

    async with AsyncExitStack() as stack:
        said = []
        for _ in range(20):
            port = await stack.enter_async_context(fake_server(silent))
            with pytest.raises(BackendError) as caught:
                await rpc_hello("127.0.0.1", port, patience=0.05)
            said.append("others have not answered yet" in str(caught.value))
        end.set()
    # A test before this one may have left some.
    assert said.index(True) > 8
    assert all(said[said.index(True) :])
    for _ in range(100):
        await trio.sleep(0.01)
        with pytest.raises(BackendError) as caught:
            await rpc_hello("127.0.0.1", port, patience=0.02)
        if "cannot be reached" in str(caught.value):
            return
    raise AssertionError(str(caught.value))


# ---- a server of our own ----

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def program(llama_cpp_folder: Path) -> Path:
    """The real RPC server."""
    found = find_rpc_server(llama_cpp_folder / "llama-server")
    assert found is not None
    return found


class Borrower:
    """A connection to an RPC server, said hello on."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def ask(self, command: int, payload: bytes = b"") -> bytes:
        """Send a request; the reply."""
        self.socket.sendall(struct.pack("<BQ", command, len(payload)) + payload)
        (size,) = struct.unpack("<Q", self._receive(8))
        return self._receive(size)

    def allocate(self, size: int) -> bool:
        """Ask for a buffer of *size* bytes on the first device, and whether there is one."""
        pointer, _ = struct.unpack("<QQ", self.ask(0, struct.pack("<IQ", 0, size)))
        return bool(pointer)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "closed"
            data += more
        return data


@contextmanager
def borrower(port: int) -> Iterator[Borrower]:
    one = Borrower(port)
    with one.socket:
        one.ask(14, bytes(24))
        yield one


async def test_a_server_is_started_on_loopback_and_ended(program: Path) -> None:
    """It is our own child that listens, there and nowhere else; nothing is left of it."""
    async with open_rpc_server(program, threads=1, memory=300 << 20) as server:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        listening = [one.laddr for one in process.net_connections() if one.status == "LISTEN"]
        assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", server.port)]
        assert server.version == (await rpc_hello("127.0.0.1", server.port)).version
        (device,) = server.devices()
        assert device.name == "CPU"
        assert device.description
        # What the server says itself is all of the machine's memory.
        assert device.free_bytes == 300 << 20 < device.total_bytes
        assert server.bound == ("limit" if sys.platform == "linux" else "promise")
        assert server.cpu_seconds() is not None
        # A connection of RDMA would go past the tunnel.
        assert process.environ()["GGML_RPC_NO_RDMA"] == "1"
        assert not server.lost.is_set()
    assert not process.is_running()
    assert {server.pid, server.cpu_seconds()} == {None}
    with pytest.raises(BackendError, match="cannot be reached"):
        await rpc_hello("127.0.0.1", server.port)


async def test_free_memory_is_what_the_machine_has_free(program: Path) -> None:
    """Without a bound, too: the server says that all is free."""
    async with open_rpc_server(program) as server:
        (device,) = server.devices()
        assert device.free_bytes <= psutil.virtual_memory().available + (64 << 20)
        assert server.bound == "promise"


@linux
async def test_a_borrower_gets_what_is_lent_and_not_more(program: Path) -> None:
    """llama.cpp's server has no limit of its own; a request above ours fails, and it lives on."""
    async with open_rpc_server(program, threads=2, memory=200 << 20) as server:
        with borrower(server.port) as one:
            assert not one.allocate(1 << 40)
            assert not one.allocate(300 << 20)
            assert one.allocate(120 << 20)
            assert one.allocate(60 << 20)
            assert not one.allocate(120 << 20)
        assert not server.lost.is_set()
        with borrower(server.port) as another:
            assert another.allocate(180 << 20)


async def test_a_client_that_leaves_before_its_answer_ends_no_server(program: Path) -> None:
    """As a probe does that gives up while another one has the server."""
    async with open_rpc_server(program) as server:
        with borrower(server.port) as one:
            probe = socket.create_connection(("127.0.0.1", server.port))
            probe.sendall(HELLO)
            await trio.sleep(0.05)
            probe.close()
            one.ask(15)
        with trio.move_on_after(0.3):
            await server.lost.wait()
        assert server.why is None
        await rpc_hello("127.0.0.1", server.port)


async def test_a_server_that_ends_by_itself_is_lost_and_can_be_started_anew(program: Path) -> None:
    """The event is set at once, and the reason says how it ended."""
    async with open_rpc_server(program) as server:
        before, lost = server.pid, server.lost
        assert before is not None
        psutil.Process(before).kill()
        with trio.fail_after(2):
            await lost.wait()
        assert "ended with SIGKILL" in str(server.why)
        await server.restart()
        assert server.pid not in (None, before)
        now: tuple[object, ...] = (server.lost is lost, server.why)
        assert now == (False, None)
        await rpc_hello("127.0.0.1", server.port)


async def test_a_restart_takes_the_server_from_its_borrower(program: Path) -> None:
    """What the borrower had there is gone, its connection too, and nobody is told of a loss."""
    async with open_rpc_server(program, memory=200 << 20) as server:
        with borrower(server.port) as one:
            assert one.allocate(150 << 20)
            lost = server.lost
            await server.restart()
            one.socket.settimeout(5)
            with suppress(ConnectionError):
                assert one.socket.recv(1) == b""
        await trio.sleep(0.1)
        assert not lost.is_set()
        with borrower(server.port) as another:
            assert another.allocate(150 << 20)


async def test_a_port_that_was_taken_meanwhile_is_not_taken_for_ours(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server ends with exit code 0, while another one answers hello on that very port."""
    free = _rpc_server._free_port
    async with open_rpc_server(program) as first:
        ports = [first.port, free()]
        monkeypatch.setattr(_rpc_server, "_free_port", lambda: ports.pop(0))
        async with open_rpc_server(program) as second:
            assert second.port != first.port
            assert second.pid != first.pid
            assert not ports


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo Failed to create server socket >&2; exit 0",
            "ended with exit code 0; it printed: F",
        ),
        ("exit 3", "ended with exit code 3; it printed nothing"),
        ("sleep 60", "did not answer within 1 s: the RPC server at 127.0.0.1:"),
    ],
)
async def test_a_program_that_does_not_serve_is_named_with_its_words(
    tmp_path: Path, script: str, words: str
) -> None:
    """Exit code 0 is a failure like any other, since a server serves until it is told to end."""
    program = tmp_path / "rpc-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(BackendCrashed) as caught:
        async with open_rpc_server(program, start_timeout=1):
            pass
    assert words in str(caught.value)
    assert str(program) in str(caught.value)


@linux
async def test_a_server_that_a_script_starts_is_bounded_and_watched_itself(
    program: Path, tmp_path: Path
) -> None:
    """The script does nothing but wait for it."""
    wrapper = script(tmp_path / "rpc-server", f'{program} "$@"; exit $?')
    async with open_rpc_server(wrapper, threads=1, memory=200 << 20) as server:
        assert psutil.Process(server.pid).name() == program.name
        assert server.bound == "limit"
        with borrower(server.port) as one:
            assert one.allocate(150 << 20)
            assert not one.allocate(100 << 20)
        process = psutil.Process(server.pid)
        process.suspend()
        before = server.cpu_seconds()
        await trio.sleep(0.05)
        # The system counts what it was given until it had stopped.
        assert server.cpu_seconds() == pytest.approx(before, abs=0.05)
        process.kill()
        with trio.fail_after(2):
            await server.lost.wait()
    assert not process.is_running()


async def test_an_unknown_device_is_said_in_the_programs_words(program: Path) -> None:
    """It lists those that it has."""
    with pytest.raises(BackendCrashed, match="unknown device: CUDA7"):
        async with open_rpc_server(program, devices=["CUDA7"]):
            pass


@linux
async def test_a_cache_is_kept_where_it_was_said_and_nowhere_else(
    program: Path, tmp_path: Path
) -> None:
    """Each borrower has a folder of its own; without one, nothing is kept."""
    async with open_rpc_server(program, cache_folder=tmp_path) as server:
        assert (tmp_path / "rpc").is_dir()
        assert "--cache" in psutil.Process(server.pid).cmdline()
    async with open_rpc_server(program) as server:
        assert "--cache" not in psutil.Process(server.pid).cmdline()


@linux
async def test_a_stopped_server_uses_no_time(program: Path) -> None:
    """What tells a server that hangs from one that computes."""
    async with open_rpc_server(program) as server:
        process = psutil.Process(server.pid)
        process.suspend()
        before = server.cpu_seconds()
        with pytest.raises(BackendError, match="answers nothing"):
            await rpc_hello("127.0.0.1", server.port, patience=0.2)
        # The system counts what it was given until it had stopped.
        assert server.cpu_seconds() == pytest.approx(before, abs=0.05)
        process.resume()


@linux
@pytest.mark.parametrize(("share", "fits"), [(1.0, True), (0.5, False)])
async def test_what_a_plan_counts_is_enough_and_half_of_it_is_not(
    llama_cpp_folder: Path, program: Path, model_path: Path, share: float, fits: bool
) -> None:
    """All layers on one worker; a head that gets too little dies, and its worker lives on."""
    layout = layout_of(model_path)
    wants = Wants(context_tokens=1024, slots=1, mix=Mix(prompt_tokens=100, answer_tokens=10))
    weights = sum(layer.weights for layer in layout.layers) + layout.output
    counted = (
        weights
        + sum(_room.cache_bytes(layout, wants, slots=1, micro_batch=64))
        + _room.buffer_bytes(layout, wants, micro_batch=64, has_output=True)
        + _room.message_bytes(layout, weights)
    )
    head = await ask_program(llama_cpp_folder / "llama-server")
    async with open_rpc_server(program, threads=1, memory=int(counted * share)) as server:
        arguments = ["--rpc", f"127.0.0.1:{server.port}", "--device", "RPC0", "-ngl", "99"]
        try:
            async with open_head(head, model_path, [*arguments, "-ub", "64"], threads=1) as one:
                made = await one.make(prompt=200, answer=2)
            assert (fits, made.tokens) == (True, 2)
        except BackendCrashed:
            assert not fits
        assert not server.lost.is_set()
        await rpc_hello("127.0.0.1", server.port)


# ---- how fast it is ----


async def test_what_is_lent_is_measured_through_its_own_server(
    llama_cpp_folder: Path, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; what was measured is kept until the machine starts anew."""
    monkeypatch.setattr(_speeds, "_is_busy", lambda: False)
    server = llama_cpp_folder / "llama-server"
    (lent,) = await measure_lent(server, program, threads=1, cache_folder=tmp_path)
    assert 1e6 < lent.bandwidth < 1e12
    assert 1e7 < lent.compute < 1e13
    with trio.fail_after(0.1):
        assert await measure_lent(server, program, threads=1, cache_folder=tmp_path) == (lent,)
    own = await measure_device(server, threads=1, cache_folder=tmp_path)
    assert own.bandwidth > 1e6
    with pytest.raises(BackendCrashed, match="CUDA7"):
        await measure_device(server, "CUDA7")


# ---- whether an engine works ----


async def test_the_real_engine_makes_tokens_alone_and_over_rpc(
    llama_cpp_folder: Path, program: Path, model_path: Path, tmp_path: Path
) -> None:
    """With a model of zeros, and with a real one; a kept outcome is not tried again."""
    server = llama_cpp_folder / "llama-server"
    engine = Engine(server=server, rpc_server=program, origin="tests")
    found = await check_engine(engine, cache_folder=tmp_path)
    assert (found.makes_tokens, found.splits, found.troubles) == (True, True, ())
    assert found.rpc == RpcVersion(7, 0, 0)
    assert found.version
    assert fastest({engine: found}) == engine
    with trio.fail_after(0.1):
        assert await check_engine(engine, cache_folder=tmp_path, is_kept=True) == found
    real = await check_engine(engine, model=model_path)
    assert (real.makes_tokens, real.splits, real.speeds) == (True, True, None)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_an_engine_that_dies_of_the_first_token_does_not_work(
    llama_cpp_folder: Path, program: Path, tmp_path: Path
) -> None:
    """As one does that was built for another processor: its help and its hello are fine."""
    real = llama_cpp_folder / "llama-server"
    dies = script(
        tmp_path / "llama-server",
        f'case "$1" in --help|--version) exec {real} "$1";; esac; echo not ready; kill -ILL $$',
    )
    engine = Engine(server=dies, rpc_server=program, origin="tests")
    found = await check_engine(engine)
    assert (found.makes_tokens, found.splits) == (False, False)
    assert found.rpc == RpcVersion(7, 0, 0)
    assert found.version
    (trouble,) = found.troubles
    assert trouble.startswith("it makes no token: ")
    assert "ended with SIGILL; its last lines: not ready" in trouble
    assert fastest({engine: found}) is None


async def test_a_head_that_leaves_its_worker_out_does_not_split(
    llama_cpp_folder: Path, program: Path, tmp_path: Path
) -> None:
    """One of 5.x does that with a worker of another version, and says so in its log alone."""
    real = llama_cpp_folder / "llama-server"
    alone = script(
        tmp_path / "llama-server",
        'for each; do shift; case "$each" in --rpc|--device) skip=1;; '
        '*) [ "$skip" ] && skip= || set -- "$@" "$each";; esac; done; '
        f'exec {real} "$@"',
    )
    engine = Engine(server=alone, rpc_server=program, origin="tests")
    found = await check_engine(engine)
    assert (found.makes_tokens, found.splits) == (True, False)
    (trouble,) = found.troubles
    assert trouble.startswith("it does not split: it made a token without its RPC server")


async def test_an_engine_without_a_server_is_asked_what_it_can(program: Path) -> None:
    """A machine that only lends needs no more than its RPC server."""
    found = await check_engine(Engine(server=None, rpc_server=program, origin="tests"))
    assert (found.rpc, found.makes_tokens) == (RpcVersion(7, 0, 0), False)
    assert found.troubles == ("there is no llama-server beside it, so no token can be made",)


@linux
@pytest.mark.parametrize("has_group", [True, False])
async def test_where_no_limit_holds_the_advert_says_what_does(
    has_group: bool, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control group if there is one; else the bound is a promise, and so it is called."""

    @contextmanager
    def open_group(memory_bytes: int) -> Iterator[Path | None]:
        assert memory_bytes > 300 << 20
        yield tmp_path if has_group else None

    (tmp_path / "cgroup.procs").write_text("")
    monkeypatch.setattr(_rpc_server, "open_control_group", open_group)
    monkeypatch.setattr(_rpc_server.RpcServer, "_limit", lambda self, pid, memory: False)
    async with open_rpc_lender(program, memory=300 << 20, threads=1, measures=False) as lender:
        assert (await lender.survey()).bound == ("cgroup" if has_group else "promise")
    # The server had entered it: the kernel takes 0 for the process that writes.
    assert (tmp_path / "cgroup.procs").read_text() == ("0" if has_group else "")


@linux
async def test_a_server_is_in_a_control_group_of_its_own_where_the_system_allows_one(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bound as its limit; nothing of it is left when the server has ended."""
    with open_control_group(1 << 30) as group:
        if group is None:
            pytest.skip("no control group with a limit on memory can be made here (cgroup v2)")
    monkeypatch.setattr(_rpc_server.RpcServer, "_limit", lambda self, pid, memory: False)
    async with open_rpc_server(program, threads=1, memory=300 << 20) as server:
        assert server.bound == "cgroup"
        (line,) = [
            line
            for line in Path(f"/proc/{server.pid}/cgroup").read_text().splitlines()
            if line.startswith("0::")
        ]
        own = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
        assert own.name.startswith("punch-")
        assert 300 << 20 < int((own / "memory.max").read_text()) < 400 << 20
    assert not own.exists()


# ---- what a child is started with ----


@pytest.mark.skipif(sys.platform == "win32", reason="no guardian, no control groups")
async def test_a_child_enters_its_group_before_it_runs(tmp_path: Path) -> None:
    """The kernel takes 0 for the process that writes."""
    (tmp_path / "cgroup.procs").write_text("")
    argv = ["cat", str(tmp_path / "cgroup.procs")]
    async with open_child(argv, env={}, control_group=tmp_path) as child:
        assert await child.stdout.receive_some() == b"0"
        assert await child.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no guardian, no control groups")
async def test_a_child_whose_group_is_gone_is_not_run(tmp_path: Path) -> None:
    """Without its limit it would be a program that may use all memory."""
    async with open_child(["echo", "ran"], env={}, control_group=tmp_path / "gone") as child:
        assert await child.wait() == 127
        assert child.stderr is not None
        assert b"cannot run echo" in await child.stderr.receive_some()


@linux
@pytest.mark.parametrize("ignores", [False, True])
async def test_sigpipe_is_ignored_where_it_was_asked(ignores: bool) -> None:
    """Python ignores it for itself, and a program that expects the signal would not end."""
    argv = ["grep", "SigIgn", "/proc/self/status"]
    async with open_child(argv, env={}, ignores_sigpipe=ignores) as child:
        ignored = int((await child.stdout.receive_some()).split()[1], 16)
        assert bool(ignored & 1 << 12) == ignores
