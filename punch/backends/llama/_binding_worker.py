"""The process that runs llama-cpp-python for `punch.backends.llama._binding`.

    python -m punch.backends.llama._binding_worker

It has a process of its own because the binding is not thread-safe, holds a whole model,
and dies of an assertion in native code where others raise. The two talk in JSON, one
object a line, over standard input and output:

    to us    {"open": {"model_path", "threads", "no_mmap", "context_tokens", "gpu_layers", "batch",
              "micro_batch", "embed"}}
             {"id", "command", "messages" | "prompt" | "inputs", "continuation", "sampling",
             "schema"}
             {"cancel": id}
    from us  {"ready": {"context_tokens", "threads", "version"}} or {"failed": {"code", "message"}}
             {"id", "text", "tokens", "prompt_tokens"}, {"id", "vector"}, and last
             {"id", "end": {...}} or {"id", "error": {"code", "message"}}

Rules:

* One request at a time; the parent sends the next one after the end of the one before.
* A cancel is obeyed between two tokens, and within a computation between two operations:
  llama.cpp asks a callback. That is a C function looking at one byte, see `_Flag`; a
  Python callback would take the interpreter lock a thousand times a token.
* Native code prints where it likes: the real standard output is put aside first, and
  whatever is written to descriptor 1 goes to standard error.
* When standard input closes the parent is gone, and the process ends at once.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import json
import os
import queue
import secrets
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from .._stop import StopMatcher

MAX_LINE_BYTES: Final = 64 * 1024 * 1024  # Bytes. A frame of 8 MiB, with every character escaped.
_BATCH: Final = 512  # Tokens. As llama-cpp-python has it, and unlike its own it is said.
_MAX_PIECE_BYTES: Final = 1024  # Bytes of one token. The longest in use is some 256 spaces.


class _Flag:
    """The byte that the parent's cancel sets and llama.cpp looks at.

    The callback must be ``bool f(void *)``. `strlen` of the C library, given the byte and a
    zero behind it, is 0 or 1 and needs no interpreter.
    """

    def __init__(self) -> None:
        self._byte = ctypes.create_string_buffer(2)

    def set(self) -> None:
        self._byte[0] = b"\x01"

    def clear(self) -> None:
        self._byte[0] = b"\x00"

    def is_set(self) -> bool:
        return bool(self._byte[0] != b"\x00")

    def watch(self, llama_cpp: Any, context: Any) -> None:
        """Have llama.cpp look at the byte during computations."""
        kind = llama_cpp.ggml_abort_callback
        try:
            self._callback = ctypes.cast(ctypes.CDLL(None).strlen, kind)
        except (OSError, TypeError, AttributeError):  # No C library by that way: Windows.
            self._callback = kind(lambda _: self.is_set())
        address = ctypes.cast(self._byte, ctypes.c_void_p)
        llama_cpp.llama_set_abort_callback(context, self._callback, address)


class _Refused(Exception):
    """Raised for a request that cannot be answered; the worker continues with the next."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Cancelled(Exception):
    """The parent does not want the answer any more."""


