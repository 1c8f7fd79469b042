"""Lists the tests of an earlier commit that are gone, or that no longer do what they did.

    tests/lost_tests.py            all of them; exit status 1 if one has no reason
    tests/lost_tests.py --known    also those whose reason stands in tests/lost_tests.txt

A test counts as kept if one of the same name is there, in whatever file, and does at least in part
what it did; or if one of another name does nearly the same. `tests/past.py` names the commit.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path

import attrs
import past

ROOT = Path(__file__).resolve().parents[1]
REASONS = Path(__file__).with_suffix(".txt")

# Share of the lines that two tests have in common. Fixtures and builders come and go, so a test of
# the same name may change a lot; one of another name must be the same but for a few words.
LEAST_FOR_SAME_NAME = 0.25
LEAST_FOR_OTHER_NAME = 0.85
SHORT_LINES = 40


@attrs.frozen
class Test:
    """One test function."""

    __test__ = False

    path: str
    """Its file, from the root."""

    name: str
    """With its class, if it is in one."""

    lines: tuple[str, ...] = attrs.field(repr=False)
    """What it does, without formatting, indents and its docstring."""

    @property
    def identity(self) -> str:
        """As pytest spells it."""
        return f"{self.path}::{self.name}"

    @property
    def words(self) -> list[str]:
        """Its words and other signs, in order."""
        return re.findall(r"\w+|\S", "\n".join(self.lines))

    def likeness(self, other: Test) -> float:
        """Share of common lines, 0 to 1; half of that of common words where all lines changed."""
        matcher = SequenceMatcher(None, self.lines, other.lines, autojunk=False)
        if matcher.real_quick_ratio() < LEAST_FOR_SAME_NAME:
            return 0.0
        ratio = matcher.ratio()
        if ratio < LEAST_FOR_SAME_NAME and max(len(self.lines), len(other.lines)) <= SHORT_LINES:
            # Each line may have changed by a word: word by word, then.
            return SequenceMatcher(None, self.words, other.words, autojunk=False).ratio() / 2
        return ratio


def tests_in(root: Path) -> Iterator[Test]:
    """Every test function below ``tests`` of a tree."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(root).as_posix()
        for node in tree.body:
            yield from _functions(place, node, "")


def _functions(path: str, node: ast.stmt, prefix: str) -> Iterator[Test]:
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            yield from _functions(path, inner, f"{prefix}{node.name}::")
        if any(_is_machine(base) for base in node.bases):
            # A Hypothesis machine: its rules and invariants are the test.
            yield Test(path, f"{prefix}{node.name}", _lines(node.body))
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
        yield Test(path, f"{prefix}{node.name}", _lines(node.body))


def _is_machine(base: ast.expr) -> bool:
    return ast.unparse(base).endswith("StateMachine")


def _lines(body: Iterable[ast.stmt]) -> tuple[str, ...]:
    text = "\n".join(
        ast.unparse(one)
        for one in body
        if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    )
    return tuple(line.strip() for line in text.splitlines())


def lost(before: Iterable[Test], now: Iterable[Test]) -> list[tuple[Test, str]]:
    """The tests that are gone, each with what comes nearest to it."""
    by_name: dict[str, list[Test]] = defaultdict(list)
    for test in now:
        by_name[test.name].append(test)
    missing = []
    for test in before:
        # One test of today stands for one of then.
        same = by_name.get(test.name, [])
        best = max(same, key=test.likeness, default=None)
        if best is not None and test.likeness(best) >= LEAST_FOR_SAME_NAME:
            same.remove(best)
        else:
            missing.append((test, best))
    left = [test for tests in by_name.values() for test in tests]
    found = []
    for test, namesake in missing:
        best = max(left, key=test.likeness, default=None)
        if best is not None and test.likeness(best) >= LEAST_FOR_OTHER_NAME:
            left.remove(best)
        elif namesake is not None:
            found.append((test, f"does something else now, in {namesake.path}"))
        elif best is not None and test.likeness(best) >= LEAST_FOR_SAME_NAME:
            found.append((test, f"most like it is {best.identity}"))
        else:
            found.append((test, "nothing is like it"))
    return found


def reasons() -> Mapping[str, str]:
    """The reason of each test that may be gone: ``path::name: reason``, a line each."""
    lines = REASONS.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            identity, colon, reason = line.partition(": ")
            if not colon or not reason.strip():
                raise ValueError(f"{REASONS.name}: no reason: {line}")
            found[identity] = reason.strip()
    return found


def lost_since() -> list[tuple[Test, str]]:
    """The tests of the earlier commit that are gone today.

    Raises:
      past.PastIsMissing: if that commit is not in this clone.

    """
    with tempfile.TemporaryDirectory() as folder:
        before = list(tests_in(past.unpack(Path(folder), past.COMMIT, "tests")))
    return lost(before, tests_in(ROOT))


def main() -> int:
    """Print them; the exit code."""
    known = reasons()
    unexplained = 0
    for test, nearest in lost_since():
        reason = known.get(test.identity)
        unexplained += reason is None
        if reason is None or "--known" in sys.argv:
            print(f"{test.identity}: {reason or f'NO REASON GIVEN ({nearest})'}")
    print(f"{unexplained} gone without a reason", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
