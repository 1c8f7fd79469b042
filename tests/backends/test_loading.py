"""A backend that restarts says so, and which answers it can go on with."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio

from punch.backends._base import LOADING_SECONDS, say_while, with_continuation
from punch.backends.llama._served import ServedBackend
from punch.backends.llama._server import template_in
from punch.capability import ModelOffer
from punch.exceptions import BackendCrashed

KNOWN = "a" * 64


class Program:
    """What a backend sees of its supervised program."""

    def __init__(self) -> None:
        self.state = "ready"
        self.load_seconds = 0.0
        self.came_back = trio.Event()
        self.error: BackendCrashed | None = None

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the test says so."""
        await self.came_back.wait()
        if self.error is not None:
            raise self.error

    def kill(self, why: str) -> None:
        """Never asked for here."""


def served(program: Program) -> ServedBackend:
    """A backend over it."""
    return ServedBackend(
        name="llama_cpp",
        client=None,  # type: ignore[arg-type]  # never asked
        supervised=program,  # type: ignore[arg-type]  # a fake
        slots=1,
        threads=None,
        offer=ModelOffer(name="m"),
    )


async def test_a_restart_is_told_every_five_seconds(autojump_clock: object) -> None:
    """With what is left of it; and the offer says how long a model takes to load."""
    program = Program()
    backend = served(program)
    told: list[float] = []
    before = backend.offers[0].load_seconds
    program.state, program.load_seconds = "restarting", 12.0
    during = backend.offers[0].load_seconds
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.ready, told.append)
        await trio.sleep(2 * LOADING_SECONDS + 1)
        program.came_back.set()
    assert (before, during) == (0.0, 12.0)
    assert told == [12.0, 12.0, 12.0]


async def test_nothing_is_told_when_it_is_ready() -> None:
    """The usual case costs nothing."""
    told: list[float] = []
    await served(Program()).ready(told.append)
    assert told == []


async def test_a_backend_that_is_down_for_good_says_so_bare() -> None:
    """Not in an exception group."""
    program = Program()
    program.state, program.error = "starting", BackendCrashed("crash loop")
    program.came_back.set()
    with pytest.raises(BackendCrashed, match="crash loop"):
        await served(program).ready(lambda seconds: None)


async def test_say_while_ends_with_the_work(autojump_clock: object) -> None:
    """And says something at least once."""
    said: list[float] = []
    began = trio.current_time()
    await say_while(lambda: trio.sleep(12), lambda: said.append(trio.current_time() - began))
    assert said == [0.0, 5.0, 10.0]


def test_a_chat_goes_on_only_with_a_known_template() -> None:
    """Another template would write another prompt; a raw completion needs none."""
    chat = frozenset({"chat", "complete"})
    assert with_continuation(ModelOffer(name="m", features=chat, chat_template=KNOWN)).continues
    assert not with_continuation(ModelOffer(name="m", features=chat)).continues
    assert with_continuation(ModelOffer(name="m", features=frozenset({"complete"}))).continues
    embed = ModelOffer(name="m", features=frozenset({"embed"}), chat_template=KNOWN)
    assert not with_continuation(embed).continues


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), KNOWN),
        (("--threads", "3"), KNOWN),
        (("--chat-template", "chatml"), hashlib.sha256(b"chatml").hexdigest()),
        (("--chat-template=chatml",), hashlib.sha256(b"chatml").hexdigest()),
        (("--chat-template-file", "x.jinja"), None),
        (("--chat-template-kwargs", "{}"), None),
        (("--no-jinja",), None),
    ],
)
def test_an_argument_may_replace_the_template(
    arguments: tuple[Any, ...] | tuple[str, ...], expected: Any
) -> None:
    """Then the file's is not the one that is used."""
    assert template_in(arguments, KNOWN) == expected
