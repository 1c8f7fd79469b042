"""One line for each request."""

from __future__ import annotations

import logging

import pytest
import request_records as records
import trio
from trio.testing import MockClock

from punch.cli._logs import configure_logging
from punch.events import RequestRefused
from punch.gateway import CanonicalLog
from punch.gateway.telemetry._canonical import fields_of


def test_it_has_everything_and_always_the_same_fields() -> None:
    """So that a million of them make a table."""
    assert fields_of(records.continued()) == {
        "request_id": "long-1",
        "endpoint": "/v1/chat/completions",
        "key": "ada",
        "model": "smollm2",
        "stream": True,
        "status": 200,
        "error": None,
        "peer": records.continued().peer_id,
        "provenance": "real",
        "backend": "llama_cpp",
        "answered_by": "smollm2",
        "prompt_tokens": 420,
        "completion_tokens": 161,
        "seconds": 17.6,
        "first_token_seconds": 0.6,
        "decisions": 2,
        "attempts": 1,
        "segments": 2,
    }
    refused = records.easy(
        key_id=None, status=401, error_code="unauthorized", provenance=None, peer_id=None,
        first_text_at=None, decisions=(), segments=(), tokens=0,
    )  # fmt: skip
    assert list(fields_of(refused)) == list(fields_of(records.easy()))


def test_it_is_one_line_whatever_the_caller_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name is anybody's text; and it is cut."""
    configure_logging("info", as_json=True)
    log = CanonicalLog()
    record = records.easy(model="a\nb\u2028\x1b[2J" + 5000 * "x")
    for event in records.life(record):
        log.hear(event)
    written = capsys.readouterr().err

    assert len(written.splitlines()) == 1
    assert len(written) < 1000
    assert '"event": "request"' in written


def test_it_costs_nothing_if_nobody_reads_it(caplog: pytest.LogCaptureFixture) -> None:
    """At the level `warning` there is no line."""
    logging.getLogger("punch").setLevel("WARNING")
    CanonicalLog().hear(records.ended(records.easy()))
    assert caplog.records == []


async def test_requests_with_no_key_are_warned_of_once_a_minute(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """With how many there were: somebody may be trying keys, and must not fill the log."""
    log = CanonicalLog()
    for _ in range(10):
        log.hear(RequestRefused(at=trio.current_time(), status=401))
        log.hear(RequestRefused(at=trio.current_time(), status=404))
    await trio.sleep(61)
    log.hear(RequestRefused(at=trio.current_time(), status=401))

    assert [record.getMessage() for record in caplog.records if "API key" in record.getMessage()]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "10" in caplog.records[-1].getMessage()
