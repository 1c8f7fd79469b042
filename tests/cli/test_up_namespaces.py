"""The namespaces of `punch up` on disk: made once, entered again, dropped when not needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from punch import create_namespace
from punch.cli.up import _namespaces
from punch.cli.up._namespace_choice import LAST, MADE
from punch.cli.up._namespaces import KnownMembers, drop_unused, find_place, mark_last
from punch.membership import Home, MemberStatus, homes, list_members
from punch.settings import NetworkSettings


def names(folder: Path) -> list[str]:
    """The namespaces that are left."""
    return [home.namespace.name for home in homes(folder)]


def test_a_namespace_is_made_once(tmp_path: Path) -> None:
    """And entered from then on; it bears the mark by which it may be dropped."""
    place, is_new = find_place(NetworkSettings(), folder=tmp_path)
    assert is_new
    assert place.home is not None
    assert place.home.folder.exists(MADE)
    again, is_new = find_place(NetworkSettings(), folder=tmp_path)
    assert not is_new
    assert str(again) == str(place)


def test_only_one_namespace_is_the_last(tmp_path: Path) -> None:
    """Of several, `up` starts in that one."""
    first, second = (create_namespace(name, called="desk", folder=tmp_path) for name in "ab")
    for home in (first, second):
        mark_last(home, folder=tmp_path)
    assert not first.folder.exists(LAST)
    place, _ = find_place(NetworkSettings(), folder=tmp_path)
    assert str(place) == str(second.namespace)


def test_what_was_joined_while_none_ran_is_entered(tmp_path: Path) -> None:
    """The one that `up` had made, and nobody else is in, is no reason to ask."""
    find_place(NetworkSettings(), folder=tmp_path)
    joined = create_namespace("office", called="desk", folder=tmp_path)
    place, is_new = find_place(NetworkSettings(), folder=tmp_path)
    assert not is_new
    assert str(place) == str(joined.namespace)


async def test_what_up_has_made_is_dropped_when_it_moves(tmp_path: Path) -> None:
    """What a person has made stays."""
    made, _ = find_place(NetworkSettings(), folder=tmp_path)
    create_namespace("mine", called="desk", folder=tmp_path)
    joined = create_namespace("office", called="desk", folder=tmp_path)
    assert await drop_unused(folder=tmp_path, but=joined) == (str(made),)
    assert names(tmp_path) == ["mine", "office"]
    assert await drop_unused(folder=tmp_path, but=joined) == ()


async def test_the_namespace_that_it_is_in_is_never_dropped(tmp_path: Path) -> None:
    """Though it has made it and nobody else is there."""
    place, _ = find_place(NetworkSettings(), folder=tmp_path)
    assert place.home is not None
    assert await drop_unused(folder=tmp_path, but=place.home) == ()
    assert names(tmp_path) == ["home"]


async def test_members_are_read_again_only_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked twice a second, and each grant takes a while to verify."""
    reads: list[Home] = []

    def counted(home: Home) -> tuple[MemberStatus, ...]:
        reads.append(home)
        return list_members(home)

    monkeypatch.setattr(_namespaces, "list_members", counted)
    home = create_namespace("home", called="desk", folder=tmp_path)
    known = KnownMembers()
    await known.look()
    assert not list(known.members)
    known.follow(home)
    for _ in range(3):
        await known.look()
    assert [each.name for each in known.members] == ["desk"]
    assert len(reads) == 1
    home.folder.write("members.json", home.folder.read("members.json") or b"")
    await known.look()
    assert len(reads) == 2
