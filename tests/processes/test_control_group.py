"""A control group for one child: where one can be made, and what is written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from punch.processes import open_control_group


def make_tree(tmp_path: Path, *, given: dict[str, str], own: str = "0::/a/b\n") -> dict[str, Path]:
    """A tree of groups, with the controllers that the groups in each have; for the arguments."""
    tree = tmp_path / "cgroup"
    for name, controllers in given.items():
        (tree / name).mkdir(parents=True, exist_ok=True)
        (tree / name / "cgroup.subtree_control").write_text(controllers)
    (tmp_path / "own").write_text("4:memory:/v1\n" + own)
    return {"tree": tree, "ours": tmp_path / "own"}


def remove(group: Path) -> None:
    """What the kernel does with the files of a group when its folder is removed."""
    for file in group.iterdir():
        file.unlink()


def test_the_group_is_made_in_our_own_if_that_has_limits(tmp_path: Path) -> None:
    """It has the limit, no swap beyond it, and its processes end together."""
    tree = make_tree(tmp_path, given={"a/b": "cpu memory\n", "a": "memory\n"})
    with open_control_group(123456, **tree) as group:
        assert group is not None
        assert group.parent == tree["tree"] / "a" / "b"
        assert {file.name: file.read_text() for file in group.iterdir()} == {
            "memory.max": "123456",
            "memory.swap.max": "0",
            "memory.oom.group": "1",
        }
        remove(group)
    assert not group.exists()


def test_a_group_with_processes_has_the_new_one_beside_it(tmp_path: Path) -> None:
    """As it is in a service to which systemd has delegated its group."""
    tree = make_tree(tmp_path, given={"a/b": "\n", "a": "memory pids\n"})
    with open_control_group(1, **tree) as group:
        assert group is not None
        assert group.parent == tree["tree"] / "a"
        remove(group)


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"a/b": "cpu\n", "a": "cpu\n", "": "memory\n"}, "0::/a/b\n"),
        ({"": "cpu\n"}, "0::/\n"),
        ({"": "memory\n"}, "0::/../..\n"),
        ({"a/b": "memory\n"}, ""),
        ({"a/b": "memory\n"}, "garbage\n"),
    ],
)
def test_there_is_none_where_none_can_be_made(
    tmp_path: Path, given: dict[str, str], own: str
) -> None:
    """Then nothing is made anywhere, and the caller gets `None`."""
    tree = make_tree(tmp_path, given=given, own=own)
    with open_control_group(1, **tree) as group:
        assert group is None
    assert not list(tree["tree"].rglob("punch-*"))


def test_nothing_is_left_of_a_group_that_cannot_be_limited(tmp_path: Path) -> None:
    """A folder in which the kernel makes no such file is no control group."""
    tree = make_tree(tmp_path, given={"a/b": "memory\n", "a": ""})

    class Number(int):
        def __str__(self) -> str:
            raise OSError

    with open_control_group(Number(1), **tree) as group:
        assert group is None
    assert not list(tree["tree"].rglob("punch-*"))
