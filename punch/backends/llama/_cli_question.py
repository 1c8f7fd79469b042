"""Puts a request in the terms of llama.cpp's command line programs, or refuses it. No I/O."""

from __future__ import annotations

import attrs

from ...exceptions import GenerationFailed, InvalidRequest, PeerRefused
from ...llama_cpp import Program
from ...wire import CommandRequest, Sampling

_REMEDY = "put llama-server beside the program, or use the backend embedded"

_SAMPLING_FLAGS = {
    "temperature": "--temp",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "repeat_penalty": "--repeat-penalty",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "seed": "--seed",
}


@attrs.frozen(kw_only=True)
class Question:
    """A request, in the terms of the programs."""

    prompt: str
    """The text to continue, or the user's message."""

    system: str | None = None
    """The system message, if there is one."""

    chat: bool
    """Whether the program applies the model's chat template."""


def read_question(request: CommandRequest, *, plain: bool) -> Question:
    """What to ask the program for *request*.

    Args:
      request: A request for an answer.
      plain: Whether the program can continue a text as it is.

    Raises:
      PeerRefused: if the programs have no way to take it; another backend may.
      InvalidRequest: if no backend could take it.
      GenerationFailed: if a begun answer is to be continued.

    """
    if request.command == "complete":
        if not plain:
            raise PeerRefused(f"command 'complete' needs llama-completion: {_REMEDY}")
        prompt = (request.prompt or "") + (request.continuation or "")
        if not prompt:
            raise InvalidRequest.about("prompt", "is empty; it must have at least one character")
        return Question(prompt=prompt, chat=False)
    if request.command != "chat":
        raise PeerRefused(f"command {request.command!r} needs llama-server: {_REMEDY}")
    if request.continuation:
        raise GenerationFailed(f"this backend cannot go on with a begun answer; {_REMEDY}")
    roles = [message.role for message in request.messages]
    if roles not in (["user"], ["system", "user"]):
        raise PeerRefused(
            f"messages has the roles {', '.join(roles)}; this backend takes one user message "
            f"after an optional system message. For conversations, {_REMEDY}"
        )
    prompt = request.messages[-1].content
    if not prompt:
        raise InvalidRequest.about("messages", "ends with an empty message; it must have a text")
    if not plain and prompt.startswith("/"):
        # `/read FILE` would put a file of this machine into the answer.
        raise PeerRefused(f"messages: llama-cli takes a leading / for a command; {_REMEDY}")
    system = request.messages[0].content if len(roles) == 2 else None
    return Question(prompt=prompt, system=system, chat=True)


def sampling_flags(program: Program, sampling: Sampling, *, context_tokens: int) -> list[str]:
    """The arguments for what is set in *sampling*; `stop` is left to `StopMatcher`.

    Raises:
      PeerRefused: if this build has no flag for a value; that of another peer may.

    """
    # Builds that shift the context would continue for ever without a limit.
    limit = sampling.max_tokens if sampling.max_tokens is not None else context_tokens
    flags = ["--n-predict", str(limit)]
    for name, flag in _SAMPLING_FLAGS.items():
        value = getattr(sampling, name)
        if value is None:
            continue
        if not program.supports(flag):
            raise PeerRefused(f"{name} cannot be set: {program.name} has no {flag}")
        # A seed is 32 bits wide there, and 64 on the wire.
        flags += [flag, str(value & 0xFFFFFFFF if name == "seed" else value)]
    return flags
