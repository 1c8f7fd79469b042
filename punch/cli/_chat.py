"""Holds a conversation on the terminal: questions, answers, and a few commands."""

from __future__ import annotations

import sys

import attrs
import trio

from ..dialer import Router, new_request_id
from ..exceptions import InvalidRequest, NetworkError, PunchError
from ..wire import ChatMessage, CommandRequest
from ._output import explain, plain, print_text, warn_of_simulation
from ._streams import read_line

HELP = """\
/model NAME   ask for this model; /model alone takes any
/why          explain the last choice
/peers        who is there
/reset        forget the conversation
/exit         leave"""


def _prompt() -> str | None:
    """The next line, or `None` at the end.

    The prompt goes to standard error: only answers are output.
    """
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = read_line()
    return line.rstrip("\n") if line else None


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)


class Conversation:
    """The turns so far, and what the commands change.

    Args:
      router: The router that is asked.
      template: The request to repeat; its last message is replaced by each question.

    """

    def __init__(self, router: Router, template: CommandRequest) -> None:
        self._router = router
        self._template = template
        self._opening = template.messages[:-1]
        self._turns: list[ChatMessage] = []
        self._why = ""

    async def answer_line(self, line: str) -> bool:
        """Answer a line, which may be a command; False if it was the last."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                pass
            case "/exit" | "/quit":
                return False
            case "/help":
                _say(HELP)
            case "/reset":
                self._turns.clear()
            case "/model":
                self._template = attrs.evolve(self._template, model=rest.strip() or None)
            case "/why":
                _say(self._why or "nothing was asked yet")
            case "/peers":
                for peer in self._router.peers:
                    models = ", ".join(offer.name for offer in peer.capability.models)
                    _say(f"{peer.peer_id}  {peer.capability.backend}  {models}")
            case _ if command.startswith("/"):
                _say(f"there is no command {command}\n{HELP}")
            case _:
                await self._ask(line)
        return True

    async def _ask(self, question: str) -> None:
        turn = ChatMessage(role="user", content=question)
        request = attrs.evolve(
            self._template,
            request_id=new_request_id(),
            messages=(*self._opening, *self._turns, turn),
        )
        try:
            async with self._router.answer(request) as answer:
                async for text in answer:
                    print_text(text)
                print_text("\n")
                warn_of_simulation(answer.provenance)
                self._why = explain(answer.decisions, answer.attempts)
        except (InvalidRequest, NetworkError):
            raise
        except PunchError as error:
            # A conversation outlives a question that failed.
            _say(f"punch: {error}")
            return
        self._turns += [turn, ChatMessage(role="assistant", content=answer.text)]


async def converse(router: Router, template: CommandRequest) -> None:
    """Read questions from standard input and print the answers, until there are no more."""
    if sys.stdin.isatty():
        _say("/help lists the commands")
    conversation = Conversation(router, template)
    while True:
        line = await trio.to_thread.run_sync(_prompt, abandon_on_cancel=True)
        if line is None or not await conversation.answer_line(line):
            return
