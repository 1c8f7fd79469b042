"""``punch doctor``: says what is wrong with this machine's set-up, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from ..._version import __version__
from ...doctor import (
    Disguise,
    Finding,
    Report,
    judge_disk,
    judge_paths,
    judge_ports,
    judge_settings,
    report_of,
)
from ...exceptions import ConfigurationError
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
from .._shared import bootstraps
from ..up import UpSettings
from ._examine import Examination, cannot_be_had, examine
from ._looks import NAMESPACE_SECONDS, OF_NAMESPACE, of_engines, of_machine, of_namespace, off
from ._machine_facts import measure_folders, measure_ports
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

USUAL_COLUMNS = 100
_LIBRARIES = ("trio", "libp2p", "msgpack")


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
    up, network = around.load(UpSettings, {}), settings.network
    found = [*judge_settings(around.faults), *judge_paths()]

    async def ports() -> list[Finding]:
        return judge_ports(await off(partial(measure_ports, up)))

    async def disk() -> list[Finding]:
        return judge_disk(await off(measure_folders))

    examinations = [of_machine("ports", ports), of_machine("disk", disk)]
    try:
        bootstraps(network)
        place = place_of(network)
    except ConfigurationError as error:
        # What is set says no namespace: the machine is looked at all the same.
        found += cannot_be_had(error, ("settings", *OF_NAMESPACE))
        alone = partial(of_engines, (), (), up.listener.backend)
        examinations.append(
            Examination(checks=("GPU", "engines"), seconds=NAMESPACE_SECONDS, run=alone)
        )
    else:
        examinations += of_namespace(network, place, up, settings.identity)
    return report_of([*found, *await examine(examinations)], _about())


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
