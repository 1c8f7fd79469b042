"""llama.cpp's own server tests, asked of a gateway: who speaks to llama-server can speak to punch.

The tests are taken from the source archive that `bins/llama-cpp` builds from, checked against its
digest and kept in this user's cache; nothing of them is in the repository. `_llama_cpp_adapter.py`
puts a gateway with SmolLM2 in the place of their server. What asks for llama.cpp's own fields, or
for the words of one model, is in the table of `_llama_cpp_excluded.py`, with the reason.

    benchmarks/llama_cpp_tests.py              what passed, failed and is left out, by file
    benchmarks/llama_cpp_tests.py --reasons    also what is left out, and why
    benchmarks/llama_cpp_tests.py --all        run those too, and say which of them pass

Exit code 1 if a test fails that is not in the table, or the table names one that is not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import attrs
import platformdirs
from _llama_cpp_excluded import unknown
from _results import UnavailableError
from inference import ROOT, find_model, find_server

BENCHMARKS = Path(__file__).resolve().parent

FILES = (
    "unit/test_chat_completion.py",
    "unit/test_completion.py",
    "unit/test_compat_oai_responses.py",
    "unit/test_embedding.py",
    "unit/test_compat_anthropic.py",
    "unit/test_tool_call.py",
)
INSIDE = "vendor/llama.cpp/tools/server/tests/"


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one test."""

    test: str
    """File, function and parameters, as pytest has them."""

    outcome: str
    """``passed``, ``failed`` or ``skipped``."""

    excluded: str | None
    """Why it is none of ours; `None` if it is."""

    @property
    def file(self) -> str:
        """Its file."""
        return self.test.partition("::")[0]

    @property
    def counted(self) -> str:
        """In which column it counts."""
        return "excluded" if self.excluded is not None else self.outcome


def load_builder() -> ModuleType:
    """`bins/llama-cpp`, which knows the archive."""
    path = ROOT / "bins" / "llama-cpp"
    loader = SourceFileLoader("llama_cpp_builder", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def find_tests() -> Path:
    """The folder of their tests; taken from the archive if it is not there yet."""
    builder = load_builder()
    cache = platformdirs.user_cache_path("punch") / "llama.cpp-tests"
    target = cache / str(builder.VERSION)
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".taking-", dir=cache) as name:
        folder = Path(name)
        inside = f"{builder.ARCHIVE.removesuffix('.tar.gz')}/{INSIDE}"
        with tarfile.open(builder.download(folder)) as archive:
            members = [each for each in archive if each.name.startswith(inside)]
            archive.extractall(folder, members, filter="data")
        try:
            (folder / inside).rename(target)
        except OSError:
            if not target.is_dir():  # Somebody else may have been faster.
                raise
    return target


def run(tests: Path, *, every: bool) -> list[Outcome]:
    """Run them in a copy of their folder, where they may leave what they like."""
    with tempfile.TemporaryDirectory(prefix="punch-llama-cpp-tests-") as name:
        folder = Path(name) / "tests"
        shutil.copytree(tests, folder)
        outcomes = Path(name) / "outcomes.jsonl"
        outcomes.touch()
        command = [sys.executable, "-m", "pytest", "-p", "_llama_cpp_adapter", "-q", "-rf"]
        command += ["-p", "no:cacheprovider", "--color=no", "--show-capture=no", "--tb=short"]
        subprocess.run(
            [*command, *FILES],
            cwd=folder,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(BENCHMARKS))),
                "LLAMA_CPP_TESTS": str(folder),
                "LLAMA_CPP_TESTS_SERVER": str(find_server()),
                "LLAMA_CPP_TESTS_MODEL": str(find_model()),
                "LLAMA_CPP_TESTS_OUTCOMES": str(outcomes),
                "LLAMA_CPP_TESTS_ALL": "1" if every else "",
            },
        )
        return [
            Outcome(**json.loads(line))
            for line in outcomes.read_text(encoding="utf-8").splitlines()
        ]


def table(outcomes: Iterable[Outcome]) -> str:
    """How many of each file, in Markdown."""
    counts = {file: Counter[str]() for file in FILES}
    for each in outcomes:
        counts[each.file][each.counted] += 1
    lines = ["| file | passed | failed | excluded |", "| --- | --- | --- | --- |"]
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter[str]()))]:
        row = (name.removeprefix("unit/"), count["passed"], count["failed"], count["excluded"])
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def reasons(outcomes: Iterable[Outcome]) -> str:
    """What is excluded, by its reason."""
    found: dict[str, Counter[str]] = {}
    for each in outcomes:
        if each.excluded is not None:
            test = each.test.removeprefix("unit/").partition("[")[0]
            found.setdefault(each.excluded, Counter())[test] += 1
    return "\n".join(
        f"{why}\n" + "\n".join(f"  {test} ({count})" for test, count in tests.items())
        for why, tests in found.items()
    )


def main() -> int:
    """Run them and print what came of it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reasons", action="store_true", help="print why tests are left out")
    parser.add_argument("--all", action="store_true", help="run what is left out, too")
    arguments = parser.parse_args()
    try:
        outcomes = run(find_tests(), every=arguments.all)
    except UnavailableError as error:
        print(f"llama.cpp's tests: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(outcomes)}")
    if arguments.reasons:
        print(f"\n{reasons(outcomes)}")
    if arguments.all:
        needless = [each.test for each in outcomes if each.excluded and each.outcome == "passed"]
        print("\nleft out, and passed:", *needless, sep="\n  ")
    missing = unknown(each.test for each in outcomes)
    for name in missing:
        print(f"\nthe table names {name}, which is no test (any more)")
    seen = Counter(each.counted for each in outcomes)
    # Of what was never run, nothing is known.
    return 1 if seen["failed"] or missing or not seen["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
