"""Finds out what this machine has for a split, and who may lend to it.

What is placed where is decided by `punch.placement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from ..._logs import get_logger
from ...capability import ModelOffer, PeerId
from ...cluster import Borrower
from ...cluster.coordinator import (
    UNMEASURED,
    ForeignLender,
    Lender,
    PlainLender,
    PlainSpeeds,
    Planner,
    WorkerLender,
)
from ...discovery import Directory
from ...exceptions import BackendError, ConfigurationError
from ...gguf import Layout
from ...llama_cpp import (
    Program,
    Speeds,
    ask_program,
    choose_engine,
    find_rpc_server,
    find_server,
    list_devices,
    measure_device,
    measure_lent,
    read_named,
    rescaled,
)
from ...machine import Machine
from ...model_store import layout_of
from ...placement import (
    HEAD,
    HEAD_CPU,
    Device,
    Lessons,
    Mix,
    Plan,
    Refused,
    Solo,
    Wants,
    plan,
)
from ...settings import PlainRpcSettings, cache_folder, data_folder
from .._backends import model_file
from ._naming import ids_of, is_meant
from ._split_settings import SplitSettings

log = get_logger("punch.coordinator")


async def head_program(settings: SplitSettings) -> Path:
    """The llama-server that *settings* mean, or the fastest of this machine that splits.

    Raises:
      ConfigurationError: if there is none; the text says which command gets one.

    """
    if (named := _named_program(settings)) is not None:
        return named
    engine = await choose_engine(cache_folder=cache_folder())
    assert engine.server is not None
    return engine.server


def _named_program(settings: SplitSettings) -> Path | None:
    if settings.bin_dir is not None:
        found = find_server(settings.bin_dir)
        if found is None:
            raise ConfigurationError(
                f"{settings.said('bin_dir')}={settings.bin_dir} has no llama-server in it; "
                "`punch engine install` gets one, with RPC"
            )
        return found
    if settings.program is None:
        return None
    named = read_named(settings.program, setting=settings.said("program"))
    return find_server(named.path) or named.path


@attrs.frozen(kw_only=True)
class Prepared:
    """What is known before anybody is asked."""

    program: Program
    path: Path
    offer: ModelOffer
    layout: Layout
    here: tuple[Device, ...]
    speeds: Measured
    wants: Wants
    lessons: Lessons
    """What its splits teach: each plan has what those before it were seen to do."""

    def planner(self, solos: Sequence[Solo] = ()) -> Planner:
        """Places the model; not at first where one of *solos* alone would be faster."""
        return _Planner(self.layout, self.wants, self.lessons, solos)

    @property
    def context_tokens(self) -> int:
        """Tokens of one request."""
        return self.wants.context_tokens


class _Planner:
    """Plans with the least number of workers, and after its first plan with those that are left."""

    def __init__(
        self, layout: Layout, wants: Wants, lessons: Lessons, solos: Sequence[Solo] = ()
    ) -> None:
        self._layout = layout
        self._wants = wants
        self._lessons = lessons
        # Who runs already is not ended for somebody who came later: dialers choose between both.
        self._solos = solos
        self._has_planned = False
        self._warned: set[str] = set()

    def __call__(self, devices: Sequence[Device]) -> Plan | Refused:
        wants = self._called_by_ids(devices)
        if self._has_planned:
            # One that was lost is no reason to have none at all.
            left = {each.holder for each in devices if each.holder != HEAD}
            wants = attrs.evolve(wants, min_workers=min(wants.min_workers, len(left)))
        solos = () if self._has_planned else self._solos
        found = plan(self._layout, devices, wants, solos, self._lessons.calibration)
        self._has_planned |= isinstance(found, Plan)
        return found

    def _called_by_ids(self, devices: Sequence[Device]) -> Wants:
        """The wishes, with workers and devices called as a plan calls them."""
        wants = self._wants
        exclude, unknown = ids_of(wants.exclude, devices)
        device = wants.device
        if device is not None:
            device, more = ids_of(device, devices)
            unknown += more
        for name in unknown:
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "--exclude or --device names what is not there, as far as is known: a worker "
                    "is named by its identity, or by six or more characters at the end of it",
                    name=name,
                )
        return attrs.evolve(wants, exclude=exclude, device=device)


async def prepare(settings: SplitSettings) -> Prepared:
    """Read the model and measure this machine."""
    file, offer = await model_file(settings, any_types=True)
    assert offer.context_tokens is not None
    program = await ask_program(await head_program(settings))
    layout = await trio.to_thread.run_sync(partial(layout_of, file.path, any_types=True))
    has_plain = any(":" in name for name in settings.workers or ())
    kind = layout.quantization
    speeds = await _measure(program, kind, threads=settings.threads, has_plain=has_plain)
    wants = Wants(
        context_tokens=offer.context_tokens,
        slots=settings.slots,
        mix=Mix(prompt_tokens=settings.prompt, answer_tokens=settings.answer),
        is_forced=settings.force,
        min_workers=settings.least,
        tensor_split=settings.tensor_split,
        exclude=frozenset(settings.exclude or ()),
        device=None if settings.device is None else frozenset(settings.device),
    )
    return Prepared(
        program=program,
        path=file.path,
        offer=offer,
        layout=layout,
        here=tuple(
            Device(
                id=name,
                holder=HEAD,
                memory=memory,
                bandwidth=speeds.own[name].bandwidth,
                compute=speeds.own[name].compute,
            )
            for name, memory in (await _memory(program)).items()
            if name in speeds.own
        ),
        speeds=speeds,
        wants=wants,
        lessons=Lessons(layout, wants),
    )


@attrs.frozen(kw_only=True)
class Measured:
    """How fast this machine is with the weights of a model."""

    own: Mapping[str, Speeds]
    """Of each device of its own, as a head has it."""

    usual: Speeds
    """Of its processor with the usual kind of weights, of which workers tell."""

    lent: Speeds
    """Of its processor where it is lent."""

    @property
    def kind(self) -> Speeds:
        """Of its processor with the model's kind of weights."""
        return self.own[HEAD_CPU]


