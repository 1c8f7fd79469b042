"""The file of the running punch: for this user alone, gone with the program, and never mistaken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

from punch.admin._door import FILE, LOCK_FILE, Door, claimed, read_door, shown
from punch.exceptions import ConfigurationError
from punch.processes import ProcessMark


def write(folder: Path, **other: object) -> None:
    """A file such as a program writes it, but for what is *other*."""
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    said = {"port": 4000, "token": "ab", **attrs.asdict(mark), **other}
    (folder / FILE).write_text(json.dumps(said))


def test_the_file_is_there_for_as_long_as_the_program_and_for_its_user_alone(
    tmp_path: Path,
) -> None:
    """Nobody else can read the token, not even while it is written."""
    folder = tmp_path / "new" / "admin"
    before = os.umask(0)
    try:
        with claimed(folder):
            door = Door.at(4000)
            assert read_door(folder) is None
            with shown(folder, door):
                assert read_door(folder) == door
                modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
                assert modes == {FILE: 0o600, LOCK_FILE: 0o600}
            assert not (folder / FILE).exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_others_may_look_into_is_closed(tmp_path: Path) -> None:
    """Also where it was there before."""
    folder = tmp_path / "admin"
    folder.mkdir()
    folder.chmod(0o777)
    with claimed(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_every_program_has_a_token_of_256_bits_that_no_text_of_it_shows() -> None:
    """It is in no log by accident."""
    one, other = Door.at(4000), Door.at(4000)
    assert one.token != other.token
    assert len(bytes.fromhex(one.token)) == 32
    assert one.token not in repr(one)


def test_two_programs_do_not_serve_one_folder(tmp_path: Path) -> None:
    """The second is told of the first, and leaves its file alone."""
    with claimed(tmp_path), shown(tmp_path, Door.at(4000)):
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} .*`punch down`"):
            with claimed(tmp_path):
                raise AssertionError
        assert read_door(tmp_path) is not None
    with claimed(tmp_path):
        assert read_door(tmp_path) is None


def test_what_a_killed_program_has_left_is_no_door(tmp_path: Path) -> None:
    """Its number may be another's by now, and so may its port."""
    write(tmp_path)
    assert read_door(tmp_path) is not None
    write(tmp_path, start="0")
    assert read_door(tmp_path) is None
    write(tmp_path, boot="another")
    assert read_door(tmp_path) is None
    # The next program has its own there, and takes it away.
    with claimed(tmp_path), shown(tmp_path, Door.at(4001)):
        assert getattr(read_door(tmp_path), "port", None) == 4001


def test_the_file_of_another_is_left_alone(tmp_path: Path) -> None:
    """Whoever wrote it since runs, perhaps."""
    with shown(tmp_path, Door.at(4000)):
        write(tmp_path, port=4001)
    assert getattr(read_door(tmp_path), "port", None) == 4001


@pytest.mark.parametrize(
    "other",
    [
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"port": "4000"},
        {"token": None},
        {"pid": -1},
        {"pid": 1.5},
        {"start": 5},
        {"padding": "x" * 2000},
    ],
)
def test_a_file_that_makes_no_sense_is_no_door(tmp_path: Path, other: dict[str, object]) -> None:
    """Whatever is wrong in it."""
    write(tmp_path, **other)
    assert read_door(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 1000, b"\xff", b"null", b"{}"])
def test_a_file_that_is_none_of_ours_is_no_door(tmp_path: Path, data: bytes) -> None:
    """Whatever is in it."""
    (tmp_path / FILE).write_bytes(data)
    assert read_door(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With what can be done about it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/admin cannot be used: .*XDG_DATA_HOME"):
        with claimed(tmp_path / "file" / "admin"):
            raise AssertionError


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        with shown(tmp_path, Door.at(4000)):
            raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
