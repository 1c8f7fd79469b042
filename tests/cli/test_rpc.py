"""`punch rpc`, and who of the RPC servers that run already may be used: what is decided of them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
import trio
import trio.testing

from punch.__main__ import _run
from punch.cli import ExitCode
from punch.cli.splits import _rpc
from punch.cli.splits._lenders import foreign_lenders
from punch.cli.splits._rpc_looking import MAX_ADDRESSES, Seen, search_of
from punch.cluster.coordinator import ForeignLender, PlainSpeeds
from punch.cluster.coordinator import _plain as plain
from punch.exceptions import BackendError, ConfigurationError
from punch.llama_cpp import RpcDevice, RpcFacts, RpcVersion, Speeds
from punch.network import own_address
from punch.settings import PlainRpcSettings, load, parse_flags

HOME = ipaddress.ip_network("192.168.1.0/24")
BRIDGE = ipaddress.ip_network("172.17.0.0/16")
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")

FACTS = RpcFacts(
    version=RpcVersion(7, 0, 0),
    devices=(
        RpcDevice(total_bytes=8 << 30, free_bytes=8 << 30),
        RpcDevice(total_bytes=8 << 30, free_bytes=5 << 30),
    ),
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file; and servers that answer without a network."""
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("PUNCH_SETTINGS", str(path))
    monkeypatch.delenv("LLAMA_RPC_BACKENDS", raising=False)

    async def ask(place: str) -> Seen:
        return Seen(place=place, facts=FACTS)

    monkeypatch.setattr(_rpc, "ask", ask)

    async def own(host: str) -> str | None:
        named = {"gpu-box": "192.168.1.30"}.get(host, host)
        return named if named.startswith("192.168.1.") else None

    monkeypatch.setattr(_rpc, "own_address", own)
    return path


