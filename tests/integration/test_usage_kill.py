"""A gateway that is killed has written what ended more than a second before."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from punch.gateway import read_usage

PROGRAM = """
import sys
from pathlib import Path

import trio

from punch.events import Bus, Cost, RequestEnded, RequestRecord
from punch.gateway import open_usage


async def main():
    events = Bus()
    async with open_usage(Path(sys.argv[1]), events=events):
        for number in range(1000):
            cost = Cost(prompt=2, answer=3)
            record = RequestRecord(
                request_id="r", endpoint="/x", began_at=0.0, key_id="ada", cost=cost
            )
            events.publish(RequestEnded(at=1.0, request=record))
            if number == 499:
                await trio.sleep(1.0)
        print("noted", flush=True)
        await trio.sleep_forever()


trio.run(main)
"""


def test_nothing_but_the_last_second_is_lost_on_sigkill(tmp_path: Path) -> None:
    """A real process, a real SIGKILL, right after it has noted more."""
    path = tmp_path / "gateway.sqlite3"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "noted\n"
        finally:
            process.kill()
        assert process.wait(10) == -signal.SIGKILL

    (day,) = read_usage(path)["ada"]
    assert day.requests in (500, 1000)
    assert (day.prompt_tokens, day.completion_tokens) == (2 * day.requests, 3 * day.requests)
