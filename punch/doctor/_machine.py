"""Judges this machine: its clock, interfaces, ports, disk, GPUs and engines. No I/O, no clock."""

from __future__ import annotations

import attrs

from ._finding import Finding, note, unknown, well, wrong
from ._text import Private, text

# A registration travels for seconds, and a grant is given for days: less matters to nobody.
MAX_CLOCK_SECONDS = 120.0

# 2026-01-01: no punch is older, and a machine without a battery for its clock begins in 1970.
EARLIEST_SECONDS = 1_767_225_600.0

# Keys, grants and logs must be written; a small model takes the second.
MIN_FREE_BYTES = 64 << 20
MIN_MODEL_BYTES = 2 << 30


@attrs.frozen(kw_only=True)
class ClockFacts:
    """What tells of the clock."""

    now: float
    """Seconds of UTC since 1970, as this machine has them."""

    granted_at: float | None = None
    """The same of the instant when this machine's grant was made; `None` if that is not known."""

    starts: tuple[tuple[str, float], ...] = ()
    """Peers of other machines that are there, each with when it started, by its own clock."""


def judge_clock(facts: ClockFacts) -> list[Finding]:
    """Whether the clock can be right: nothing that has happened may be in its future."""
    set_it = text("set it, or have it set: `sudo timedatectl set-ntp true`")
    if facts.now < EARLIEST_SECONDS:
        return [wrong("clock", text("this machine's clock stands before 2026"), set_it)]
    if facts.granted_at is not None and facts.granted_at > facts.now + MAX_CLOCK_SECONDS:
        behind = _span(facts.granted_at - facts.now)
        said = text(f"the grant of this machine was made {behind} ahead of its clock")
        return [wrong("clock", said, set_it)]
    ahead = [(peer, at) for peer, at in facts.starts if at > facts.now + MAX_CLOCK_SECONDS]
    if ahead and 2 * len(ahead) > len(facts.starts) > 1:
        said = text(f"most other machines have started {_least(ahead, facts.now)} ahead of it")
        return [wrong("clock", said, set_it)]
    found = [
        note(
            "clock",
            text(f"{{}} has started {_span(at - facts.now)} ahead of it", Private("peer", peer)),
            text("see which of the two clocks is wrong, and have it set"),
        )
        for peer, at in ahead
    ]
    return found or [well("clock", text("nothing that has happened is in its future"))]


def _least(ahead: list[tuple[str, float]], now: float) -> str:
    return _span(min(at for _, at in ahead) - now)


