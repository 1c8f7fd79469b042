"""Runs the tests in stages, and says how long each took and what came of all of them.

    tests/stages.py unit    formatting, lint, types, and the unit tests: under a minute
    tests/stages.py all     also what takes long, and the real ones: what CI runs
    tests/stages.py long    what takes longer than CI may; writes tests/LONG.md

`bins/test` calls it. Arguments after the stage go to pytest, in one run of that stage's tests.

The unit tests are run by two processes, each with half of the files: they wait for nobody, and two
cores are what we count on. The last line is the sum over all runs of pytest, in its own words.

A test of real parts that fails is run once more, alone: real programs and busy machines have faults
of their own. Whether it passes then or not, it is named at the end.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
RESULTS = TESTS / "LONG.md"

# Runs of pytest at once: as many as the smallest machine that runs CI has cores. Real tests wait
# more than they compute.
SIDE_BY_SIDE = 2

# About how many seconds the longest files of real tests take beside each other, as
# `pytest --durations=0` says, and of the slow ones; the others have so many bytes for each second.
SECONDS = {
    "test_survival.py": 410,
    "test_dashboard.py": 285,
    "test_walkthrough.py": 285,
    "test_old_and_new.py": 115,
    "test_endurance.py": 110,
    "test_binding.py": 100,
    "test_backends_http.py": 95,
    "test_gateway.py": 95,
    "test_choosing.py": 90,
    "test_constrained.py": 90,
    "test_libp2p_defects.py": 85,
    "test_node_peers.py": 65,
    "test_examples_real.py": 55,
    "test_gateway_schema.py": 45,
    "test_open_ports.py": 45,
}
SLOW_SECONDS = {
    "test_faults_are_noticed.py": 200,
    "test_histories.py": 30,
    "test_evidence.py": 30,
    "test_policy_quality.py": 25,
    "test_lost_tests.py": 15,
}
BYTES_A_SECOND = 900

# Made-up lives of a swarm (tests/test_histories.py): CI has a minute and a half for them.
CI_HISTORIES = "500"
LONG_HISTORIES = "10000"

# A run that takes longer hangs; a test that does ends its run, and its stack is printed. The limits
# of the real tests end at 600 s.
MAX_SECONDS = 60 * 60.0
MAX_TEST_SECONDS = 660

# So many real tests may pass at their second try only: more have one cause, and it is ours.
MAX_UNSTEADY = 2

# What pytest counts in its closing line, and what it comes to for whoever reads ours.
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected)")
SAME_AS = {"error": "failed", "errors": "failed", "xpassed": "failed"}
# A line of pytest's short summary.
NAMED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
# Nothing of the kind that was asked for: as with `bins/test --long` before anything is that long.
NO_TESTS = 5
# The exit code of pytest where nothing but tests failed.
TESTS_FAILED = 1


@attrs.frozen(kw_only=True)
class Ended:
    """What one stage came to."""

    name: str
    """Of the stage."""

    seconds: float
    """How long it took."""

    code: int
    """Exit code; 0 if all is well."""

    counts: Counter[str] = attrs.field(factory=Counter)
    """How many tests passed, failed and were skipped."""

    failed: tuple[str, ...] = ()
    """Which tests failed."""

    unsteady: tuple[str, ...] = ()
    """Which tests failed first, and passed when they were run once more."""

    def line(self) -> str:
        """One line for people."""
        said = f"{self.seconds / 60:.1f} minutes"
        counts = f", {closing(self.counts)}" if self.counts else ""
        return f"stage {self.name}: {said}{counts}{'' if self.code == 0 else ', NOT WELL'}"


def closing(counts: Counter[str]) -> str:
    """The sum, as it is to be read: passed and failed always, skipped if there are any."""
    text = f"{counts['passed']} passed, {counts['failed']} failed"
    return f"{text}, {counts['skipped']} skipped" if counts["skipped"] else text


def counted(output: str) -> Counter[str]:
    """What the closing line of one run of pytest says."""
    found: Counter[str] = Counter()
    for line in reversed(output.splitlines()):
        if pairs := COUNTED.findall(line):
            for number, kind in pairs:
                found[SAME_AS.get(kind, kind)] += int(number)
            break
    return found


def named(output: str) -> tuple[str, ...]:
    """The tests that one run of pytest says have failed, each once."""
    return tuple(dict.fromkeys(NAMED.findall(output)))


def run(name: str, *commands: Sequence[str], **environment: str) -> Ended:
    """Commands one after the other, each heard as it speaks."""
    began = time.monotonic()
    code = 0
    for command in commands:
        code = code or subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode
    return Ended(name=name, seconds=time.monotonic() - began, code=code)


def pytest(name: str, *arguments: str, **environment: str) -> Ended:
    """One run of pytest, heard as it speaks."""
    began = time.monotonic()
    lines = []
    with _start(arguments, environment) as process:
        guard = threading.Timer(MAX_SECONDS, process.kill)
        guard.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        guard.cancel()
    return _ended(name, began, process.returncode, "".join(lines))


def pytest_side_by_side(
    name: str, shares: Sequence[Sequence[str]], *arguments: str, **environment: str
) -> Ended:
    """Several runs of pytest at once, each heard when it has ended."""
    began = time.monotonic()
    print(f"stage {name}: {len(shares)} runs of pytest, each heard at its end", flush=True)
    running = [_start((*arguments, *share), environment) for share in shares]
    ended = []
    for process in running:
        try:
            output, _ = process.communicate(timeout=MAX_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        print(output, end="", flush=True)
        ended.append(_ended(name, began, process.returncode, output))
    return Ended(
        name=name,
        seconds=time.monotonic() - began,
        code=worst(one.code for one in ended),
        counts=sum((one.counts for one in ended), Counter()),
        failed=tuple(name for one in ended for name in one.failed),
    )


def worst(codes: Iterable[int]) -> int:
    """The exit code of several runs: a run that did not end counts more than tests that failed."""
    return max(codes, key=lambda code: (code not in (0, TESTS_FAILED), code != 0))


def _start(arguments: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    hangs = (f"faulthandler_timeout={MAX_TEST_SECONDS}", "faulthandler_exit_on_timeout=true")
    options = [word for setting in hangs for word in ("-o", setting)]
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", *options, *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(name: str, began: float, code: int, output: str) -> Ended:
    counts = counted(output)
    # A run that pytest did not bring to its end has counted nothing, and is no success.
    code = 0 if code == NO_TESTS and not counts["failed"] else code
    if code and not counts["failed"]:
        counts["failed"] += 1
    return Ended(
        name=name,
        seconds=time.monotonic() - began,
        code=code,
        counts=counts,
        failed=named(output),
    )


def once_more(ended: Ended, run_alone: Callable[..., Ended] = pytest) -> Ended:
    """The stage with its failed tests run again, if they are few and nothing else went wrong."""
    few = len(ended.failed)
    has_ended = ended.code == TESTS_FAILED
    if not has_ended or not 0 < few == ended.counts["failed"] <= MAX_UNSTEADY:
        return ended
    print(f"stage {ended.name}: once more, alone: {', '.join(ended.failed)}", flush=True)
    again = run_alone(ended.name, *ended.failed)
    seconds = ended.seconds + again.seconds
    if again.code or again.counts["passed"] != few:
        return attrs.evolve(ended, seconds=seconds)
    return Ended(
        name=ended.name,
        seconds=seconds,
        code=0,
        counts=ended.counts - Counter(failed=few) + Counter(passed=few),
        unsteady=ended.failed,
    )


# ---- the stages ----

APART = ("--ignore=tests/integration", "--ignore=tests/lab")
UNIT = (*APART, "-m", "not slow and not long")
SLOW = (*APART, "-m", "slow and not long")
REAL = ("-m", "not long")
LAB = ("tests/lab", "-m", "not long")


def shares_of(
    files: Iterable[Path], seconds: Mapping[str, float], count: int = SIDE_BY_SIDE
) -> list[list[str]]:
    """The *files* of tests, in shares that take about as long; some are known to take *seconds*."""

    def weight(path: Path) -> float:
        return seconds.get(path.name, path.stat().st_size / BYTES_A_SECOND)

    found: list[tuple[float, list[str]]] = [(0.0, []) for _ in range(count)]
    for path in sorted(files, key=lambda path: (-weight(path), path)):
        taken, share = found.pop(0)
        share.append(str(path.relative_to(ROOT)))
        found = sorted([*found, (taken + weight(path), share)], key=lambda one: one[0])
    return [share for _, share in found]


def unit_files() -> list[Path]:
    """The modules whose tests have neither real parts nor machines."""
    return [
        path
        for path in TESTS.rglob("test_*.py")
        if not {"integration", "lab"} & set(path.relative_to(TESTS).parts)
    ]


def slow_files() -> list[Path]:
    """Those of them that have tests which compute for seconds."""
    return [path for path in unit_files() if "mark.slow" in path.read_text(encoding="utf-8")]


def real_files() -> list[Path]:
    """The modules with real parts."""
    return list((TESTS / "integration").rglob("test_*.py"))


def check() -> Ended:
    """Formatting, lint, types and the layering, in a `.venv` that is up to date."""
    return run("check", ["bins/check"])


def prepare() -> Ended:
    """What the real tests need: the binding, llama.cpp's programs, a model."""
    pull = [sys.executable, "-m", "punch", "models", "pull", "smollm2"]
    return run("prepare", ["bins/setup", "--binding"], ["bins/llama-cpp"], pull)