# Nobody is measured longer than this; on a machine that is so busy, a guess is as good.
MEASURE_SECONDS = 20.0


async def _measure(
    program: Program, kind: str | None, *, threads: int | None, has_plain: bool
) -> Measured:
    """Measure this machine, or take it for a usual one where that takes too long."""
    cache = cache_folder()
    own = {HEAD_CPU: UNMEASURED}
    usual = lent = UNMEASURED
    with trio.move_on_after(MEASURE_SECONDS) as patience:
        try:
            cpu = await measure_device(program.path, kind=kind, threads=threads, cache_folder=cache)
            own = {HEAD_CPU: cpu}
            usual = lent = cpu
            usual = await measure_device(program.path, threads=threads, cache_folder=cache)
            for name in await list_devices(program):
                own[name] = await measure_device(program.path, name, kind=kind, cache_folder=cache)
            rpc = find_rpc_server(program.path)
            if has_plain and rpc is not None:
                (lent, *_) = await measure_lent(
                    program.path, rpc, kind=kind, threads=threads, cache_folder=cache
                )
        except BackendError as error:
            log.warning("this machine cannot be measured", why=error.message)
    if patience.cancelled_caught:
        log.warning("this machine was too busy to be measured", seconds=MEASURE_SECONDS)
    return Measured(own=own, usual=usual, lent=lent)


async def _memory(program: Program) -> dict[str, int]:
    """What is free here: of the main memory, and of each device."""
    machine = Machine(models_folder=data_folder() / "models")
    try:
        found = {HEAD_CPU: machine.sample().memory_available_bytes or 0}
    finally:
        machine.close()
    for name, gpu in (await list_devices(program)).items():
        found[name] = gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes
    return found


