"""A router for programs that do not run on trio: blocking ones, and those on asyncio.

The router lives in a trio thread of its own. What is asked from outside goes there, and the answer
comes back as a value, as an iterator, or as something to await::

    with punch.blocking.open_router(namespace="home") as router:
        print(router.ask("Why is the sky blue?").text)
        for text in router.stream("And at night?"):
            print(text, end="")

    # one question, and nothing else
    print(punch.blocking.ask("Why is the sky blue?", namespace="home").text)

    # on asyncio
    with punch.blocking.open_router(namespace="home") as router:
        response = await router.ask_async("Why is the sky blue?")

It decides nothing: all arguments and errors are those of `punch.open_router` and `Router.ask`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import trio

from . import dialer
from .dialer import Router, chat_request
from .membership import Home, open_membership
from .peers import PeerRecord
from .wire import CommandRequest, CommandResponse, Hints

T = TypeVar("T")

# Parts of an answer that wait for a reader; past it the peer is not read from. About a second.
MAX_WAITING = 64


class BlockingRouter:
    """Asks the listeners of a namespace from any thread. Made by `open_router`."""

    def __init__(self, router: Router, nursery: trio.Nursery) -> None:
        self._router = router
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""
        return self._router.peers

    def ask(self, question: str | CommandRequest, **fields: Any) -> CommandResponse:
        """Ask, and block until the whole answer is there; see `Router.ask`."""
        future = self._start(lambda: self._router.ask(question, **fields))
        try:
            return future.result()
        finally:
            future.cancel()

    async def ask_async(self, question: str | CommandRequest, **fields: Any) -> CommandResponse:
        """As `ask`, awaited on asyncio; cancelling the task cancels the request."""
        future = self._start(lambda: self._router.ask(question, **fields))
        return await asyncio.wrap_future(future)

    def stream(self, question: str | CommandRequest, **fields: Any) -> Generator[str, None, None]:
        """The parts of an answer as they are made; leaving the loop early cancels the request.

        Args:
          question: A text, or a request that says everything itself.
          fields: See `punch.chat_request`.

        """
        asked = chat_request(question, **fields) if isinstance(question, str) else question
        parts: queue.Queue[str | None] = queue.Queue()
        room = threading.Semaphore(MAX_WAITING)

        async def read() -> None:
            try:
                async with self._router.answer(asked, keep=False) as answer:
                    while (text := await answer.receive()) is not None:
                        if not room.acquire(blocking=False):
                            await trio.to_thread.run_sync(room.acquire, abandon_on_cancel=True)
                        parts.put(text)
            finally:
                parts.put(None)

        future = self._start(read)
        try:
            while (text := parts.get()) is not None:
                room.release()
                yield text
            future.result()
        finally:
            future.cancel()
            room.release()

    def _start(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        """Do *work* in the trio thread; cancelling the future cancels it there."""
        future: Future[T] = Future()

        async def run() -> None:
            with trio.CancelScope() as scope:

                def cancel(_: Future[T]) -> None:
                    if future.cancelled():
                        self._token.run_sync_soon(scope.cancel)

                future.add_done_callback(cancel)
                try:
                    result = await work()
                except Exception as error:  # noqa: BLE001 - raised where it was asked for
                    if future.set_running_or_notify_cancel():
                        future.set_exception(error)
                    return
                else:
                    if future.set_running_or_notify_cancel():
                        future.set_result(result)
                finally:
                    # Of one that was cancelled from either side; the others are done.
                    future.cancel()

        self._token.run_sync_soon(self._nursery.start_soon, run)
        return future


def ask(
    question: str | CommandRequest,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    timeout: float | None = None,
    min_rate: float = 0.0,
    max_load: float | None = None,
    **router: Any,
) -> CommandResponse:
    """Join a namespace, ask once, and leave. Whoever asks again keeps a router: `open_router`.

    The response has the `text`, and who made it in `executor`.

    Args:
      question: A text, or a request that says everything itself: then the rest is not used.
      model: The name of the model.
      max_tokens: Longest answer, in tokens.
      temperature: How freely it is chosen.
      timeout: When to give up, in seconds.
      min_rate: Tokens a second that a peer must make of one answer, as far as is known.
      max_load: Requests that a peer may have for each of its slots, such as 0.8.
      router: Arguments of `open_router`, such as *namespace* and *bootstrap*.

    Raises:
      NoPeerAvailable: if nobody can be asked; and whatever else `Router.ask` raises.

    """
    with open_router(**router) as one:
        if not isinstance(question, str):
            return one.ask(question)
        return one.ask(
            question,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            timeout=timeout,
            hints=Hints(min_rate=min_rate, max_load=max_load),
        )


@contextmanager
def open_router(**arguments: Any) -> Iterator[BlockingRouter]:
    """A router in a trio thread of its own, for as long as the context lasts.

    Args:
      arguments: Those of `punch.open_router`. A *membership* may also be the name of a closed
        namespace, or a `Home`: it is opened with *identity*, and lasts as long as the router.

    Raises:
      ConfigurationError: as `punch.open_router` and `punch.open_membership` do.
      NotPermitted: as `punch.open_membership` does.

    """
    opened: Future[tuple[BlockingRouter, trio.CancelScope]] = Future()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            given = dict(arguments)
            which = given.get("membership")
            if isinstance(which, str | Home):
                given["membership"] = await stack.enter_async_context(
                    open_membership(which, identity=given.get("identity"))
                )
            router = await stack.enter_async_context(dialer.open_router(**given))
            nursery = await stack.enter_async_context(trio.open_nursery())
            opened.set_result((BlockingRouter(router, nursery), nursery.cancel_scope))
            await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # It is raised in the thread that waits for it.
            if opened.done():
                raise
            opened.set_exception(error)

    thread = threading.Thread(target=run, name="punch", daemon=True)
    thread.start()
    try:
        router, scope = opened.result()
        try:
            yield router
        finally:
            router._token.run_sync_soon(scope.cancel)
    finally:
        thread.join()
