"""The dialer: asks the best listener of a namespace.

``python -m punch.dialer --ask "..."`` asks once; without ``--ask`` it is a conversation.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from .._subscribers import open_bus
from ..cli import (
    ExitCode,
    Shutdown,
    claim_identity,
    converse,
    decision_log_path,
    explain,
    open_membership_of,
    open_router_of,
    place_of,
    print_json,
    print_text,
    read_all,
    run_program,
    warn_of_simulation,
)
from ..decision_log import open_decision_log
from ..events import Bus
from ..exceptions import ConfigurationError
from ..settings import DialerSettings
from ..wire import CommandRequest, Hints, Sampling
from ._router import Router, chat_request

ABOUT = "Ask the best listener of a namespace."


@asynccontextmanager
async def open_router_as(settings: DialerSettings) -> AsyncIterator[Router]:
    """The router that *settings* describe."""
    events = open_bus()
    place = place_of(settings.network)
    with claim_identity("dialer", settings.identity) as identity:
        async with (
            _open_log(settings, events),
            open_membership_of(place, identity, settings.network, says=True) as membership,
            open_router_of(
                settings, identity=identity, events=events, place=place, membership=membership
            ) as router,
        ):
            # Below each answer it is said here; a line of the log would stand in the middle of one.
            router._dispatch.has_simulated = True
            yield router


@asynccontextmanager
async def _open_log(settings: DialerSettings, events: Bus) -> AsyncIterator[None]:
    """The decision log that *settings* name, if they name one."""
    path = decision_log_path(settings.decision_log)
    if path is None:
        yield
        return
    async with open_decision_log(path, events):
        yield


def request_of(settings: DialerSettings, question: str) -> CommandRequest:
    """*question*, with everything the options say about it."""
    return chat_request(
        question,
        system=settings.system,
        model=settings.model,
        sampling=Sampling(
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            repeat_penalty=settings.repeat_penalty,
            stop=settings.stop,
            seed=settings.seed,
        ),
        stream=settings.stream,
        continuable=settings.continuation,
        timeout=settings.timeout,
        request_id=settings.request_id,
        hints=Hints(
            prefer=settings.prefer,
            avoid=settings.avoid,
            only=settings.only,
            privacy=settings.privacy,
            min_rate=settings.min_rate,
            max_load=settings.max_load,
        ),
    )


async def _ask(router: Router, settings: DialerSettings, question: str) -> None:
    """Ask once. The answer goes to standard output as it arrives, and nothing else does."""
    async with router.answer(request_of(settings, question)) as answer:
        try:
            async for text in answer:
                if not settings.json:
                    print_text(text)
        finally:
            if answer.text and not settings.json:
                print_text("\n")
            warn_of_simulation(answer.provenance)
            if settings.explain:
                print(explain(answer.decisions, answer.attempts), file=sys.stderr, flush=True)
        if settings.json:
            print_json(answer.response)


async def dial(settings: DialerSettings, shutdown: Shutdown) -> ExitCode:
    """Ask what is to be asked."""
    question = settings.ask
    if question == "-":
        question = await trio.to_thread.run_sync(read_all, abandon_on_cancel=True)
    if question is not None and not question.strip():
        raise ConfigurationError("--ask is empty: give it a question")
    async with open_router_as(settings) as router:
        if question is not None:
            await _ask(router, settings, question)
        else:
            await converse(router, request_of(settings, "-"))
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or the command of `punch` with these *arguments*; its exit code."""
    name = "python -m punch.dialer" if arguments is None else "punch dialer"
    return run_program(name, ABOUT, DialerSettings, dial, arguments)


if __name__ == "__main__":
    sys.exit(main())
