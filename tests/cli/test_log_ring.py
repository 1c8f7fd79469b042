"""The last lines of the log are kept, from whichever thread; and a file of it is bounded."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from punch._logs import get_logger
from punch.admin import Call
from punch.cli.running import _log_file
from punch.cli.running._log_file import last_lines, open_log_file
from punch.cli.running._log_handler import LINES_AT_ONCE, logs_of
from punch.cli.running._log_kept import open_kept_log
from punch.cli.running._ring import MAX_LINES, LogRing, open_log_ring
from punch.exceptions import ConfigurationError

log = get_logger("punch.test")


@pytest.fixture(autouse=True)
def all_is_logged(_logging_as_it_was: None) -> None:
    logging.getLogger("punch").setLevel(logging.INFO)


def numbers(lines: Any) -> list[str]:
    """The numbers that the lines of a test have."""
    return [line["fields"]["number"] for line in lines]


async def test_the_last_lines_are_kept_and_no_more() -> None:
    """The oldest go first, and how many are missing is known."""
    with open_log_ring() as ring:
        for number in range(MAX_LINES + 5):
            log.info("a line", number=number)
        lost, lines = ring.since(0)
        assert lost == 5
        assert numbers(lines) == [str(number) for number in range(5, MAX_LINES + 5)]
        assert numbers(ring.since(ring.written - 2)[1]) == [f"{MAX_LINES + 3}", f"{MAX_LINES + 4}"]
        assert ring.since(ring.written) == (0, [])


async def test_a_line_has_fields_and_of_an_exception_its_kind_alone() -> None:
    """Its text may repeat what a caller asked, or a secret."""
    with open_log_ring() as ring:
        try:
            raise ValueError("sk-punch-secret")
        except ValueError:
            log.exception("it failed", peer="kitchen", long="x" * 5000)
        (line,) = ring.since(0)[1]
    assert (line["event"], line["level"]) == ("it failed", "error")
    assert line["fields"]["peer"] == "kitchen"
    assert line["fields"]["exception"] == "ValueError"
    assert len(line["fields"]["long"]) < 400
    assert "secret" not in json.dumps(line)


async def test_lines_of_other_threads_are_kept_and_wake_who_waits() -> None:
    """A backend logs from a thread of its own."""
    with trio.fail_after(20), open_log_ring() as ring:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ring.wait, 0)
            await wait_all_tasks_blocked()
            threading.Thread(target=log.info, args=("a line",), kwargs={"number": 1}).start()
        assert numbers(ring.since(0)[1]) == ["1"]


async def test_a_line_that_cannot_be_shown_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What logs it continues; and after the end nothing is kept."""

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    with open_log_ring() as ring:
        ring.emit(logging.LogRecord("punch.test", logging.INFO, "", 0, Odd(), None, None))
        assert ring.written == 0
    log.warning("after the end")
    assert ring.written == 0


async def told(ring: LogRing, into: list[dict[str, Any]], **arguments: object) -> None:
    """Have the handler tell the lines."""

    async def tell(value: dict[str, Any]) -> None:
        into.append(value)

    await logs_of(ring)(Call(arguments=arguments, tell=tell))


@pytest.mark.parametrize(("lines", "count"), [(0, 0), (3, 3), (500, 120), (None, 120), (-1, 120)])
async def test_as_many_lines_are_told_as_were_asked_for(lines: object, count: int) -> None:
    """In messages that are never too large."""
    with open_log_ring() as ring:
        for number in range(120):
            log.info("a line", number=number)
        values: list[dict[str, Any]] = []
        await told(ring, values, lines=lines)
    assert all(len(value["lines"]) <= LINES_AT_ONCE for value in values)
    found = [number for value in values for number in numbers(value["lines"])]
    assert found == [str(number) for number in range(120 - count, 120)]


async def test_who_follows_is_told_each_line_once_and_what_was_lost(
    autojump_clock: MockClock,
) -> None:
    """From the lines that were asked for, without a gap that is not told of."""
    with open_log_ring() as ring:
        for number in range(3):
            log.info("a line", number=number)
        values: list[dict[str, Any]] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                await told(ring, values, lines=1, follow=True)

            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            log.info("a line", number="next")
            await wait_all_tasks_blocked()
            assert [numbers(value["lines"]) for value in values] == [["2"], ["next"]]
            assert [value["lost"] for value in values] == [0, 0]
            for number in range(MAX_LINES + 7):
                log.info("a line", number=number)
            await wait_all_tasks_blocked()
            assert values[2]["lost"] == 7
            assert all(value["lost"] == 0 for value in values[3:])
            nursery.cancel_scope.cancel()


async def test_the_log_of_a_program_without_a_terminal_is_bounded_and_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew before it is too big, and keeps what came before; standard error has none."""
    monkeypatch.setattr(_log_file, "MAX_LOG_BYTES", 2000)
    path = tmp_path / "new" / "up.log"
    shown = logging.getLogger().handlers[:]
    before = os.umask(0)
    try:
        with open_kept_log("warning", path):
            assert not set(shown) & set(logging.getLogger().handlers)
            for number in range(200):
                log.info("a line", number=number)
    finally:
        os.umask(before)
    assert logging.getLogger().handlers == shown
    files = sorted(path.parent.iterdir())
    assert [each.name for each in files] == ["up.log", "up.log.1", "up.log.2"]
    assert all(each.stat().st_size <= 2000 for each in files)
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in files)
    last = last_lines(path, 3)
    assert [json.loads(line)["number"] for line in last] == [197, 198, 199]
    assert last_lines(path, 0) == []
    assert last_lines(tmp_path / "none", 3) == []


async def test_more_is_kept_than_is_shown_and_the_level_may_change() -> None:
    """Whoever asks later finds more than the warnings; a debug line is kept if it is shown."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger().addHandler(handler)
    with open_kept_log("warning") as kept:
        log.debug("a line", number=1)
        log.info("a line", number=2)
        log.warning("a line", number=3)
        assert numbers(kept.ring.since(0)[1]) == ["2", "3"]
        kept.set_level("debug")
        log.debug("a line", number=4)
        kept.set_level("error")
        log.warning("a line", number=5)
        assert numbers(kept.ring.since(2)[1]) == ["4", "5"]
    assert re.findall(r"'number': (\d)", shown.getvalue()) == ["3", "4"]
    assert handler.level == logging.NOTSET
    assert logging.getLogger("punch").level == logging.INFO


def test_of_a_large_log_whole_lines_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the half with which the reading began."""
    monkeypatch.setattr(_log_file, "MAX_TAIL_BYTES", 25)
    (tmp_path / "up.log").write_text("".join(f"line {number}\n" for number in range(10, 99)))
    assert last_lines(tmp_path / "up.log", 10) == ["line 96", "line 97", "line 98"]


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/up.log cannot be written: .*--log-file"):
        open_log_file(tmp_path / "file" / "up.log")