class Lenders:
    """Who may lend: RPC servers of this machine that were named, and workers of the namespace.

    Args:
      settings: Whom the user named.
      prepared: What is known of this machine.
      borrower: Borrows of workers; `None` to borrow of none.
      directory: Where the workers are known.

    """

    def __init__(
        self,
        settings: SplitSettings,
        prepared: Prepared,
        borrower: Borrower | None,
        directory: Directory | None,
    ) -> None:
        named = dict.fromkeys(settings.workers or ())
        speeds = prepared.speeds
        plain = PlainSpeeds(bandwidth=speeds.lent.bandwidth, compute=speeds.lent.compute)
        self._plain: list[Lender] = [
            PlainLender(name, speeds=plain) for name in named if ":" in name
        ]
        self._plain += foreign_lenders(settings.rpc, here=speeds.kind)
        self._rescaled = partial(rescaled, usual=speeds.usual, kind=speeds.kind)
        self._names = None if settings.workers is None else [n for n in named if ":" not in n]
        self._borrower = borrower
        self._directory = directory
        self._workers: dict[PeerId, WorkerLender] = {}

    def __call__(self) -> list[Lender]:
        """Those that are known now."""
        if self._borrower is None or self._directory is None:
            return list(self._plain)
        found: list[Lender] = []
        for peer_id in self._directory.workers:
            if self._names is None or any(is_meant(name, peer_id) for name in self._names):
                lender = self._workers.get(peer_id)
                if lender is None:
                    lender = WorkerLender(
                        self._borrower,
                        peer_id,
                        partial(_addresses, self._directory, peer_id),
                        rescaled=self._rescaled,
                    )
                    self._workers[peer_id] = lender
                found.append(lender)
        return [*self._plain, *found]


# How fast an RPC server is that runs already nobody says. A share of what this machine is keeps a
# model here that fits here, and lets one that does not be split; the first answers teach the rest.
UNKNOWN_SHARE = 0.25


def foreign_lenders(
    settings: PlainRpcSettings, *, here: Speeds = UNMEASURED
) -> list[ForeignLender]:
    """The RPC servers that run already and are named, whether they may be used or not.

    Args:
      settings: Which they are.
      here: How fast this machine is; see `UNKNOWN_SHARE`.

    Raises:
      ConfigurationError: if one was typed just now, and not that it may be used.

    """
    if settings.origin("backends").layer == "flag" and not settings.is_allowed:
        raise ConfigurationError(
            f"{settings.said('backends')} {settings.backends[0]} is reached by llama.cpp's plain "
            "RPC, which neither proves who is at its other end nor hides what is asked from "
            f"whoever is in that network: say {settings.said('is_allowed')} too, or have `punch "
            "worker` run there, which needs none"
        )
    slow = PlainSpeeds(
        bandwidth=min(UNMEASURED.bandwidth, UNKNOWN_SHARE * here.bandwidth),
        compute=min(UNMEASURED.compute, UNKNOWN_SHARE * here.compute),
    )
    return [
        ForeignLender(place, speeds=slow, is_allowed=settings.is_allowed)
        for place in dict.fromkeys(settings.backends)
    ]


def _addresses(directory: Directory, peer_id: PeerId) -> tuple[str, ...]:
    worker = directory.workers.get(peer_id)
    return () if worker is None else worker.addresses


def needs_workers(settings: SplitSettings) -> bool:
    """Whether workers of the namespace may lend, and not only servers of this machine."""
    return settings.workers is None or any(":" not in name for name in settings.workers)


async def until_enough(
    lenders: Callable[[], Sequence[Lender]], least: int, *, peer_id: PeerId
) -> None:
    """Wait until *least* lenders are known; without a limit, as a listener waits to join."""
    told = -1
    while (known := len(lenders())) < least:
        if known != told:
            log.info("waiting for workers", known=known, needed=least, peer=peer_id)
            told = known
        await trio.sleep(0.25)
