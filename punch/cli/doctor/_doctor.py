"""``punch doctor``: says what is wrong with this machine's set-up, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from ..._version import __version__
from ...admin import call
from ...doctor import (
    Disguise,
    EngineFacts,
    Finding,
    Report,
    judge_clock,
    judge_disk,
    judge_engines,
    judge_firewall,
    judge_gpus,
    judge_grant,
    judge_hello,
    judge_interfaces,
    judge_meeting,
    judge_minors,
    judge_models,
    judge_name,
    judge_paths,
    judge_ports,
    judge_settings,
    report_of,
)
from ...exceptions import ConfigurationError, PunchError
from ...settings import (
    DIALER_IDENTITY,
    LOG_LEVEL,
    PATH,
    SWITCH,
    NetworkSettings,
    ProgramSettings,
    group,
    of,
    optional,
    parse_flags,
    setting,
)
from ...wire import MINOR
from .._columns import folded
from .._exits import ExitCode
from .._logs import configure_logging
from .._namespace import place_of
from .._output import plain
from .._run import run_supervised, with_words
from .._shared import lan_of, meets_here
from ..running._asking import admin_folder
from ..up import UpSettings
from ._examine import Examination, examine
from ._facts import (
    clock_facts,
    grant_facts,
    name_facts,
    offer_facts,
    own_listener,
    peer_fact,
)
from ._machine_facts import measure_folders, measure_gpus, measure_interfaces, measure_ports
from ._programs import try_programs
from ._seen import lanes_that_rest, look_around, models_on_cpu, models_to_load
from ._set import Surroundings, read_surroundings

ABOUT = """\
Say what is wrong with the set-up of this machine, and what to do about each thing: settings, clock,
ports, firewall, meeting points, grant, the other machines, engines and more. Whatever runs on this
machine is asked for one token. The exit code is 11 if something is wrong."""

AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object with everything")
BUNDLE = optional(
    "bundle",
    PATH,
    variable="",
    metavar="FILE",
    help="write a report to a new FILE that may be posted: no names, addresses, keys or texts",
)
NAMES = setting(
    "names",
    SWITCH,
    False,
    variable="",
    help="leave names, addresses, paths and what errors said in the bundle; keys never are",
)

# A look at this machine takes a tenth of a second, unless a disk or a driver hangs.
MACHINE_SECONDS = 6.0

# A look at the namespace, and then a token of each model that runs here, or of two programs.
NAMESPACE_SECONDS = 90.0

# `punch up` answers in milliseconds.
STATUS_SECONDS = 3.0

USUAL_COLUMNS = 100
_LIBRARIES = ("trio", "libp2p", "msgpack")

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class DoctorSettings(ProgramSettings):
    """Settings of ``punch doctor``."""

    network: NetworkSettings = group(NetworkSettings)
    json: bool = of(AS_JSON)
    bundle: Path | None = of(BUNDLE)
    names: bool = of(NAMES)
    identity: str | None = of(DIALER_IDENTITY)
    # What would be logged is told as findings.
    log_level: str = of(LOG_LEVEL, default="critical")


def doctor(arguments: Sequence[str]) -> int:
    """Run ``punch doctor``; its exit code."""

    def run() -> ExitCode:
        flags = parse_flags("punch doctor", ABOUT, DoctorSettings, arguments)
        around = read_surroundings(os.environ)
        settings = around.load(DoctorSettings, flags)
        if settings.bundle is not None and settings.bundle.exists():
            raise ConfigurationError(f"{settings.bundle} is there already: name a new file")
        configure_logging(settings.log_level)
        report = Report(findings=())

        async def program(_: object) -> ExitCode:
            nonlocal report
            report = await examined(settings, around)
            return ExitCode.OK

        code = ExitCode(run_supervised(program))
        if code is not ExitCode.OK:
            return code
        _show(report, settings)
        if settings.bundle is not None:
            write_bundle(settings.bundle, report, around, in_full=settings.names)
        return ExitCode.OK if report.is_well else ExitCode.UNWELL

    return with_words(run)


async def examined(settings: DoctorSettings, around: Surroundings) -> Report:
    """What is wrong, by all checks side by side.

    Args:
      settings: Where the namespace is met.
      around: What is set for the programs of this machine.

    """
    up = around.load(UpSettings, {})
    network = settings.network
    found = [*judge_settings(around.faults), *judge_paths()]

    async def ports() -> list[Finding]:
        return judge_ports(await _off(partial(measure_ports, up)))

    async def disk() -> list[Finding]:
        return judge_disk(await _off(measure_folders))

    async def interfaces() -> list[Finding]:
        is_closed = place_of(network).home is not None
        measure = partial(
            measure_interfaces,
            meets_elsewhere=is_closed or not meets_here(network),
            uses_lan=lan_of(network, is_closed=is_closed) is not None,
        )
        return judge_interfaces(await _off(measure))

    async def grant() -> list[Finding]:
        home = place_of(network).home
        return judge_grant(None if home is None else await _off(partial(grant_facts, home)))

    async def namespace() -> list[Finding]:
        return await _of_namespace(settings, up)

    def of_machine(check: str, run: Callable[[], Any]) -> Examination:
        return Examination(checks=(check,), seconds=MACHINE_SECONDS, run=run)

    seen = ("meeting points", "hello", "firewall", "minors", "models", "name", "clock", "GPU")
    found += await examine(
        (
            of_machine("ports", ports),
            of_machine("disk", disk),
            of_machine("interfaces", interfaces),
            of_machine("grant", grant),
            Examination(checks=(*seen, "engines"), seconds=NAMESPACE_SECONDS, run=namespace),
        )
    )
    return report_of(found, _about())


async def _off(measure: Callable[[], T]) -> T:
    """Measure what may block, such as a disk that hangs, where it holds up nobody."""
    return await trio.to_thread.run_sync(measure, abandon_on_cancel=True)


# ---- what is seen of the namespace ----


async def _of_namespace(settings: DoctorSettings, up: UpSettings) -> list[Finding]:
    network = settings.network
    place = place_of(network)
    status = await _status()
    seen = await look_around(network, place, settings.identity)
    elsewhere = place.home is not None or not meets_here(network)
    simulates = any(lane.simulated for peer in seen.here for lane in peer.capability.lanes)
    tries = seen.tries
    if not tries and not simulates:
        tries = await try_programs(up.listener.backend)
    gpus = await _off(partial(measure_gpus, models_on_cpu(seen.here)))
    engines = EngineFacts(
        tries=tries,
        lanes=lanes_that_rest(seen.here),
        on_demand=models_to_load(seen.here),
        simulates=simulates,
    )
    own = tuple(own_listener(peer, status) for peer in seen.here)
    peers = tuple(peer_fact(peer, seen) for peer in seen.peers if peer.peer_id in seen.minors)
    return [
        *judge_meeting(seen.meeting),
        *judge_hello(len(seen.peers), seen.unreached, is_met=seen.is_met),
        *judge_firewall(own, elsewhere=elsewhere),
        *judge_minors(peers, MINOR),
        *judge_models(offer_facts(seen.peers)),
        *judge_name(name_facts(place, seen, up)),
        *judge_clock(clock_facts(place.home, seen.peers, time.time())),
        *judge_gpus(gpus),
        *judge_engines(engines),
    ]


async def _status() -> Mapping[str, Any]:
    """What the `punch up` of this user says; nothing if none runs or it does not answer."""
    said: Any = None
    with trio.move_on_after(STATUS_SECONDS), suppress(PunchError):
        said = await call(admin_folder(), "status")
    return said if isinstance(said, dict) else {}


# ---- the report ----


def _about() -> dict[str, str]:
    """Versions, and the kind of system."""
    about = {
        "punch": __version__,
        "minor": str(MINOR),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            about[library] = version(library)
    return about


def _show(report: Report, settings: DoctorSettings) -> None:
    if settings.json:
        print(json.dumps(report.as_data(), ensure_ascii=False))
        return
    width = shutil.get_terminal_size((USUAL_COLUMNS, 24)).columns
    print(*lines_of(report, width), sep="\n")
    if settings.bundle is not None:
        print(f"punch: the report is in {plain(str(settings.bundle))}", file=sys.stderr)


def lines_of(report: Report, width: int) -> list[str]:
    """What a person reads: each thing that is wrong or worth a note, the rest in a line each."""
    lines: list[str] = []
    for finding in report.findings:
        if finding.state not in ("wrong", "note"):
            continue
        said = f"{finding.state}: {finding.check}: {finding.said}"
        lines += folded(plain(said).replace("\n", " "), width, indent="    ")
        if str(finding.remedy):
            remedy = f"    remedy: {finding.remedy}"
            lines += folded(plain(remedy).replace("\n", " "), width, indent="      ")
    for state, title in (("well", "well"), ("unknown", "not known")):
        names = dict.fromkeys(each.check for each in report.findings if each.state == state)
        if names:
            lines += folded(f"{title}: {', '.join(names)}", width, indent="    ")
    return lines


def bundle_of(report: Report, around: Surroundings, *, in_full: bool) -> dict[str, Any]:
    """The report for strangers.

    Args:
      report: What was found.
      around: What is set.
      in_full: Leave names, addresses and what others said in.

    """
    data = report.as_data(None if in_full else Disguise())
    return {**data, "set": around.as_data(in_full=in_full)}


def write_bundle(path: Path, report: Report, around: Surroundings, *, in_full: bool) -> None:
    """Write the report for strangers to a new file.

    Raises:
      ConfigurationError: if the file is there already, or cannot be written.

    """
    text = json.dumps(bundle_of(report, around, in_full=in_full), ensure_ascii=False, indent=1)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