def unit() -> Ended:
    """The unit tests that take no long time."""
    return pytest_side_by_side("unit", shares_of(unit_files(), {}), *UNIT)


def slow() -> Ended:
    """Those that compute for seconds: the quality of the policies, made-up lives."""
    return pytest_side_by_side(
        "slow", shares_of(slow_files(), SLOW_SECONDS), *SLOW, PUNCH_TEST_HISTORIES=CI_HISTORIES
    )


def real() -> Ended:
    """Real sockets, processes and models."""
    shares = shares_of(real_files(), SECONDS)
    return once_more(pytest_side_by_side("real", shares, *REAL, "--durations=10"))


def lab() -> Ended:
    """Machines in networks of their own; where there can be none, pytest says why."""
    return once_more(pytest("lab", *LAB, "-rs"))


def long() -> Ended:
    """Whatever takes longer than CI may."""
    return pytest("long", "tests", "-m", "long or slow", PUNCH_TEST_HISTORIES=LONG_HISTORIES)


STAGES: dict[str, tuple[Callable[[], Ended], ...]] = {
    "unit": (check, unit),
    "all": (check, unit, prepare, slow, real, lab),
    "long": (prepare, long),
}
# The tests of each, as one run of pytest, for somebody who has more to say to it.
SELECTED: dict[str, tuple[str, ...]] = {
    "unit": ("tests", *UNIT),
    "all": ("tests",),
    "long": ("tests", "-m", "long or slow"),
}


