"""The coordinator and a dialer of `split_deaths.py`: says in lines what happens, and when.

_split_death_head.py BOOTSTRAP OPTION...

The options are those of `punch coordinator`. For each line of standard input the split is opened
and asked once, and what becomes of it is printed: `@`, a word and the seconds of the clock that all
processes of the system share. It ends with its input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import trio

from punch.cli._logs import configure_logging
from punch.cli._run import load_settings
from punch.cli.splits._coordinator import open_coordinator_of
from punch.cli.splits._split_settings import CoordinatorSettings
from punch.dialer import chat_request, open_router
from punch.events import Bus, PlanChanged, SplitReady, WorkerLost
from punch.listener import Listener
from punch.wire import Sampling

QUESTION = "Write a story about a dog."
TOKENS = 90
LOOK_SECONDS = 0.002


def say(what: str, at: float | None = None) -> None:
    """A line for the parent, which the plans that the coordinator prints are not."""
    print("@", what, time.monotonic() if at is None else at, flush=True)


async def watch(listener: Listener) -> None:
    """Say when the head has ended."""
    backend: Any = listener.lanes[0].backend
    pid = backend.pid
    # Nobody tells of it but the system.
    while backend.pid == pid:  # noqa: ASYNC110
        await trio.sleep(LOOK_SECONDS)
    say("ended")


async def answer(bootstrap: str, options: Sequence[str]) -> None:
    """Open the split, and ask it once."""
    settings = load_settings("punch coordinator", "", CoordinatorSettings, options)
    bus = Bus()
    ahead = trio.current_time() - time.monotonic()

    def note(event: PlanChanged | SplitReady | WorkerLost) -> None:
        say(type(event).__name__, event.at - ahead)

    request = chat_request(
        QUESTION, sampling=Sampling(max_tokens=TOKENS, temperature=0.0), timeout=120.0
    )
    with bus.account(PlanChanged, SplitReady, WorkerLost, note=note):
        async with (
            open_coordinator_of(settings, events=bus) as listener,
            open_router(bootstrap=bootstrap) as router,
            trio.open_nursery() as nursery,
        ):
            await router.wait_for_peers()
            nursery.start_soon(watch, listener)
            async with router.answer(request) as answer:
                while await answer.receive() is not None:
                    say("token")
            nursery.cancel_scope.cancel()


async def main(bootstrap: str, *options: str) -> None:
    """Answer once for each line."""
    while await trio.to_thread.run_sync(sys.stdin.readline):
        await answer(bootstrap, options)
        say("closed")


configure_logging("info")
trio.run(main, *sys.argv[1:])
