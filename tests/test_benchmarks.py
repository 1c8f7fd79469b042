"""How benchmarks are judged: by their targets, and by what was not there to be measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules that judge; their neighbours are found beside them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("_results", "_program", "cost")
    yield {name: importlib.import_module(name) for name in names}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


def _report(modules: dict[str, ModuleType], *rows: Any, missing: tuple[str, ...] = ()) -> Any:
    return modules["_results"].Report(title="Things", rows=rows, missing=missing)


def test_a_demand_says_by_what_share_of_its_bound_it_is_missed(
    modules: dict[str, ModuleType],
) -> None:
    """From above and from below."""
    results = modules["_results"]
    row = results.Row(what="thing", ours="1")
    most, least = row.at_most(1.2, 1.0, results.times), row.at_least(6.0, 8.0, results.times)
    assert (most.met, most.target) == (False, "at most 1x")
    assert most.missed_by == pytest.approx(0.2)
    assert (least.met, least.target, least.missed_by) == (False, "at least 8x", 0.25)
    assert row.at_most(1.0, 1.0, results.times).met
    assert row.at_least(8.0, 8.0, results.times).missed_by == 0.0


def test_what_is_missing_makes_the_exit_status_one(modules: dict[str, ModuleType]) -> None:
    """A table without one of its sides is not the whole table, whatever its rows say."""
    row = modules["_results"].Row(what="thing", ours="1", met=True)
    verdict = modules["_program"].verdict
    assert verdict([_report(modules, row)]) == 0
    assert verdict([_report(modules, row, missing=("LiteLLM was left out.",))]) == 1
    assert verdict([_report(modules, attrs.evolve(row, met=False))]) == 1


def test_the_judgement_names_the_firm_demands_and_those_missed_by_far(
    modules: dict[str, ModuleType],
) -> None:
    """One firm, one by a tenth, one by a half, and one that has no number."""
    results = modules["_results"]
    row = results.Row(what="", ours="1")
    report = _report(
        modules,
        attrs.evolve(row.at_most(2, 1, results.times, firm=True), what="firm"),
        attrs.evolve(row.at_most(1.1, 1, results.times), what="near"),
        attrs.evolve(row.at_least(1, 2, results.times), what="far"),
        attrs.evolve(row, what="lost", met=False),
        attrs.evolve(row.at_most(1, 1, results.times), what="fine"),
        attrs.evolve(row, what="told"),
    )
    assert modules["cost"].judgement([report]) == [
        "1 of 5 demands are met.",
        "Those that must be: firm missed.",
        "Of the others at most 3 may be missed: 3 missed.",
        "None may be missed by more than 20%: far; lost.",
    ]


def test_a_section_takes_the_place_of_the_one_before(modules: dict[str, ModuleType]) -> None:
    """What stands before and behind it stays; a new one comes last."""
    section = modules["_results"].Section("two")
    ours = f"{section.begin}\nnew\n{section.end}\n"
    document = f"one\n\n{section.begin}\nold\n{section.end}\n\nthree\n"
    assert section.replaced(document, ours) == f"one\n\n{ours}\nthree\n"
    assert section.replaced("one\n", ours) == f"one\n\n{ours}"


def test_every_name_of_the_cost_table_can_be_measured(modules: dict[str, ModuleType]) -> None:
    """`bins/bench cost` fails in its fortieth minute otherwise."""
    for name in modules["cost"].NAMES:
        assert callable(importlib.import_module(name).measure)
