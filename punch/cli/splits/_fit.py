"""``punch models fit``: whether a model fits on this machine, and how others would help.

What fits is worked out by `_fitting`; here machines are measured and the outcome is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from ...cluster.coordinator import UNMEASURED, UNMEASURED_RATE
from ...exceptions import BackendError, ConfigurationError
from ...gguf import Layout
from ...llama_cpp import (
    Speeds,
    ask_program,
    find_engines,
    list_devices,
    measure_device,
    read_named,
)
from ...machine import Machine
from ...model_store import layout_of
from ...placement import Link, Mix, Plan, Refused, Wants, describe, size_text
from ...settings import (
    DURATION,
    LISTENER_IDENTITY,
    LLAMA_CPP_EXE,
    LOG_LEVEL,
    RATE,
    SIZE,
    SWITCH,
    TEXT,
    NetworkSettings,
    PlainRpcSettings,
    ProgramSettings,
    Rule,
    argument,
    cache_folder,
    count,
    data_folder,
    group,
    of,
    optional,
    setting,
    several,
)
from .._backends import find_model
from .._exits import ExitCode
from .._namespace import place_of
from .._output import plain
from .._run import Shutdown, run_program
from ._asked import Asked, ask_foreign, ask_workers
from ._fitting import Fit, Here, Told, fit
from ._lenders import foreign_lenders

T = TypeVar("T")

# Of a link that nobody measured: the way across a home.
_HOME_RTT: Final = 1e-3

_CONSIDERED: Final = 4  # Ways to split that are told of beside the one that is taken.
_USUAL_PROMPT, _USUAL_ANSWER = 512, 128  # Tokens.
_DEFAULT_CONTEXT: Final = 4096  # As a listener takes, where the model was trained for it.


@attrs.frozen(kw_only=True)
class _Worker:
    """A worker as ``--worker`` tells of it."""

    memory: int
    bandwidth: float | None = None
    rtt: float = _HOME_RTT
    rate: float = UNMEASURED_RATE


def _worker(text: str) -> _Worker:
    parts = text.split(":")
    if len(parts) > 4:
        raise ValueError("it has four parts at most, MEMORY:BANDWIDTH:RTT:RATE")
    memory, bandwidth, rtt, rate = (*parts, "", "", "")[:4]
    return _Worker(
        memory=_part(SIZE, "MEMORY", memory),
        bandwidth=_part(RATE, "BANDWIDTH", bandwidth) if bandwidth else None,
        rtt=_part(DURATION, "RTT", rtt) if rtt else _HOME_RTT,
        rate=_part(RATE, "RATE", rate) if rate else UNMEASURED_RATE,
    )


def _part(rule: Rule[T], name: str, text: str) -> T:
    try:
        return rule.value(text)
    except ValueError as error:
        raise ValueError(f"its {name} is {text!r}: {error}") from None


MODEL = argument(
    "model", TEXT, metavar="MODEL", about="a .gguf file, or a model that was pulled, by its name"
)
WORKER = several(
    "worker",
    Rule(_worker),
    variable="",
    separators=", \t\n",
    metavar="MEMORY[:BANDWIDTH[:RTT[:RATE]]]",
    help="plan with a worker that has so much memory, goes through so much of it a second, so far "
    "away, over a link of that rate, such as 8GB:20GB/s:1ms:1Gbit/s; without BANDWIDTH it is as "
    "fast as this machine, without RTT and RATE in the same home; may be repeated",
)
CONTEXT = optional(
    "context",
    count(1, most=2**30),
    variable="",
    help="tokens of context that each slot needs",
    shown_default="4096, or less if the model has less",
)
SLOTS = setting(
    "slots", count(1, most=256), 1, variable="", help="requests that are served at once"
)
PROMPT = optional(
    "prompt",
    count(0, most=2**30),
    variable="",
    help="tokens of a usual prompt",
    shown_default="512, or what the context leaves",
)
ANSWER = optional(
    "answer",
    count(0, most=2**30),
    variable="",
    help="tokens of a usual answer",
    shown_default="128, or half of the context",
)
ASK = setting(
    "ask",
    SWITCH,
    False,
    variable="",
    help="ask the workers of the namespace what they lend, and plan with them",
)
FORCE = setting("force", SWITCH, False, variable="", help="split it even where that is slower")
AS_JSON = setting("json", SWITCH, False, variable="", help="print one JSON object")


@attrs.frozen(kw_only=True)
class FitSettings(ProgramSettings):
    """Settings of ``punch models fit``."""

    model: str = of(MODEL)
    worker: tuple[_Worker, ...] = of(WORKER)
    ask: bool = of(ASK)
    context: int | None = of(CONTEXT)
    slots: int = of(SLOTS)
    prompt: int | None = of(PROMPT)
    answer: int | None = of(ANSWER)
    force: bool = of(FORCE)
    json: bool = of(AS_JSON)
    program: str | None = of(LLAMA_CPP_EXE)
    network: NetworkSettings = group(NetworkSettings)
    rpc: PlainRpcSettings = group(PlainRpcSettings)
    identity: str | None = of(LISTENER_IDENTITY)
    log_level: str = of(LOG_LEVEL, default="warning")


def _wants(settings: FitSettings, layout: Layout) -> Wants:
    trained = layout.context_tokens
    context = settings.context or min(_DEFAULT_CONTEXT, trained or _DEFAULT_CONTEXT)
    if trained is not None and context > trained:
        raise ConfigurationError(
            f"{settings.said('context')} is {context}: the model was trained for {trained} tokens "
            "at most; ask for no more"
        )
    answer, prompt = settings.answer, settings.prompt
    if answer is None:
        answer = min(_USUAL_ANSWER, context // 2)
    if prompt is None:
        prompt = max(0, min(_USUAL_PROMPT, context - answer))
    if prompt + answer > context:
        raise ConfigurationError(
            f"{settings.said('prompt')} and {settings.said('answer')} are {prompt} and {answer} "
            f"tokens, and the context has {context}; they must fit in it: raise "
            f"{settings.said('context')}, or lower them"
        )
    mix = Mix(prompt_tokens=prompt, answer_tokens=answer)
    return Wants(context_tokens=context, slots=settings.slots, mix=mix, is_forced=settings.force)


async def _here(program: str | None, kind: str | None) -> Here:
    """Measure this machine with weights of *kind*, and llama-server if one makes a token."""
    machine = Machine(models_folder=data_folder() / "models")
    try:
        sample = machine.sample()
    finally:
        machine.close()
    total = sample.memory_total_bytes or 0
    here = Here(memory_total=total, memory_free=sample.memory_available_bytes or total)
    named = None if program is None else read_named(program).path
    cache = cache_folder()
    engines = await trio.to_thread.run_sync(partial(find_engines, cache_folder=cache, named=named))
    for server in [engine.server for engine in engines if engine.server is not None]:
        try:
            gpus = await list_devices(await ask_program(server))
            return attrs.evolve(
                here,
                gpus=gpus,
                speeds=await measure_device(server, kind=kind, cache_folder=cache),
                gpu_speeds={
                    name: await measure_device(server, name, kind=kind, cache_folder=cache)
                    for name in gpus
                },
            )
        except (BackendError, ConfigurationError) as error:
            print(f"punch: {server} measures nothing: {plain(str(error))}", file=sys.stderr)
    return here


def _workers(settings: FitSettings) -> list[Told]:
    return [
        Told(
            name=f"worker{number}",
            memory=each.memory,
            bandwidth=each.bandwidth,
            link=Link(rtt=each.rtt, rate=each.rate),
        )
        for number, each in enumerate(settings.worker, 1)
    ]


async def _fit(settings: FitSettings, shutdown: Shutdown) -> ExitCode:
    path = find_model(settings.model)
    read = partial(layout_of, path, any_types=True, setting="MODEL")
    layout = await trio.to_thread.run_sync(read)
    wants = _wants(settings, layout)
    asked = Asked()
    if settings.ask:
        asked = await ask_workers(settings.network, identity=settings.identity)
    here = await _here(settings.program, layout.quantization)
    foreign = await ask_foreign(foreign_lenders(settings.rpc, here=here.speeds or UNMEASURED))
    found = fit(
        layout,
        here,
        wants,
        workers=[*_workers(settings), *asked.workers, *foreign.workers],
        left_out={**asked.left_out, **foreign.left_out},
    )
    if settings.json:
        print(json.dumps({"path": str(path), **found.as_dict()}, ensure_ascii=False))
    else:
        lines = [path.name, *_lines(found)]
        if settings.ask and not asked.workers and not asked.left_out:
            lines.append(f"nobody lends in the namespace {place_of(settings.network)}")
        print(plain("\n".join(lines)))
    return ExitCode.OK if isinstance(found.chosen, Plan) else ExitCode.NO_PEER


def _lines(found: Fit) -> Iterator[str]:
    yield from _about_model(found.layout)
    yield from _about_here(found)
    if found.split is not None:
        yield from _about_split(found)
    for name, why in found.left_out.items():
        yield f"left out: {name}: {why}"


def _about_model(layout: Layout) -> Iterator[str]:
    matrix = "the output is the embeddings too" if layout.is_tied else size_text(layout.output)
    line = (
        f"  weights: {size_text(layout.weights)}; {len(layout.layers)} layers with "
        f"{size_text(layout.layer_weights)}, embeddings {size_text(layout.embeddings)}, output: "
        f"{matrix}"
    )
    if layout.experts:
        experts = sum(layer.experts for layer in layout.layers)
        line += (
            f"; {layout.experts_used} of {layout.experts} experts work for a token "
            f"({size_text(experts)} are experts)"
        )
    yield line
    kept = sum(layer.kv_per_token for layer in layout.layers)
    notes = []
    windows = {layer.window for layer in layout.layers if layer.window is not None}
    if windows:
        count_ = sum(layer.window is not None for layer in layout.layers)
        notes.append(f"{count_} layers keep {max(windows)} tokens at most")
    state = sum(layer.state for layer in layout.layers)
    if state:
        notes.append(f"and {size_text(state)} for each request at once, however long it is")
    if not layout.kv_exact:
        notes.append("at most: the file does not tell all of it")
    yield f"  context: {size_text(kept)} a token" + "".join(f"; {note}" for note in notes)


def _about_here(found: Fit) -> Iterator[str]:
    here = found.here
    yield (
        f"here: {size_text(here.memory_free)} of {size_text(here.memory_total)} memory free"
        + _speed(here.speeds)
    )
    for name, gpu in here.gpus.items():
        free = gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes
        yield f"  {name}: {gpu.name}, {size_text(free)} free" + _speed(here.gpu_speeds.get(name))
    if not found.is_measured:
        yield (
            "  how fast it is cannot be measured without a llama-server that works: "
            "`punch engine install` builds one, and LLAMA_CPP_EXE names one"
        )
    context = found.wants.context_tokens
    if found.context is None:
        yield f"  does not fit here: it takes {size_text(found.needed)} with {context} tokens"
    elif isinstance(found.alone, Refused):
        yield f"  fits here with {found.context} tokens of context at most, not with {context}"
    else:
        trained = found.layout.context_tokens
        most = ", all that it was trained for" if trained == found.context else " at most"
        yield f"  fits here, with {found.context} tokens of context{most}"
    yield from _outcome(attrs.evolve(found.alone, considered=(), left_out=0), found)


def _speed(speeds: Speeds | None) -> str:
    return "" if speeds is None else f", {size_text(speeds.bandwidth)} of weights a second"


def _about_split(found: Fit) -> Iterator[str]:
    for worker in found.workers:
        speed = "" if worker.bandwidth is None else f", {size_text(worker.bandwidth)} of weights"
        yield (
            f"{worker.name}: {size_text(worker.memory)} memory"
            + (f"{speed} a second" if speed else "")
            + f", {worker.link.rtt * 1000:.3g} ms away at {size_text(worker.link.rate)}/s"
        )
    assert found.split is not None
    yield "split:" if found.is_measured else "split, as far as memory decides:"
    yield from _outcome(found.split, found)
    if not found.is_measured or found.chosen is found.split:
        return
    if isinstance(found.chosen, Plan):
        yield "  this machine alone is faster for the usual request: it would not be split"
    else:
        yield f"  it would not be split: {found.chosen.reason}"


def _outcome(outcome: Plan | Refused, found: Fit) -> Iterator[str]:
    if isinstance(outcome, Refused) or found.is_measured:
        lines = describe(outcome, candidates=_CONSIDERED).splitlines()
        yield from (f"  {line.rstrip()}" for line in lines)
        return
    for share in outcome.shares:  # Seconds mean nothing where nothing was measured.
        yield (
            f"  {share.device}: layers {share.layers.start}-{share.layers.stop - 1}, weights "
            f"{size_text(share.weights)}, contexts {size_text(share.kv)}"
        )


def fit_model(name: str, arguments: Sequence[str]) -> int:
    """Run ``punch models fit``, typed as *name*; its exit code."""
    about = (
        "Tell whether a model fits here and at which context, how it would be split over workers, "
        "how fast that would be, and why it would not. Exit code 3 if it fits nowhere."
    )
    return run_program(name, about, FitSettings, _fit, arguments)