def _span(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


@attrs.frozen(kw_only=True)
class InterfaceFacts:
    """The addresses of this machine."""

    addresses: tuple[str, ...]
    """IP addresses of the interfaces that are up, but for loopback and link-local ones."""

    lans: tuple[str, ...]
    """Interfaces with a LAN behind them."""

    meets_elsewhere: bool
    """Whether peers of other machines are to be met at all."""

    uses_lan: bool
    """Whether members are looked for on the LAN."""


def judge_interfaces(facts: InterfaceFacts) -> list[Finding]:
    """Whether there is a way to other machines."""
    if not facts.addresses:
        said = text("no interface but loopback is up")
        if not facts.meets_elsewhere:
            return [note("interfaces", said)]
        return [wrong("interfaces", said, text("connect this machine to a network"))]
    count = len(facts.addresses)
    if facts.uses_lan and not facts.lans:
        said = text("no interface with a LAN behind it is up, and members are looked for there")
        remedy = text("name one with `punch settings set network.lan_interfaces NAME`")
        return [note("interfaces", said, remedy)]
    return [well("interfaces", text("1 address" if count == 1 else f"{count} addresses"))]


@attrs.frozen(kw_only=True)
class PortFact:
    """A port that a program of punch is to listen on."""

    setting: str
    """The setting that says so, such as ``gateway.port``."""

    port: int
    """The port."""

    is_free: bool
    """Whether it could be listened on."""

    is_ours: bool = False
    """Whether a program of punch has it."""

    is_refused: bool = False
    """Whether the system lets this user listen on no such port."""

    holder: str | None = None
    """The program that has it, as far as this user may see."""


def judge_ports(facts: tuple[PortFact, ...]) -> list[Finding]:
    """Whether each port is free, or a program of punch has it."""
    found = []
    for each in facts:
        if each.is_free or each.is_ours:
            continue
        other = text(f"give another with `punch settings set {each.setting} PORT`")
        if each.is_refused:
            said = text(f"{each.setting} is {each.port}, which this user may not listen on")
            found.append(wrong("ports", said, other))
            continue
        who = Private("program", each.holder) if each.holder else None
        said = text(f"port {each.port} of {each.setting} is taken by another program")
        if who is not None:
            said = text(f"port {each.port} of {each.setting} is taken by {{}}", who)
        remedy = text(f"end that program, or {other}")
        found.append(wrong("ports", said, remedy))
    return found or [well("ports", text("free, or with a program of punch"))]


@attrs.frozen(kw_only=True)
class FolderFact:
    """A folder that punch writes to."""

    kind: str
    """What is in it: ``data`` or ``models``."""

    path: str
    """The folder, or what there is of its path."""

    is_writable: bool
    """Whether this user may write there."""

    free_bytes: int | None
    """Free space on its disk, for this user; `None` if it cannot be measured."""


def judge_disk(facts: tuple[FolderFact, ...]) -> list[Finding]:
    """Whether keys and logs can be written, and a model be fetched."""
    found = []
    for each in facts:
        path = Private("path", each.path)
        if not each.is_writable:
            remedy = text("make it writable for this user, or set XDG_DATA_HOME to another folder")
            said = text(f"the {each.kind} folder {{}} cannot be written", path)
            found.append(wrong("disk", said, remedy))
        elif each.free_bytes is not None and each.free_bytes < MIN_FREE_BYTES:
            room = each.free_bytes >> 20
            said = text(f"the disk of the {each.kind} folder {{}} has {room} MiB left", path)
            remedy = text("make room: keys, grants and logs cannot be written")
            found.append(wrong("disk", said, remedy))
        elif each.free_bytes is not None and each.free_bytes < MIN_MODEL_BYTES:
            room = each.free_bytes >> 20
            said = text(f"the disk of the {each.kind} folder {{}} has {room} MiB left", path)
            found.append(note("disk", said, text("make room before a model is fetched")))
    return found or [well("disk", text("can be written, and has room"))]


@attrs.frozen(kw_only=True)
class GpuFacts:
    """The GPUs of this machine, and who uses them."""

    names: tuple[str, ...]
    """NVIDIA GPUs, as their driver calls them."""

    has_device: bool
    """Whether the system has the device of such a GPU, whatever its driver says."""

    on_cpu: tuple[str, ...] = ()
    """Models that an engine of this machine has in main memory alone."""


def judge_gpus(facts: GpuFacts) -> list[Finding]:
    """Whether GPUs that are there can be used, and are."""
    if not facts.names and facts.has_device:
        said = text("this machine has an NVIDIA GPU, and its driver does not answer")
        remedy = text(
            "`nvidia-smi` says why; after an update of the driver, start the machine anew"
        )
        return [wrong("GPU", said, remedy)]
    if not facts.names:
        return [well("GPU", text("no NVIDIA GPU"))]
    found = [
        note(
            "GPU",
            text("{} runs on the processor alone, and there is a GPU", Private("model", model)),
            text("get an engine that uses it: `punch engine install`; docs/gpus.md has more"),
        )
        for model in facts.on_cpu
    ]
    count = len(facts.names)
    return found or [well("GPU", text("1 NVIDIA GPU" if count == 1 else f"{count} NVIDIA GPUs"))]


@attrs.frozen(kw_only=True)
class EngineTry:
    """What came of asking for one token."""

    name: str
    """The model that was asked, or the program that was tried on a model of zeros."""

    is_program: bool
    """Whether it is a program."""

    words: str | None = None
    """Why no token came; `None` if one came."""


@attrs.frozen(kw_only=True)
class LaneFact:
    """A lane of this machine that is not asked."""

    backend: str
    """Its backend, in its own word."""

    has_failed: bool
    """Whether it failed; others are starting, or rest."""

    words: str | None
    """Why, in its own words."""


@attrs.frozen(kw_only=True)
class EngineFacts:
    """What this machine answers with."""

    tries: tuple[EngineTry, ...] = ()
    """The engines that were tried."""

    lanes: tuple[LaneFact, ...] = ()
    """The lanes that were not, as they are not ready."""

    on_demand: tuple[str, ...] = ()
    """Models that were not tried, as they would have to be loaded first."""

    busy: tuple[str, ...] = ()
    """Models that were not tried, as each of their slots answers somebody."""

    simulates: bool = False
    """Whether answers are made up here."""

    has_lanes: bool = False
    """Whether a listener of this machine has anything to answer with."""


def judge_engines(facts: EngineFacts) -> list[Finding]:
    """Whether each engine makes a token."""
    found = []
    for each in facts.tries:
        if each.words is None:
            continue
        what = Private("program" if each.is_program else "model", each.name)
        said = text("{} makes no token: {}", what, Private("words", each.words))
        remedy = text("`punch engine check` tries the programs one by one; `punch logs` has more")
        found.append(wrong("engines", said, remedy))
    for lane in facts.lanes:
        what = Private("name", lane.backend)
        if lane.has_failed:
            why = Private("words", lane.words or "it does not say why")
            said = text("the lane with backend {} has failed: {}", what, why)
            found.append(wrong("engines", said, text("`punch logs` has what its engine said")))
        else:
            found.append(unknown("engines", text("the lane with backend {} is not ready", what)))
    if facts.simulates:
        remedy = text("choose another with `punch settings set listener.backend NAME`")
        found.append(note("engines", text("a mock answers here, which makes answers up"), remedy))
    for name in facts.on_demand:
        said = text("{} was not tried: it would have to be loaded first", Private("model", name))
        found.append(unknown("engines", said))
    for name in facts.busy:
        said = text("{} was not tried: it is busy with answers", Private("model", name))
        found.append(unknown("engines", said))
    if found:
        return found
    if not facts.tries and facts.has_lanes:
        return [unknown("engines", text("nothing answers chats here, and nothing else was tried"))]
    if not facts.tries:
        remedy = text("`punch engine install` and `punch models pull smollm2` bring one")
        return [note("engines", text("this machine has no engine of its own"), remedy)]
    count = len(facts.tries)
    return [well("engines", text("1 makes tokens" if count == 1 else f"{count} make tokens"))]
