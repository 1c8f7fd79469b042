"""Lines of the log on a terminal: what a peer has said is shown, and obeyed by no terminal."""

from __future__ import annotations

import logging

import pytest

from punch.cli._logs import log_formatter


@pytest.mark.parametrize("as_json", [False, True])
def test_no_words_of_a_library_reach_a_terminal_as_commands(as_json: bool) -> None:
    """Libraries put what a peer has said into the event itself."""
    record = logging.LogRecord(
        "h11", logging.WARNING, __file__, 1, "peer said %s", ("\x1b]0;x\x07\x9b31m",), None
    )
    line = log_formatter(as_json=as_json).format(record)
    assert "peer said \ufffd]0;x\ufffd\ufffd31m" in line
    assert not {"\x07", "\x9b"} & set(line)