class _Engine:
    """A loaded model and its one context."""

    def __init__(self, settings: dict[str, Any], flag: _Flag) -> None:
        import llama_cpp

        # The binding's own types are looser than ours: past this line it is untyped.
        api: Any = llama_cpp
        self._api = api
        self._flag = flag
        self._prefilled: int | None = None
        embed = bool(settings["embed"])
        context = int(settings["context_tokens"])
        self._llm: Any = api.Llama(
            settings["model_path"],
            n_ctx=context,
            # An encoder sees its text whole.
            n_batch=context if embed else settings["batch"] or _BATCH,
            n_ubatch=context if embed else settings["micro_batch"] or _BATCH,
            n_threads=settings["threads"],
            n_threads_batch=settings["threads"],
            n_gpu_layers=settings["gpu_layers"],
            use_mmap=not settings["no_mmap"],
            embedding=embed,
            verbose=False,
        )
        self._vocabulary = self._api.llama_model_get_vocab(self._llm.model)
        flag.watch(self._api, self._llm.ctx)
        self._formatter = self._make_formatter()
        self._eval = self._llm.eval
        self._llm.eval = self._counted_eval

    def facts(self) -> dict[str, Any]:
        """What the parent needs to know of the loaded model."""
        return {
            "context_tokens": self._llm.n_ctx(),
            "threads": self._llm.n_threads,
            "version": self._api.__version__,
        }

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of the answer to *request*, without its id."""
        if request["command"] == "embed":
            yield from self._embed(request["inputs"])
        else:
            grammar = self._grammar(request.get("schema"))
            yield from self._generate(self._tokens_of(request), request["sampling"], grammar)

    def _tokens_of(self, request: dict[str, Any]) -> list[int]:
        if request["command"] == "chat":
            text = self._begin(request["messages"])
        else:
            text = request["prompt"] or ""
        text += request["continuation"] or ""
        beginning = self._piece(self._llm.token_bos(), special=True).decode("utf-8", "replace")
        # Many templates write the token of the beginning themselves; two confuse the model.
        twice = bool(beginning) and text.startswith(beginning)
        tokens = list(self._llm.tokenize(text.encode(), add_bos=not twice, special=True))
        if not tokens:
            raise _Refused("invalid_request", "the prompt is empty: there is nothing to go on from")
        limit = self._llm.n_ctx()
        if len(tokens) >= limit:
            raise _Refused(
                "context_too_long",
                f"the prompt has {len(tokens)} tokens and the context {limit}; "
                "there must be room for one token of the answer",
            )
        return tokens

    def _generate(
        self, tokens: list[int], sampling: dict[str, Any], grammar: Any
    ) -> Iterator[dict[str, Any]]:
        seed = sampling["seed"]
        if seed is None:
            seed = secrets.randbits(32)
        else:
            # What is cached was computed in other batches and differs in the last bits.
            self._llm.reset()
        self._llm.set_seed(seed % 2**32)
        left = self._llm.n_ctx() - len(tokens)
        wanted = sampling["max_tokens"]
        limit = left if wanted is None else min(wanted, left)
        self._prefilled = None
        self._api.llama_perf_context_reset(self._llm.ctx)
        stops = StopMatcher(sampling["stop"])
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        made = unreported = 0
        reason = "length"
        for token in self._sampled(tokens, sampling, grammar) if limit > 0 else ():
            made += 1
            unreported += 1
            if self._api.llama_vocab_is_eog(self._vocabulary, token):
                reason = "stop"
                break
            text = stops.feed(decoder.decode(self._piece(token, special=False)))
            if text:
                yield {"text": text, "tokens": unreported, "prompt_tokens": len(tokens)}
                unreported = 0
            if stops.stopped:
                reason = "stop"
                break
            if made >= limit:
                break
        text = stops.feed(decoder.decode(b"", final=True)) + stops.finish()
        if stops.stopped:
            reason = "stop"
        if text:
            yield {"text": text, "tokens": unreported}
        yield {"end": self._account(len(tokens), made, reason) | {"stop": stops.found}}

    def _grammar(self, schema: str | None) -> Any:
        """What holds an answer to *schema*; each answer needs one of its own."""
        if schema is None:
            return None
        text = schema if json.loads(schema) else '{"type": "object"}'
        try:
            return self._api.LlamaGrammar.from_json_schema(text, verbose=False)
        except Exception as error:
            raise _Refused(
                "invalid_request", f"response_schema cannot be made into a grammar: {error}"
            ) from error

    def _sampled(self, tokens: list[int], sampling: dict[str, Any], grammar: Any) -> Iterator[int]:
        """The tokens of the answer, as they are made."""
        # The defaults of llama-server, so that a model sounds the same on every backend.
        chosen = {
            "temp": 0.8,
            "top_k": 40,
            "top_p": 0.95,
            "min_p": 0.05,
            "repeat_penalty": 1.0,
        }
        names = {"temperature": "temp"}
        for name in (
            "temperature", "top_k", "top_p", "min_p", "repeat_penalty",
            "presence_penalty", "frequency_penalty",
        ):  # fmt: skip
            if sampling[name] is not None:
                chosen[names.get(name, name)] = sampling[name]
        for token in self._llm.generate(tokens, grammar=grammar, **chosen):
            if self._flag.is_set():
                raise _Cancelled
            yield int(token)

    def _account(self, prompt: int, made: int, reason: str) -> dict[str, Any]:
        perf = self._api.llama_perf_context(self._llm.ctx)
        prefilled = prompt if self._prefilled is None else self._prefilled
        return {
            "finish_reason": reason,
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "cached_tokens": prompt - prefilled,
            # llama.cpp counts a batch of one token as decoding, whatever it is for.
            "prefill": perf.t_p_eval_ms / 1000 if perf.n_p_eval > 1 else None,
            "decode": perf.t_eval_ms / 1000 if perf.n_eval > 0 else None,
        }

    def _embed(self, inputs: list[str]) -> Iterator[dict[str, Any]]:
        total = 0
        for text in inputs:
            if self._flag.is_set():
                raise _Cancelled
            try:
                vectors, count = self._llm.embed(
                    [text], normalize=True, truncate=False, return_count=True
                )
            except ValueError as error:
                raise _Refused("context_too_long", f"a text does not fit: {error}") from error
            total += count
            yield {"vector": [float(each) for each in vectors[0]]}
        yield {"end": {"finish_reason": "stop", "prompt_tokens": total, "completion_tokens": 0}}

    def reset(self) -> None:
        """Forget what a broken-off computation has left in the context."""
        self._llm.reset()
        self._llm.eval([])

    def _counted_eval(self, tokens: list[int]) -> None:
        """`Llama.eval`; the first call of a request gets the part of its prompt not cached."""
        if self._prefilled is None:
            self._prefilled = len(tokens)
        self._eval(tokens)

    def _piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of one token, which may be a part of a character."""
        if token < 0:
            return b""
        buffer = ctypes.create_string_buffer(_MAX_PIECE_BYTES)
        length = self._api.llama_token_to_piece(
            self._vocabulary, token, buffer, len(buffer), 0, special
        )
        return buffer.raw[: max(0, length)]

    def _make_formatter(self) -> Any:
        from llama_cpp import llama_chat_format

        template = self._llm.metadata.get("tokenizer.chat_template")
        if template is None:
            return None
        ends = (self._piece(self._llm.token_eos(), special=True), b"")
        begins = (self._piece(self._llm.token_bos(), special=True), b"")
        return llama_chat_format.Jinja2ChatFormatter(
            template=template,
            eos_token=ends[0].decode("utf-8", "replace"),
            bos_token=begins[0].decode("utf-8", "replace"),
        )

    def _begin(self, messages: list[dict[str, str]]) -> str:
        """The conversation up to where the answer continues: in a turn that is begun, if any is."""
        if messages and messages[-1]["role"] == "assistant":
            return self._render(messages[:-1]) + messages[-1]["content"]
        return self._render(messages)

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self._formatter is None:
            raise _Refused("invalid_request", "this model has no chat template; use `complete`")
        try:
            return str(self._formatter(messages=messages).prompt)
        except Exception as error:
            raise _Refused(
                "invalid_request", f"the model's chat template refuses these messages: {error}"
            ) from error


