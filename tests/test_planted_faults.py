"""The planted faults can be planted; `tests/test_faults_are_noticed.py` plants them."""

from __future__ import annotations

import planted_faults
import pytest
from planted_faults import FAULTS, ROOT, Fault

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_there_are_at_least_twenty() -> None:
    """Each under a name of its own."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@each_fault
def test_the_text_of_a_fault_is_there_once(fault: Fault) -> None:
    """A fault in code that was rewritten says nothing: look for its like, and put that there."""
    assert [count for _, count in planted_faults.places(fault)] == [1]
    assert all((ROOT / name).is_file() for name in fault.tests)
