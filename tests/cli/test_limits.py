"""What a listener says at its start of limits that mean nobody, several, or nothing on offer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from punch.access import Issuer, Lock
from punch.admission import Caps
from punch.capability import Capability, Lane, ModelOffer
from punch.cli import Place
from punch.cli._limits import caps_of_members, warn_of_models, warn_of_names
from punch.exceptions import ConfigurationError
from punch.libp2p import load_key, verify
from punch.membership import DiskMembership, create_home, remove_member, rename_member
from punch.membership._home import record_of, salted
from punch.membership._members import add_members
from punch.settings import ListenerSettings, load, parse_flags

LIMIT = Caps(max_output=5)


@pytest.fixture
def membership(tmp_path: Path) -> DiskMembership:
    home = create_home("home", called="attic", now=time.time(), parent=tmp_path / "namespaces")
    return DiskMembership(home, tmp_path / "process")


def join(membership: DiskMembership, key: Path, *, called: str, kept: str) -> str:
    """A machine that people call *called*; it is known here as *kept*. Its identity."""
    home, now = membership.home, membership.now()
    root, guest = home.root_key(), load_key(key)
    assert root is not None
    chain = Issuer(key=root.peer_id, sign=root.sign).issue(
        Lock(home.namespace, verify),
        guest.peer_id,
        now=now,
        kind="admin",
        scopes={"dial", "admin"},
        name=salted(called),
    )
    add_members(home.folder, [record_of(chain, called=kept, now=now)])
    return guest.peer_id


Warned = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def warned(membership: DiskMembership, caplog: pytest.LogCaptureFixture) -> Warned:
    """What is said of limits that name these members."""

    def warned(*names: str) -> list[dict[str, Any]]:
        caplog.clear()
        warn_of_names(dict.fromkeys(names, LIMIT), membership)
        return lines(caplog)

    return warned


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        {"level": record.levelname.lower(), **record.msg}
        for record in caplog.records
        if isinstance(record.msg, dict)
    ]


def test_a_limit_of_nobody_is_said(
    membership: DiskMembership, tmp_path: Path, warned: Warned
) -> None:
    """Also of one that was removed; not of one that is known by any of its names."""
    (line,) = warned("labtop")
    assert (line["member"], line["level"]) == ("labtop", "warning")
    assert "no member that this machine has heard of" in line["event"]
    identity = join(membership, tmp_path / "laptop", called="laptop", kept="laptop")
    hidden = join(membership, tmp_path / "tv", called="tv", kept="")
    rename_member(membership.home, hidden, "television")
    assert warned("laptop", identity, "tv", "television") == []
    remove_member(membership.home, identity)
    membership.look()
    (line,) = warned("laptop")
    assert "no member" in line["event"]


def test_a_limit_of_several_is_said_with_their_identities(
    membership: DiskMembership, tmp_path: Path, warned: Warned
) -> None:
    """It holds for each of them."""
    both = {join(membership, tmp_path / key, called="laptop", kept="") for key in ("a", "b")}
    (line,) = warned("laptop")
    assert "names several members, and holds for each" in line["event"]
    assert set(line["machines"]) == both


@pytest.mark.parametrize("by_name", [True, False])
def test_a_limit_of_this_machine_is_said(
    membership: DiskMembership, by_name: bool, warned: Warned
) -> None:
    """Its programs are never limited."""
    name = "attic" if by_name else membership.home.machine
    (line,) = warned(name)
    assert "names this machine" in line["event"]


def test_a_limit_to_models_that_are_not_here_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """With those that are."""
    capability = Capability(
        lanes=(Lane(id="mock", backend="mock", simulated=True),),
        models=(ModelOffer(name="Llama3.2-1b.gguf", lane="mock"),),
    )
    limits = {
        "good": Caps(models=frozenset({"llama*", "llama3.2-1b"})),
        "slip": Caps(models=frozenset({"lama*"})),
        "none": LIMIT,
    }
    warn_of_models(limits, capability)
    (line,) = lines(caplog)
    assert (line["member"], line["models"]) == ("slip", ["lama*"])
    assert line["offered"] == ["Llama3.2-1b.gguf"]


def settings(*typed: str) -> ListenerSettings:
    flags = parse_flags("listener", "", ListenerSettings, typed)
    return load(ListenerSettings, flags, {})


def test_the_limits_become_caps(membership: DiskMembership) -> None:
    """Of a closed namespace; a member once, and not too many."""
    place = Place(name="home", home=membership.home)
    found = caps_of_members(settings("--limit", "a,tokens=5,hours=22-7,model=x*"), place)
    assert found == {"a": Caps(max_output=5, hours=(22, 7), models=frozenset({"x*"}))}
    with pytest.raises(ConfigurationError, match="--limit names 'a' twice"):
        caps_of_members(settings("--limit", "a,tokens=5", "--limit", "a,priority=1"), place)
    many = [word for n in range(257) for word in ("--limit", f"m{n},tokens=5")]
    with pytest.raises(ConfigurationError, match="limits 257 members, and 256 are the most"):
        caps_of_members(settings(*many), place)


def test_there_are_none_in_an_open_namespace() -> None:
    """The error says what to do in place of it."""
    place = Place(name="default", home=None)
    assert caps_of_members(settings(), place) == {}
    with pytest.raises(ConfigurationError, match=r"default is open: .*\(--stranger-tokens"):
        caps_of_members(settings("--limit", "a,tokens=5"), place)