def test_servers_are_kept_listed_and_taken_away(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each once; and each time it is said that nobody proves who they are."""
    for _ in range(2):
        assert _run(["rpc", "add", "192.168.1.20:50052", "192.168.1.21:50052"]) == ExitCode.OK
    assert 'backend = ["192.168.1.20:50052", "192.168.1.21:50052"]' in path.read_text()
    capsys.readouterr()

    assert _run(["rpc", "list"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert "192.168.1.20:50052  RPC 7.0.0  2 devices, " in shown.out
    assert shown.out.count("unauthenticated") == 2
    assert "punch settings set rpc.allow_plain true" in shown.err

    assert _run(["settings", "set", "rpc.allow_plain", "true"]) == ExitCode.OK
    assert _run(["rpc", "remove", "192.168.1.20:50052"]) == ExitCode.OK
    assert _run(["rpc", "list", "--json"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert '"authenticated": false' in shown.out
    assert "not allowed" not in shown.err

    assert _run(["rpc", "remove", "192.168.1.20:50052"]) == ExitCode.USAGE
    assert "there is no RPC server 192.168.1.20:50052" in capsys.readouterr().err
    assert _run(["rpc", "remove", "192.168.1.21:50052"]) == ExitCode.OK
    assert _run(["rpc", "list"]) == ExitCode.OK
    assert "no RPC server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("8.8.8.8:50052", "in no private network of this machine"),
        ("another-box:50052", "in no private network of this machine"),
        ("192.168.1.20", "write the address and the port"),
        ("192.168.1.20:70000", "write the address and the port"),
        ("192.168.1:50052", "write the address and the port"),
        ("gpu box:50052", "write the address and the port"),
    ],
)
def test_what_is_no_server_of_an_own_network_is_not_kept(
    path: Path, capsys: pytest.CaptureFixture[str], place: str, words: str
) -> None:
    """And nothing is asked of it."""
    assert _run(["rpc", "add", place]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not path.exists()


def test_a_server_may_be_kept_by_its_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked is the address that the name has in an own network then."""
    assert _run(["rpc", "add", "gpu-box:50052"]) == ExitCode.OK
    assert 'backend = ["gpu-box:50052"]' in path.read_text()
    assert "gpu-box:50052  RPC 7.0.0" in capsys.readouterr().out


def test_a_variable_that_hides_the_file_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable that other programs of llama.cpp's users have, with commas in it."""
    monkeypatch.setenv("LLAMA_RPC_BACKENDS", "192.168.1.5:50052,192.168.1.6:50052")
    assert _run(["rpc", "add", "192.168.1.20:50052"]) == ExitCode.OK
    assert "LLAMA_RPC_BACKENDS is set in this shell" in capsys.readouterr().err
    assert _run(["rpc", "list"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == [
        "192.168.1.5:50052",
        "192.168.1.6:50052",
    ]


def test_a_search_looks_at_the_own_networks_and_at_no_other() -> None:
    """Loopback stands for this machine; a network that is too big is named and left out."""
    found = search_of((), [LOOPBACK, HOME, BRIDGE], ["127.0.0.1", "192.168.1.7"])
    assert found.addresses[:3] == ("127.0.0.1", "192.168.1.1", "192.168.1.2")
    assert len(found.addresses) == 254
    assert "192.168.1.7" not in found.addresses
    assert found.skipped == (BRIDGE,)

    part = ipaddress.ip_network("172.17.4.0/30")
    assert search_of([part], [HOME, BRIDGE], []).addresses == (
        "127.0.0.1",
        "172.17.4.1",
        "172.17.4.2",
    )


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("8.8.8.0/24", "others' are not searched"),
        ("192.168.0.0/16", "others' are not searched"),
        ("fd00::/64", "others' are not searched"),
        ("172.17.0.0/16", f"and {MAX_ADDRESSES:,} are the most of one search"),
    ],
)
def test_a_network_of_others_or_without_an_end_is_not_searched(named: str, words: str) -> None:
    """Whatever was typed."""
    with pytest.raises(ConfigurationError, match=words):
        search_of([ipaddress.ip_network(named)], [HOME, BRIDGE], [])


# ---- who may be used ----


def typed(*arguments: str, **environment: str) -> PlainRpcSettings:
    flags = parse_flags("punch plan", "Plan.", PlainRpcSettings, arguments)
    return load(PlainRpcSettings, flags, environment)


def test_a_server_that_is_typed_needs_the_word_that_allows_it() -> None:
    """Whoever types it learns what it means; it may be typed several times."""
    one, other = "--rpc-backend=127.0.0.1:50052", "--rpc-backend=localhost:50053"
    with pytest.raises(ConfigurationError, match="say --allow-plain-rpc too"):
        foreign_lenders(typed(one))
    found = foreign_lenders(typed(one, other, one, "--allow-plain-rpc"))
    assert [each.name for each in found] == [
        "unauthenticated@127.0.0.1:50052",
        "unauthenticated@127.0.0.1:50053",
    ]


async def test_how_fast_a_server_is_nobody_knows_so_it_is_taken_for_a_slow_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A quarter of this machine, or a slow processor: no model that fits here is given away."""

    async def hello(*_: object, **__: object) -> RpcFacts:
        return FACTS

    monkeypatch.setattr(plain, "rpc_hello", hello)
    words = ("--rpc-backend=127.0.0.1:50052", "--allow-plain-rpc")
    for here, expected in ((Speeds(bandwidth=4e9, compute=8e9), (1e9, 2e9)), (FAST, (10e9, 50e9))):
        (lender,) = foreign_lenders(typed(*words), here=here)
        device = (await lender.survey()).devices[0]
        assert (device.bandwidth, device.compute) == expected


async def test_a_server_of_the_variable_is_left_out_with_the_reason() -> None:
    """It may be there for another program, so nothing fails."""
    (lender,) = foreign_lenders(typed(LLAMA_RPC_BACKENDS="127.0.0.1:50052"))
    with pytest.raises(BackendError, match="--allow-plain-rpc allows it"):
        await lender.survey()
    with pytest.raises(BackendError, match="--allow-plain-rpc allows it"):
        async with lender.take():
            pass


async def test_a_server_of_another_network_is_asked_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where it was kept in a network that this machine has left."""

    async def never(*_: object, **__: object) -> RpcFacts:
        raise AssertionError("asked")

    monkeypatch.setattr(plain, "rpc_hello", never)

    async def nowhere(_: str) -> None:
        return None

    monkeypatch.setattr(plain, "own_address", nowhere)
    lender = ForeignLender("192.168.1.20:50052", speeds=SPEEDS, is_allowed=True)
    with pytest.raises(BackendError, match="in no private network of this machine"):
        await lender.survey()


FAST = Speeds(bandwidth=1e12, compute=1e13)
SPEEDS = PlainSpeeds(bandwidth=1e9, compute=1e9)


async def test_an_own_address_is_one_of_this_machine_or_its_networks() -> None:
    """No address of strangers is one."""
    assert await own_address("127.0.0.1") == "127.0.0.1"
    assert await own_address("::1") == "::1"
    assert await own_address("8.8.8.8") is None


async def test_what_answers_is_nobodys_own_and_unauthenticated(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Also at a port of loopback, which may lead anywhere; a processor has never all of it free."""

    async def hello(host: str, port: int, **words: object) -> RpcFacts:
        assert (host, port, words["outlives"]) == ("127.0.0.1", 50052, True)
        await trio.sleep(0.05)
        return FACTS

    monkeypatch.setattr(plain, "rpc_hello", hello)
    found = await ForeignLender("127.0.0.1:50052", speeds=SPEEDS, is_allowed=True).survey()
    assert (found.is_own, found.is_authenticated) == (False, False)
    assert [device.memory for device in found.devices] == [6 << 30, 5 << 30]
    assert found.link.rtt == pytest.approx(0.01)
