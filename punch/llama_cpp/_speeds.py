"""Measures how fast the devices of this machine compute: by llama.cpp itself, on a model of zeros.

Two numbers say enough to plan with: how many bytes of weights a device reads in a second while it
makes one token, and how many multiply-adds it does in a second while it reads a prompt. What the
processor or a library could do in theory says little: the same processor reads other types of
weights at half the speed. A device that is to be lent is measured through an RPC server, since
llama.cpp arranges weights in another way, and computes slower, where it cannot see the processor.

A measurement takes about a second, and is kept until the machine starts anew. One that was made
while the machine was busy with other things is made again once it is not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import trio

from ..exceptions import BackendCrashed
from ._kept import Kept
from ._program import Program, ask_program
from ._rpc_server import open_rpc_server
from ._trial import Made, open_head
from ._zeros import DEFAULT_KIND, ZerosModel, kind_of

# Half the size that is usual for one micro-batch, so that a slow processor is done in a second.
PROMPT_TOKENS: Final = 64
ANSWER_TOKENS: Final = 8

# Of a prompt of 64 tokens a GPU shows nothing but how fast it is asked.
MORE_PROMPT_TOKENS: Final = 512
_LONG_ENOUGH_SECONDS: Final = 0.05

# The machine has other things to do, and what counts is what it can do: the best of so many.
ROUNDS: Final = 2

# Of the processors, which have something to do now and then on any machine.
BUSY_SHARE: Final = 0.75

_FILE: Final = "speeds.json"


@attrs.frozen(kw_only=True)
class Speeds:
    """How fast one device computes."""

    bandwidth: float
    """Bytes of weights that it reads in a second, while it makes one token at a time."""

    compute: float
    """Multiply-adds in a second, while it reads a prompt."""


def rescaled(told: Speeds, *, usual: Speeds, kind: Speeds) -> Speeds:
    """How fast a device is with another kind of weights than it was measured with.

    A worker says how fast it is with the usual kind, whatever will be borrowed for. What another
    kind makes of that is much the same on all processors, so that of this machine stands for it.

    Args:
      told: The device's speeds with the usual kind.
      usual: Those of a device of this machine with the usual kind.
      kind: Those of the same device with the kind that is to be computed with.

    """
    return Speeds(
        bandwidth=told.bandwidth * kind.bandwidth / usual.bandwidth,
        compute=told.compute * kind.compute / usual.compute,
    )


async def measure_device(
    server: str | Path,
    device: str = "CPU",
    *,
    kind: str | None = DEFAULT_KIND,
    threads: int | None = None,
    cache_folder: Path | None = None,
) -> Speeds:
    """The speeds of a device that the program itself computes on, as a head does.

    Args:
      server: ``llama-server``.
      device: The device by its name in the program's list; ``CPU`` for none of those.
      kind: How the weights are stored that are computed with, such as ``Q4_1`` or ``Q4_K_M``: a
        processor may read prompts of one type at three times the speed of another.
      threads: Threads that a processor computes with; `None` for the program's choice.
      cache_folder: Where measurements are kept until the machine starts anew; `None` for nowhere.

    Raises:
      ConfigurationError: if *server* is not a program of llama.cpp.
      BackendCrashed: if it makes no token on that device.

    """
    arguments = ["--device", "none"] if device == "CPU" else ["--device", device, "-ngl", "99"]
    kept = _kept(cache_folder, [Path(server)], ["head", device, kind_of(kind), threads])
    found = _read(kept, is_busy=(busy := _is_busy()))
    if not found:
        program = await ask_program(server)
        async with _zeros(kind) as zeros:
            found = (await _measure(program, zeros, device, arguments, threads),)
        kept.keep(_write(found, was_busy=busy))
    return found[0]


async def measure_lent(
    server: str | Path,
    rpc_server: str | Path,
    devices: Sequence[str] = (),
    *,
    kind: str | None = DEFAULT_KIND,
    threads: int | None = None,
    cache_folder: Path | None = None,
) -> tuple[Speeds, ...]:
    """The speeds of devices as a borrower has them: through an RPC server of this machine.

    Args:
      server: ``llama-server``.
      rpc_server: The RPC server.
      devices: Names of the devices, as `open_rpc_server` takes them.
      kind: How the weights are stored that are computed with, such as ``Q4_1`` or ``Q4_K_M``: a
        processor may read prompts of one type at three times the speed of another.
      threads: Threads that a processor computes with; `None` for the program's choice.
      cache_folder: Where measurements are kept until the machine starts anew; `None` for nowhere.

    Raises:
      ConfigurationError: if *server* is not a program of llama.cpp.
      BackendCrashed: if the RPC server does not start, or no token is made on one of the devices.

    Returns:
      One for each device of the RPC server, in its order.

    """
    kept = _kept(
        cache_folder, [Path(server), Path(rpc_server)], ["lent", *devices, kind_of(kind), threads]
    )
    known = _read(kept, is_busy=(busy := _is_busy()))
    if not known:
        program = await ask_program(server)
        if not program.supports("--rpc"):
            raise BackendCrashed(f"{server} was built without RPC: it has no --rpc")
        found = []
        async with (
            _zeros(kind) as zeros,
            open_rpc_server(rpc_server, devices=devices, threads=threads) as lent,
        ):
            for number, device in enumerate(lent.devices()):
                arguments = ["--rpc", f"127.0.0.1:{lent.port}", "-ngl", "99"]
                arguments += ["--device", f"RPC{number}"]
                # The head computes next to nothing, and its threads would be in the server's way.
                found.append(await _measure(program, zeros, device.name, arguments, 1))
        known = tuple(found)
        kept.keep(_write(known, was_busy=busy))
    return known


async def _measure(
    program: Program,
    zeros: tuple[ZerosModel, Path],
    device: str,
    arguments: Sequence[str],
    threads: int | None,
) -> Speeds:
    model, path = zeros
    try:
        async with open_head(program, path, arguments, threads=threads) as head:
            made = [
                await head.make(prompt=PROMPT_TOKENS, answer=ANSWER_TOKENS) for _ in range(ROUNDS)
            ]
            if min(one.prompt_seconds for one in made) < _LONG_ENOUGH_SECONDS:
                made.append(await head.make(prompt=MORE_PROMPT_TOKENS, answer=ANSWER_TOKENS))
    except BackendCrashed as error:
        raise BackendCrashed(f"the device {device} cannot be measured: {error}") from None
    return speeds_of(made, model)


def speeds_of(made: Sequence[Made], model: ZerosModel) -> Speeds:
    """The speeds behind the best of what was *made* with *model*."""
    return Speeds(
        bandwidth=max(one.answer_rate for one in made) * model.weight_bytes,
        compute=max(one.prompt_rate for one in made) * model.parameters,
    )


@asynccontextmanager
async def _zeros(kind: str | None) -> AsyncIterator[tuple[ZerosModel, Path]]:
    """A model of zeros and its file, which is gone afterwards."""
    model = ZerosModel(kind=kind)
    with tempfile.TemporaryDirectory(prefix="punch-measure-") as folder:
        path = Path(folder) / "zeros.gguf"
        await trio.to_thread.run_sync(model.write, path)
        yield model, path


def _kept(folder: Path | None, programs: Sequence[Path], what: Sequence[Any]) -> Kept:
    return Kept(None if folder is None else folder / _FILE, programs, what)


def _is_busy() -> bool:
    """Whether the processors have had more to do in the last minute than they can at once."""
    try:
        load, _, _ = psutil.getloadavg()
    except (OSError, AttributeError):
        return False
    return bool(load > BUSY_SHARE * (os.cpu_count() or 1))


def _write(speeds: Sequence[Speeds], *, was_busy: bool) -> dict[str, Any]:
    return {"was_busy": was_busy, "speeds": [attrs.asdict(one) for one in speeds]}


def _read(kept: Kept, *, is_busy: bool) -> tuple[Speeds, ...]:
    """The speeds that were kept; none if there are none, they are damaged, or can be bettered."""
    try:
        if kept.value["was_busy"] and not is_busy:
            return ()
        return tuple(
            Speeds(bandwidth=float(one["bandwidth"]), compute=float(one["compute"]))
            for one in kept.value["speeds"]
        )
    except (KeyError, TypeError, ValueError):
        return ()
