"""The documents say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from punch import events
from punch.settings import SETTINGS, DialerSettings, settings_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# Only the command line reads the environment; a listener's backends name its variables.
SOURCES = [
    path
    for folder in (
        *("punch/*/__main__.py", "punch/cli/**/*.py"),
        *("punch/settings/**/*.py", "punch/backends/**/*.py"),
    )
    for path in sorted(ROOT.glob(folder))
]


def test_the_generated_parts_are_up_to_date() -> None:
    """`python docs/help.py` would change nothing."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "help.py", "--check"], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Any) -> None:
    """Relative links name files that exist."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8"))

    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_variable_that_is_read_is_documented_and_the_other_way_round() -> None:
    """INFERENCE.md has all of them and invents none."""
    pattern = r"\b(?:PUNCH|LLAMA)_[A-Z][A-Z_]+[A-Z]\b"
    read = {
        name for path in SOURCES for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    }
    # What the dialer takes beside the settings that are kept: the question, say.
    kept = (*SETTINGS, *settings_of(DialerSettings))
    read |= {each.variable for each in kept if each.variable and "OTEL" not in each.variable}
    # llama.cpp's own: how its server takes a key without showing it, and constants.
    read -= {"LLAMA_API_KEY", "LLAMA_LOAD_MODE_NONE", "LLAMA_POOLING_TYPE_MEAN"}
    documented = set(re.findall(pattern, (ROOT / "INFERENCE.md").read_text(encoding="utf-8")))

    assert sorted(read - documented) == []
    assert sorted(documented - read) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_script_that_a_document_names_exists(path: Any) -> None:
    """What a reader is told to run is there."""
    named = set(re.findall(r"\bbins/[a-z-]+", path.read_text(encoding="utf-8")))

    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_kind_of_event_that_the_feeds_tell_is_listed() -> None:
    """And none that there is not."""
    kinds = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Lifecycle)
    ]
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower() for kind in kinds}
    text = (ROOT / "docs" / "feeds.md").read_text(encoding="utf-8").partition("| type | when |")[2]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]

    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(names - {"lifecycle"})
