"""Whose program has connected over loopback is read from the system's own table."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from punch.network import _callers, is_of_this_user
from punch.network._callers import owner_in

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
CLIENT, SERVER = ("127.0.0.1", 0x9C40), ("127.0.0.1", 0x2CAB)


def row(client: str, server: str, *, state: str = "01", user: str = "1000") -> str:
    """A row as Linux has it on a processor that writes the low byte first."""
    return f"   7: {client} {server} {state} 00000000:00000000 00:00000000 00000000  {user}  0 99 1"


little = pytest.mark.skipif(sys.byteorder == "big", reason="its table has the words another way")


@little
@pytest.mark.parametrize(
    ("rows", "owner"),
    [
        ([row("0100007F:9C40", "0100007F:2CAB")], 1000),
        # Our own end of it is the other way round, and has our number.
        ([row("0100007F:2CAB", "0100007F:9C40", user="5"), row("0100007F:9C40", "0100007F:2CAB")],
         1000),
        # Of a socket of version 6.
        ([row("0000000000000000FFFF00000100007F:9C40", "0000000000000000FFFF00000100007F:2CAB")],
         1000),
        # What is closed, or half so, has no program, and is shown as root's.
        ([row("0100007F:9C40", "0100007F:2CAB", state="06", user="0")], None),
        ([row("0100007F:9C40", "0100007F:2CAB", state="05", user="0")], None),
        ([row("0200007F:9C40", "0100007F:2CAB", user="0")], None),
        ([row("0100007F:9C41", "0100007F:2CAB", user="0")], None),
        (["", "1 2 3", row("0100007F:9C40", "0100007F:2CAB", user="-")], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_owner_is_who_has_the_callers_end(rows: list[str], owner: int | None) -> None:
    """And no other row counts, whatever it says."""
    assert owner_in([HEAD, *rows], CLIENT, SERVER) == owner


@little
def test_the_owner_of_a_connection_of_version_6_is_found() -> None:
    """Its address has four words."""
    loopback = "00000000000000000000000001000000"
    rows = [HEAD, row(f"{loopback}:9C40", f"{loopback}:2CAB")]
    assert owner_in(rows, ("::1", CLIENT[1]), ("::1", SERVER[1])) == 1000


@contextmanager
def connected(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A real connection over loopback: the caller's end, and ours."""
    with socket.create_server((host, 0), family=_family(host)) as server:
        with closing(socket.create_connection(server.getsockname()[:2])) as client:
            with closing(server.accept()[0]) as ours:
                yield client, ours


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_real_connection_is_this_users_and_no_other(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the program that made it has it."""
    with connected(host) as (client, ours):
        ends = client.getsockname()[:2], ours.getsockname()[:2]
        assert is_of_this_user(*ends)
        monkeypatch.setattr(_callers, "_ROOT", -1)
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        assert not is_of_this_user(*ends)
        monkeypatch.undo()
        client.close()
        assert not is_of_this_user(*ends)


def test_where_the_system_does_not_say_everybody_at_this_machine_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is with macOS and Windows."""
    monkeypatch.setattr(_callers, "_TABLES", (Path("/nowhere/tcp"),))
    assert is_of_this_user(CLIENT, SERVER)
