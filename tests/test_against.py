"""When one commit counts as dearer than another, and when it is noise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program's module; its neighbours are found beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("against")
    for name in [name for name, module in sys.modules.items() if _is_benchmark(module)]:
        del sys.modules[name]


def _is_benchmark(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).parent == BENCHMARKS


def test_nine_rounds_leave_out_the_best_and_the_worst(against: ModuleType) -> None:
    """With twice 10 in 512, the median of all lies outside."""
    assert against.interval([5, 1, 9, 2, 8, 3, 7, 4, 6]) == (2, 8)


def test_few_rounds_leave_out_none(against: ModuleType) -> None:
    """Even all of five miss the median once in sixteen times."""
    assert against.interval([3, 1, 2]) == (1, 3)
    assert against.interval([5, 1, 2, 3, 4]) == (1, 5)


def test_a_row_is_worse_only_if_all_of_its_interval_is(against: ModuleType) -> None:
    """One round without a difference is within the noise, two are not noise any more."""
    old = [{"a": 1.0, "b": 1.0, "gone": 1.0}] * 9
    new = [{"a": 1.2, "b": 1.2, "new": 1.0}] * 7 + [{"a": 1.2, "b": 1.0, "new": 1.0}] * 2
    a, b = against.compared("group", old, new)
    assert (a.what, a.ratio, a.is_worse) == ("a", 1.2, True)
    assert (b.what, b.ratio, b.is_worse) == ("b", 1.2, False)


def test_what_is_better_is_never_worse(against: ModuleType) -> None:
    """A ratio is new to old, of something of which less is better."""
    (row,) = against.compared("group", [{"a": 2.0}] * 9, [{"a": 1.0}] * 9)
    assert (row.ratio, row.is_worse) == (0.5, False)


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("1.93 ms", 1.93),
        ("100.1 MB", 100.1),
        ("2000/s", 0.0005),
        ("0.95 cores", 0.95),
        ("1.6e-05 ms", 1.6e-05),
        ("0 of 450000", None),
        ("100.0%", None),
    ],
)
def test_a_reported_number_is_a_cost_or_nothing(
    against: ModuleType, text: str, cost: float | None
) -> None:
    """Rates are turned over; counts and shares are no cost."""
    assert against.cost_of(text) == cost


def test_another_trees_programs_are_that_trees(against: ModuleType, tmp_path: Path) -> None:
    """Both in the folder where ``-m`` looks first and on the path of what it starts."""
    program = tmp_path / "tree" / "punch" / "listener.py"
    program.parent.mkdir(parents=True)
    program.with_name("__init__.py").touch()
    program.write_text(
        "import json, os, time\n"
        "said = {'event': 'listening', 'file': __file__, 'path': os.environ['PYTHONPATH']}\n"
        "print(json.dumps(said), flush=True)\n"
        "time.sleep(60)\n"
    )
    programs = against.Programs(tmp_path, tree=tmp_path / "tree")
    with programs.mock_listener() as (process, said):
        assert Path(said["file"]) == program
        assert said["path"] == str(tmp_path / "tree")
    assert not process.is_running()