def note(ended: Sequence[Ended]) -> None:
    """Write what the long stage came to, and on which commit."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    day = datetime.datetime.now(datetime.UTC).date()
    lines = "".join(f"- {one.line()}\n" for one in ended)
    RESULTS.write_text(
        f"# What takes longer than CI may\n\n`bins/test --long` ran on commit {commit} "
        f"on {day}.\n\n{lines}",
        encoding="utf-8",
    )


def main(arguments: Sequence[str]) -> int:
    """Run what is named; the exit code."""
    what, *more = arguments
    if more:
        if what == "all":
            prepare()
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *SELECTED[what], *more], cwd=ROOT
        ).returncode
    ended = []
    for stage in STAGES[what]:
        ended.append(stage())
        print(ended[-1].line(), flush=True)
        if ended[-1].code and not ended[-1].counts:
            break  # Without its types or its model the rest would only fail of that.
    if what == "long":
        note(ended)
    print("\nstages:")
    for one in ended:
        print(f"  {one.line()}")
        for test in one.failed:
            print(f"    failed: {test}")
        for test in one.unsteady:
            print(f"    failed once, passed when run once more: {test}")
    total: Counter[str] = sum((one.counts for one in ended), Counter())
    is_well = all(one.code == 0 for one in ended)
    if not is_well and not total["failed"]:
        total["failed"] += 1
    print(closing(total), flush=True)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["unit"]))
