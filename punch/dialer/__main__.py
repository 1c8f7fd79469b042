"""The dialer: asks the best listener of a namespace.

``python -m punch.dialer --ask "..."`` asks once; without ``--ask`` it is a conversation.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from ..cli import (
    BOOTSTRAP,
    DECISION_LOG,
    IDENTITY,
    KNOWN,
    LOG_LEVEL,
    NAMESPACE,
    STRICT,
    TRANSPORT,
    ExitCode,
    Option,
    Settings,
    Shutdown,
    boolean,
    claim_identity,
    converse,
    count,
    decision_log_path,
    explain,
    number,
    open_router_of,
    positive,
    print_json,
    print_text,
    run_program,
)
from ..decision_log import DecisionLog, open_decision_log
from ..exceptions import ConfigurationError
from ..routing import POLICIES
from ..wire import CommandRequest, Sampling
from ._router import Router, chat_request

ABOUT = "Ask the best listener of a namespace."

OPTIONS = (
    Option(
        name="--ask",
        metavar="TEXT",
        help="the question; - reads it from standard input; without it, a conversation",
    ),
    BOOTSTRAP,
    NAMESPACE,
    TRANSPORT,
    Option(name="--model", metavar="NAME", help="name of the model", shown_default="any"),
    Option(
        name="--policy",
        default="completion-time",
        metavar="NAME",
        help=f"how to choose: {', '.join(POLICIES)}",
    ),
    Option(
        name="--stream",
        default=True,
        convert=boolean,
        help="print the answer as it is made",
    ),
    Option(
        name="--json",
        default=False,
        convert=boolean,
        help="print the whole response as one JSON object on one line",
    ),
    Option(
        name="--explain",
        default=False,
        convert=boolean,
        help="print on standard error who could have answered, and why it was this one",
    ),
    Option(
        name="--continuation",
        default=True,
        convert=boolean,
        help="if a peer fails in the middle of the answer, let another one go on with it",
    ),
    Option(
        name="--hedge",
        default=False,
        convert=boolean,
        help="ask a second peer when the first is late; the quicker one answers",
    ),
    Option(
        name="--timeout",
        default=300.0,
        convert=positive,
        metavar="SECONDS",
        help="when to give up",
    ),
    STRICT,
    Option(name="--system", metavar="TEXT", help="the system message"),
    Option(
        name="--max-tokens",
        convert=count(1),
        metavar="N",
        help="longest answer",
        shown_default="the backend's own",
    ),
    Option(
        name="--temperature",
        convert=number(0, 100),
        metavar="T",
        help="0 always takes the likeliest token",
        shown_default="the backend's own",
    ),
    Option(name="--top-p", convert=number(0, 1), metavar="P", help="nucleus sampling"),
    Option(name="--top-k", convert=count(0), metavar="K", help="keep the K likeliest tokens"),
    Option(name="--min-p", convert=number(0, 1), metavar="P", help="drop unlikely tokens"),
    Option(
        name="--repeat-penalty", convert=number(0, 100), metavar="X", help="above 1: repeat less"
    ),
    Option(name="--stop", many=True, default=(), metavar="TEXT", help="end before this text"),
    Option(name="--seed", convert=count(0), metavar="N", help="for the same answer again"),
    Option(
        name="--request-id",
        metavar="ID",
        help="your own id for the request",
        shown_default="a fresh UUIDv7",
    ),
    IDENTITY,
    KNOWN,
    DECISION_LOG,
    attrs.evolve(LOG_LEVEL, default="warning"),
)


@asynccontextmanager
async def open_router_as(settings: Settings) -> AsyncIterator[Router]:
    """The router that *settings* describe."""
    with claim_identity("dialer", settings.identity) as identity:
        async with (
            _open_log(settings) as log,
            open_router_of(settings, identity=identity, decision_log=log) as router,
        ):
            yield router


@asynccontextmanager
async def _open_log(settings: Settings) -> AsyncIterator[DecisionLog | None]:
    """The decision log that *settings* name, or none."""
    path = decision_log_path(settings.decision_log)
    if path is None:
        yield None
        return
    async with open_decision_log(path) as log:
        yield log


def request_of(settings: Settings, question: str) -> CommandRequest:
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
            stop=tuple(settings.stop),
            seed=settings.seed,
        ),
        stream=settings.stream,
        continuable=settings.continuation,
        timeout=settings.timeout,
        request_id=settings.request_id,
    )


async def _ask(router: Router, settings: Settings, question: str) -> None:
    """Ask once. The answer goes to standard output as it arrives, and nothing else does."""
    async with router.answer(request_of(settings, question)) as answer:
        try:
            async for text in answer:
                if not settings.json:
                    print_text(text)
        finally:
            if answer.text and not settings.json:
                print_text("\n")
            if settings.explain:
                print(explain(answer.decisions, answer.attempts), file=sys.stderr, flush=True)
        if settings.json:
            print_json(answer.response)


async def dial(settings: Settings, shutdown: Shutdown) -> ExitCode:
    """Ask what is to be asked."""
    question = settings.ask
    if question == "-":
        question = await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    if question is not None and not question.strip():
        raise ConfigurationError("--ask is empty: give it a question")
    async with open_router_as(settings) as router:
        if question is not None:
            await _ask(router, settings, question)
        else:
            await converse(router, request_of(settings, "-"))
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    return run_program("punch.dialer", ABOUT, OPTIONS, dial, arguments)


if __name__ == "__main__":
    sys.exit(main())
