"""Each planted fault is noticed: minutes, and so apart from the test of their list."""

from __future__ import annotations

import planted_faults
import pytest
from planted_faults import FAULTS, Fault

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_noticed(fault: Fault) -> None:
    """By the tests that are about it."""
    assert planted_faults.notice(fault) is None
