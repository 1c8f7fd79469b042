"""Backend `llama_cpp`: starts llama.cpp's own HTTP server as a child, in the flags of its build.

Decides the command line and what the model can be offered for. Requests are sent by `_served`,
and what a build supports is found out by `punch.llama_cpp`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs

from ..._background import open_background
from ...capability import ModelOffer
from ...exceptions import BackendCrashed, ConfigurationError
from ...llama_cpp import Program, ask_program, list_gpus
from ...processes import open_supervised
from .._base import with_continuation
from ..openai._client import open_http_client
from ..openai._probes import is_ready, probe_count, probe_generation, probe_senses, probe_tools
from ._head import Head
from ._served import ServedBackend, free_port, with_features


def server_command(
    program: Program,
    *,
    model_path: Path,
    port: int,
    threads: int | None,
    no_mmap: bool,
    slots: int,
    context_tokens: int,
    gpu_layers: int | None,
    alias: str | None,
    embed: bool,
    extra_args: Sequence[str],
    embed_too: bool = False,
) -> list[str]:
    """Program and arguments, with those flags only that this very build knows.

    Flags come and go between builds, and an unknown one ends the program; those that are merely
    good to have are therefore asked for with `Program.known`.

    Args:
      program: The server.
      model_path: The GGUF file.
      port: TCP port to listen on.
      threads: Threads to compute with; `None` for the program's choice.
      no_mmap: Read the model into memory instead of mapping the file.
      slots: Requests at a time.
      context_tokens: Longest prompt plus answer of one request, in tokens.
      gpu_layers: Layers to keep on GPUs; `None` for the program's choice.
      alias: Name of the model.
      embed: Embed, and do nothing else.
      extra_args: Further arguments, at the end, where they override ours.
      embed_too: Embed besides answering.

    """
    command = [
        *program.command, "--model", str(model_path),
        "--host", "127.0.0.1", "--port", str(port),
        "--parallel", str(slots),
        # The size is that of all slots together, and each gets an equal part.
        "--ctx-size", str(slots * context_tokens),
    ]  # fmt: skip
    # Unified, the slots share one context, and one long prompt could starve the others.
    command += program.known("--no-kv-unified")
    # What answers at /slots is the computing thread itself: the vigil asks there.
    command += program.known("--jinja", "--offline", "--slots")
    command += program.known("--no-ui") or program.known("--no-webui")
    if threads is not None and not program.is_given("--threads", "-t"):
        command += ["--threads", str(threads)]
    if gpu_layers is not None and not program.is_given("--n-gpu-layers", "-ngl", "--gpu-layers"):
        command += ["--n-gpu-layers", str(gpu_layers)]
    if alias is not None and "," not in alias:  # A comma separates several aliases.
        command += ["--alias", alias]
    if embed or embed_too:
        command += program.known("--embeddings") or program.known("--embedding")
    if embed_too:
        # A model that generates has no way of its own to make one vector out of many.
        command += ["--pooling", "mean"]
    return [*command, *program.mmap_flags(no_mmap), *extra_args]


def template_in(extra_args: Sequence[str], known: str | None) -> str | None:
    """SHA-256 of the chat template that the server will use; `None` if that is not known.

    Args:
      extra_args: Arguments for the program, which may name another template.
      known: SHA-256 of the template in the model file.

    """
    # Peers continue each other's answers only with the same template: a wrong digest here would
    # let one continue in another's prompt, so what cannot be read is unknown.
    found = known
    for index, argument in enumerate(extra_args):
        name, equals, value = argument.partition("=")
        if name == "--chat-template":
            text = value if equals else "".join(extra_args[index + 1 : index + 2])
            found = hashlib.sha256(text.encode()).hexdigest()
        elif name.startswith("--chat-template") or name == "--no-jinja":
            return None
    return found


def can_embed_too(program: Program, extra_args: Sequence[str]) -> bool:
    """Whether to have the server embed besides answering.

    Not if *extra_args* say how it is to embed: what the user has set is left alone.
    """
    has_flags = program.supports("--embeddings") and program.supports("--pooling")
    return has_flags and not any("--embedding" in one or "--pooling" in one for one in extra_args)


def has_lost_port(lines: Sequence[str]) -> bool:
    """Whether the last *lines* of a server say that another program has its port."""
    return any("couldn't bind" in line or "address already in use" in line for line in lines)


@asynccontextmanager
async def open_llama_server(
    *,
    program: str | Path,
    model_path: str | Path,
    threads: int | None,
    no_mmap: bool,
    slots: int,
    context_tokens: int,
    gpu_layers: int | None = None,
    alias: str | None = None,
    digest: str | None = None,
    offer: ModelOffer | None = None,
    arguments: Sequence[str] = (),
    extra_args: Sequence[str] = (),
    setting: str = "LLAMA_CPP_EXE",
    head: Head | None = None,
) -> AsyncIterator[ServedBackend]:
    """Run ``llama-server`` with one model; enter when the model is loaded.

    The server listens on loopback only, on a port of its own, and demands a key that no other
    process has. It is restarted when it crashes or is stuck, and ended on the way out.

    Args:
      program: Path of ``llama-server``.
      model_path: The GGUF file.
      threads: Threads to compute with; `None` for the program's choice.
      no_mmap: Read the model into memory instead of mapping the file.
      slots: Requests at a time.
      context_tokens: Longest prompt plus answer of one request, in tokens.
      gpu_layers: Layers to keep on GPUs; `None` for the program's choice.
      alias: Name of the model, where no *offer* is given.
      digest: SHA-256 of the model file, where no *offer* is given.
      offer: What to offer; features of the server are added.
      arguments: Arguments that the program always gets, in front of all others.
      extra_args: Further arguments for the program, at the end.
      setting: Name of the setting that *program* comes from, for error texts.
      head: What the server needs where it is the head of a split: it is ready once it has made a
        token with all machines. It embeds only if the model can do nothing else.

    Raises:
      ConfigurationError: if *program* is not a llama.cpp program.
      BackendCrashed: if the server does not start; the text has its last lines.

    """
    known = await ask_program(program, arguments=arguments, setting=setting)
    if not known.is_server:
        raise ConfigurationError(
            f"{setting}={program} is a program of llama.cpp, but no server: set it to "
            "llama-server, which is built and shipped together with it"
        )
    gpus = await list_gpus(known, setting=setting)
    model = Path(model_path)
    if offer is None:
        offer = ModelOffer(name=alias or model.stem, digest=digest, context_tokens=context_tokens)
    said = [*arguments, *extra_args]
    template = template_in(said, offer.chat_template)
    offer = with_continuation(attrs.evolve(offer, chat_template=template))
    embed_only = offer.features == frozenset({"embed"})
    embed_too = not embed_only and head is None and can_embed_too(known, said)
    api_key = secrets.token_urlsafe(32)
    async with open_http_client(url="http://127.0.0.1", slots=slots, api_key=api_key) as client:

        def command(embed_too: bool) -> list[str]:
            port = free_port()
            client.url = f"http://127.0.0.1:{port}"
            more = () if head is None else head.arguments(known)
            return server_command(
                known, model_path=model, port=port, threads=threads, no_mmap=no_mmap,
                slots=slots, context_tokens=context_tokens, gpu_layers=gpu_layers,
                alias=offer.name, embed=embed_only, embed_too=embed_too,
                extra_args=[*more, *extra_args],
            )  # fmt: skip

        async def ready() -> bool:
            if not await is_ready(client):
                return False
            # A head whose program cannot compute here, or that has gone on without a machine, says
            # that it is well.
            return head is None or (await probe_generation(client) and head.note_token())

        async def is_bad_luck(lines: Sequence[str]) -> bool:
            return has_lost_port(lines) or (head is not None and await head.has_lost_machine())

        while True:
            opened = open_supervised(
                partial(command, embed_too),
                name=known.name,
                ready=ready,
                # In the environment, which only this user can read; arguments are for all to see.
                env={"LLAMA_API_KEY": api_key, **({} if head is None else head.env)},
                # A head ends when its standard input does, where it knows that.
                stdin=None if head is None else b"",
                retry_start=is_bad_luck,
                on_line=None if head is None else head.note_line,
                # What its own process has read says nothing of what others hold.
                model_bytes=offer.size_bytes if head is None else None,
                prepare=None if head is None else head.prepare,
            )
            async with AsyncExitStack() as stack:
                try:
                    supervised = await stack.enter_async_context(opened)
                except BackendCrashed:
                    if not embed_too:
                        raise
                    # What is set otherwise, such as a batch of one token, may not go together
                    # with embedding; answering matters more.
                    embed_too = False
                    continue
                if embed_too and not await probe_generation(client):
                    # Older builds do one or the other.
                    embed_too = False
                    continue
                backend = ServedBackend(
                    name="llama_cpp", client=client, supervised=supervised,
                    slots=slots, threads=threads, gpus=gpus,
                    head=head,
                    offer=with_features(
                        offer, can_embed=embed_too, can_count=await probe_count(client),
                        senses=await probe_senses(client),
                    ),
                    knows_tools=await probe_tools(client),
                )  # fmt: skip
                nursery = await stack.enter_async_context(open_background())
                nursery.start_soon(backend.watch)
                yield backend
            return
