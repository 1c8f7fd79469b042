"""Workers of a split that are lost, over real tunnels, at every stage and in several ways.

The programs are those that people start. Machines that are cut off are in the laboratory's tests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.lost_workers import HARMS, STAGES, Home, lose
from integration.programs import limit, open_programs

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def home(
    llama_cpp_folder: Path, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    """Two workers that lend to one coordinator."""
    with open_programs(tmp_path_factory.mktemp("deaths")) as programs:
        opened = Home(
            head=programs, places=[programs] * 2, engine=llama_cpp_folder, model=model_path
        )
        opened.open()
        yield opened


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("harm", HARMS)
@limit(240)
def test_a_request_outlives_a_worker_that_is_lost(
    harm: str, victim: int, stage: str, home: Home
) -> None:
    """It is answered, nothing is left running, and the next request works."""
    try:
        lose(home, HARMS[harm], victim, stage)
    finally:
        home.revive()
