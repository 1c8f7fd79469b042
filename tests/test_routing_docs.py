"""docs/routing.md says what the code does: its names, its numbers and its example."""

from __future__ import annotations

import importlib
import re
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, get_args, get_type_hints

import attrs
import pytest

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing import POLICIES, STANDARD_FILTERS, CompletionTime, Policy, Reason, RouteRequest
from punch.wire import Progress

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")

_ROW = r"^\| `([A-Z][A-Z_]+)` \| (\S+) \| `([a-z_/]+)\.py` \|"
CONSTANTS = [match.groups() for match in re.finditer(_ROW, DOCUMENT, re.MULTILINE)]

TERMS = CompletionTime().term_names


def first_column(heading: str) -> list[str]:
    """The names in the first column of the table with this heading."""
    _, _, rest = DOCUMENT.partition(f"| {heading} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


@pytest.mark.parametrize(("name", "value", "module"), CONSTANTS)
def test_every_constant_has_the_value_that_the_document_says(
    name: Any, value: Any, module: Any
) -> None:
    """It is read from the module that the table names."""
    found = getattr(importlib.import_module("punch." + module.replace("/", ".")), name)

    assert float(found) == float(Fraction(value))


def test_every_constant_that_the_text_names_is_in_a_table() -> None:
    """So that none is mentioned without a value that was compared."""
    named = set(re.findall(r"`([A-Z][A-Z_]+[A-Z])`", DOCUMENT)) - {"PUNCH_DECISION_LOG"}

    assert sorted(named - {name for name, _, _ in CONSTANTS}) == []
    assert len(CONSTANTS) > 50


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("term", TERMS),
        ("filter", tuple(step.name for step in STANDARD_FILTERS)),
        ("policy", tuple(POLICIES)),
        ("state", get_args(get_type_hints(Progress)["state"])),
    ],
)
def test_every_list_is_that_of_the_code_in_its_order(heading: str, names: Any) -> None:
    """Terms, filters, policies, and what a peer may say while it gives no text."""
    listed = first_column(heading)

    assert sorted(listed) == sorted(names)
    if heading in ("term", "filter"):
        assert tuple(listed) == names


def test_the_formula_is_the_sum_of_the_terms() -> None:
    """Every term, in the order of the code."""
    assert f"total = {' + '.join(TERMS)}\n" in DOCUMENT


def test_the_example_comes_out_as_the_document_says() -> None:
    """The peer and the request of the text, through the scorer itself."""
    offer = ModelOffer(name="m", prefill_rate=500.0, decode_rate=20.0, slowdown=0.5)
    load = Load(slots=2, busy=2, queued=1, queued_prompt_tokens=300, output_tokens_left=420)
    peer = PeerRecord(
        peer_id=PeerId("a"),
        capability=Capability.of_one_lane(backend="b", simulated=False, models=(offer,), load=load),
        incarnation=1,
        sequence=1,
        seen_at=0.0,
        rtt=0.02,
    )
    request = RouteRequest(
        model="m", prompt_tokens=700, output_tokens=200, cached_tokens={PeerId("a"): 256}
    )
    (terms,) = CompletionTime().terms(request, peer.candidates(), Random(0))
    line = next(line for line in DOCUMENT.splitlines() if line.startswith("rtt 0.02"))
    said = {name: float(value) for name, value in re.findall(r"(\w+) (-?[\d.]+)", line)}

    assert said == pytest.approx(dict(zip(TERMS, terms, strict=True)) | {"total": sum(terms)})


def test_the_policies_do_at_near_ties_what_the_table_says() -> None:
    """A lot among those that are near, a gate, exploration; or none of it."""
    _, _, rest = DOCUMENT.partition("| policy |")
    said = {
        name: row.split("|")[3].strip()
        for row in rest.partition("\n\n")[0].splitlines()[2:]
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
        if name in POLICIES
    }

    assert said == {name: _near_ties(policy) for name, policy in POLICIES.items()}


def _near_ties(policy: Policy) -> str:
    full = policy.gate is not None and policy.explore > 0
    assert full == (policy.gate is not None or policy.explore > 0)
    return "yes, gate and exploration too" if full else "yes" if policy.near else "no"


def test_of_six_peers_none_is_hot_and_of_seven_one_may_be() -> None:
    """What the document says of small pools."""
    policy = attrs.evolve(POLICIES["completion-time"], explore=0.0)

    def hot(count: int) -> int:
        offer = ModelOffer(name="m")
        peers = [
            PeerRecord(
                peer_id=PeerId(str(number)),
                capability=Capability.of_one_lane(
                    backend="b",
                    simulated=False,
                    models=(offer,),
                    load=Load(busy=int(number == 0), queued=int(number == 0), queue_limit=9),
                ),
                incarnation=1,
                sequence=1,
                seen_at=0.0,
            )
            for number in range(count)
        ]
        return len(policy.decide(RouteRequest(model="m"), peers, now=0.0, rng=Random(0)).hot)

    assert [hot(6), hot(7)] == [0, 1]


def test_every_reason_for_another_try_is_explained() -> None:
    """First, failover, continuation, hedge and move have a paragraph each."""
    heads = {
        "first": "Attempts",
        "failover": "Attempts",
        "continuation": "Continuation",
        "hedge": "Hedging",
        "move": "Moving",
    }

    missing = [head for head in heads.values() if not re.search(rf"\*\*{head}\.?\*\*", DOCUMENT)]

    assert sorted(heads) == sorted(get_args(Reason))
    assert missing == []


def test_what_the_results_say_has_its_place() -> None:
    """The benchmark's words go between two marks."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"

    assert DOCUMENT.count(begin) == DOCUMENT.count(end) == 1
    assert DOCUMENT.index(begin) < DOCUMENT.index(end)
    assert len(DOCUMENT.splitlines()) < 660