class _Worker:
    """Reads lines, has them answered, writes lines."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._flag = _Flag()
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=4)

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        try:
            engine = _Engine(self._requests.get()["open"], self._flag)
        except ImportError as error:
            self._write({"failed": {"code": "configuration", "message": f"{error}"}})
            return
        except (ValueError, RuntimeError, OSError, AttributeError) as error:
            message = f"llama-cpp-python cannot load the model: {error}"
            self._write({"failed": {"code": "model_file", "message": message}})
            return
        self._write({"ready": engine.facts()})
        while True:
            request = self._requests.get()
            self._flag.clear()
            self._answer(engine, request)

    def _answer(self, engine: _Engine, request: dict[str, Any]) -> None:
        number = request["id"]
        error: dict[str, str]
        try:
            for line in engine.answer(request):
                self._write({"id": number, **line})
            return
        except _Refused as refusal:
            error = {"code": refusal.code, "message": str(refusal)}
        except _Cancelled:
            error = {"code": "cancelled", "message": "cancelled"}
        except Exception as fault:  # noqa: BLE001 (whatever the binding raises, this answer failed)
            if self._flag.is_set():  # llama_decode returned 2: the callback stopped it.
                error = {"code": "cancelled", "message": "cancelled"}
            else:
                error = {"code": "generation_failed", "message": f"{type(fault).__name__}: {fault}"}
            engine.reset()
        self._write({"id": number, "error": error})

    def _read(self) -> None:
        """Run in a thread: obey cancels at once, queue the rest."""
        while line := self._source.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                break
            message = json.loads(line)
            if "cancel" in message:
                self._flag.set()
            else:
                self._requests.put(message)
        # The parent is gone. Native code may be in the middle of anything: do not wait for it.
        os._exit(0)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._sink.write(json.dumps(line).encode() + b"\n")
            self._sink.flush()
        except OSError:
            os._exit(0)


def main() -> None:
    """Serve the parent until it closes our standard input."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is for the parent, which ends us.
        _Worker(source, sink).run()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
