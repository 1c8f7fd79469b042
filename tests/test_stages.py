"""`bins/test` tells the truth about the runs of pytest that it is made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import stages

_ONE_OF_THREE = "FAILED tests/a.py::test_b - AssertionError: 2\n1 failed, 2 passed in 1s\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("....\n4744 passed in 228.12s (0:03:48)\n", {"passed": 4744}),
        (
            "F\n=== 1 failed, 3 passed, 2 skipped in 1.2s ===",
            {"failed": 1, "passed": 3, "skipped": 2},
        ),
        ("2 passed, 1 error in 0.1s", {"passed": 2, "failed": 1}),
        ("2 passed, 1 xpassed in 0.1s", {"passed": 2, "failed": 1}),
        ("Killed\n", {}),
    ],
)
def test_the_closing_line_of_pytest_is_counted(output: str, expected: dict[str, int]) -> None:
    """What is no success is a failure."""
    assert stages.counted(output) == Counter(expected)


def test_a_run_that_pytest_could_not_end_is_a_failure() -> None:
    """Killed, or stopped by a wrong option: nothing was counted, and nothing is well."""
    ended = stages._ended("unit", 0.0, 137, "Killed\n")
    assert (ended.code, ended.counts["failed"]) == (137, 1)
    assert stages._ended("long", 0.0, 5, "no tests ran in 0.1s\n").code == 0


def test_what_failed_is_named() -> None:
    """Each test once, below its stage: a long output is often cut in its middle."""
    output = (
        "ERROR tests/a/test_b.py::test_c[x y] - | ExceptionGroup: two (1 sub-exception)\n"
        "FAILED tests/a/test_b.py::test_c[x y] - AssertionError: overview at 390\n"
        "FAILED tests/d.py::test_e\n"
        "ERROR: file or directory not found: nothing\n"
        "2 failed, 1 error in 0.1s\n"
    )
    assert stages.named(output) == ("tests/a/test_b.py::test_c[x y]", "tests/d.py::test_e")
    assert stages._ended("real", 0.0, 1, output).failed == stages.named(output)


def test_a_real_test_that_passes_when_run_once_more_is_named() -> None:
    """The machine or another program may have failed it; readers are told, and may doubt it."""

    def passes(name: str, *tests: str) -> stages.Ended:
        return stages.Ended(name=name, seconds=3, code=0, counts=Counter(passed=len(tests)))

    ended = stages.once_more(stages._ended("real", 0.0, 1, _ONE_OF_THREE), passes)
    assert (ended.code, ended.failed, ended.unsteady) == (0, (), ("tests/a.py::test_b",))
    assert stages.closing(ended.counts) == "3 passed, 0 failed"


def test_what_fails_twice_has_failed() -> None:
    """So has what cannot be found again, and what is skipped the second time."""

    def fails(name: str, *tests: str) -> stages.Ended:
        return stages.Ended(name=name, seconds=3, code=1, counts=Counter(failed=1))

    def is_skipped(name: str, *tests: str) -> stages.Ended:
        return stages.Ended(name=name, seconds=3, code=0, counts=Counter(skipped=1))

    for again in (fails, is_skipped):
        ended = stages.once_more(stages._ended("real", 0.0, 1, _ONE_OF_THREE), again)
        assert (ended.code, ended.failed, ended.unsteady) == (1, ("tests/a.py::test_b",), ())
        assert stages.closing(ended.counts) == "2 passed, 1 failed"


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (0, "3 passed in 1s\n"),
        (137, "FAILED tests/a.py::test_b\nKilled\n"),
        (1, "".join(f"FAILED tests/a.py::test_{n}\n" for n in "abc") + "3 failed in 1s\n"),
        (1, "FAILED tests/a.py::test_b\n1 failed, 1 error in 1s\n"),
    ],
)
def test_only_a_few_that_failed_by_themselves_are_run_once_more(code: int, output: str) -> None:
    """Many failures have one cause, and a run that did not end has no list of them."""

    def never(name: str, *tests: str) -> stages.Ended:
        raise AssertionError("run once more")

    ended = stages._ended("real", 0.0, code, output)
    assert stages.once_more(ended, never) is ended


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0), 0), ((1, 0), 1), ((-9, 0), -9), ((1, -11), -11), ((2, 1), 2)]
)
def test_a_killed_run_is_no_success_beside_one_that_ended(
    codes: tuple[int, int], expected: int
) -> None:
    """A signal is a negative code: the larger of two would be the other's."""
    assert stages.worst(codes) == expected
    assert stages.worst(reversed(codes)) == expected


def test_the_sum_is_one_plain_line() -> None:
    """Whoever reads the output finds it by its form."""
    assert stages.closing(Counter(passed=12)) == "12 passed, 0 failed"
    assert stages.closing(Counter(passed=12, skipped=1)) == "12 passed, 0 failed, 1 skipped"


def test_the_shares_are_all_tests_each_once() -> None:
    """No file is forgotten between two processes, and none is run twice."""
    tests = Path(__file__).parent
    there = [path.relative_to(tests.parent).as_posix() for path in tests.rglob("test_*.py")]
    lab = [name for name in there if name.startswith("tests/lab/")]
    shared = [
        name
        for files in (stages.unit_files(), stages.real_files())
        for share in stages.shares_of(files, stages.SECONDS)
        for name in share
    ]
    assert sorted([*shared, *lab]) == sorted(there)
    assert {*stages.SECONDS, *stages.SLOW_SECONDS} <= {Path(name).name for name in there}


def test_the_shares_take_about_as_long() -> None:
    """They have not as many bytes: a file of a few lines may play for minutes."""
    files = [stages.TESTS / "test_stages.py", *stages.slow_files()]
    for name in {path.name for path in files}:
        (alone, others) = sorted(stages.shares_of(files, {name: 10_000.0}), key=len)
        assert [Path(each).name for each in alone] == [name]
        assert len(others) == len(files) - 1
