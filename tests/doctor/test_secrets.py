"""A report for strangers has no private part in it, whatever the facts are."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import pytest

from punch import doctor
from punch.capability import PeerId
from punch.doctor import Disguise, Finding, Private, report_of, text

SECRET = "s3cr3t"

JUDGES: dict[type, Callable[[Any], list[Finding]]] = {
    doctor.ClockFacts: doctor.judge_clock,
    doctor.InterfaceFacts: doctor.judge_interfaces,
    doctor.PortFact: lambda fact: doctor.judge_ports((fact,)),
    doctor.FolderFact: lambda fact: doctor.judge_disk((fact,)),
    doctor.GpuFacts: doctor.judge_gpus,
    doctor.EngineFacts: doctor.judge_engines,
    doctor.SettingFault: lambda fact: doctor.judge_settings((fact,)),
    doctor.NameFacts: doctor.judge_name,
    doctor.GrantFacts: doctor.judge_grant,
    doctor.MeetingFacts: doctor.judge_meeting,
    doctor.OwnListener: lambda fact: doctor.judge_firewall((fact,), elsewhere=True),
    doctor.PeerFact: lambda fact: doctor.judge_minors((fact,), 99),
    doctor.OfferFact: lambda fact: doctor.judge_models(
        (fact, attrs.evolve(fact, digest="d"), attrs.evolve(fact, template="t"))
    ),
}

# Names of ours: of settings and variables, of a kind of folder, of a protocol, of scopes.
OURS = {
    (doctor.PortFact, "setting"),
    (doctor.SettingFault, "name"),
    (doctor.SettingFault, "variable"),
    (doctor.FolderFact, "kind"),
    (doctor.OwnListener, "transport"),
    (doctor.GrantFacts, "misses"),
}


def values(kind: Any, owner: type, field: str) -> list[Any]:
    """Values of a type, each text of which is a secret."""
    if (owner, field) in OURS:
        return ["ours"] if kind is not tuple[str, ...] else [("ours",)]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return [value for each in inner for value in values(each, owner, field)]
    if origin is tuple and inner[-1] is Ellipsis:
        return [(), *((value,) for value in values(inner[0], owner, field))]
    if origin is tuple:
        return [tuple(values(each, owner, field)[-1] for each in inner)]
    if attrs.has(kind):
        return list(planted(kind))
    plain: dict[Any, list[Any]] = {
        str: [SECRET],
        bool: [False, True],
        int: [0, 1],
        float: [0.0, 1.8e9, 4e9],
        type(None): [None],
    }
    return plain[kind]


def planted(kind: type) -> Iterator[Any]:
    """Facts of a kind with a secret in every text: each value of each field in turn."""
    hints = typing.get_type_hints(kind)
    fields = {each.name: values(hints[each.name], kind, each.name) for each in attrs.fields(kind)}
    for number in range(max(map(len, fields.values()))):
        yield kind(**{name: those[number % len(those)] for name, those in fields.items()})
    for name, those in fields.items():
        for value in those:
            yield kind(**{each: some[-1] for each, some in fields.items()} | {name: value})


def shown(findings: Iterable[Finding]) -> str:
    """The report for strangers."""
    return json.dumps(report_of(findings, {}).as_data(Disguise()))


@pytest.mark.parametrize("kind", JUDGES, ids=lambda kind: kind.__name__)
def test_no_text_of_a_fact_reaches_a_report_for_strangers(kind: type) -> None:
    """Names, addresses, paths and the words of others are marked where they are put in."""
    found = [finding for facts in planted(kind) for finding in JUDGES[kind](facts)]
    assert found
    assert SECRET not in shown(found)


def test_most_secrets_would_be_there_without_a_disguise() -> None:
    """The test above looks at findings that have something to hide."""
    hiding = {
        kind
        for kind, judge in JUDGES.items()
        for facts in planted(kind)
        if SECRET in "".join(str(each.said) for each in judge(facts))
    }
    assert hiding == JUDGES.keys() - {doctor.InterfaceFacts}


def test_a_listener_that_cannot_be_asked_is_told_without_its_name() -> None:
    """And without its reason, which is its own."""
    assert SECRET not in shown(
        judged := doctor.judge_hello(0, {PeerId(SECRET): SECRET}, is_met=True)
    )
    assert SECRET in str(judged[0].said)


def test_one_part_has_one_number_in_a_whole_report() -> None:
    """A stranger sees that two findings are about one address, and not which."""
    here, there = Private("address", "10.0.0.1"), Private("address", "10.0.0.2")
    disguise = Disguise()
    said = [disguise.of(text("{} and {}", here, there)), disguise.of(text("{}: {}", there, here))]
    assert said == ["<address 1> and <address 2>", "<address 2>: <address 1>"]


def test_a_sentence_is_shown_whole_to_its_owner() -> None:
    """With every part in its place, braces in them included."""
    sentence = text("{} says {}", Private("peer", "{}"), Private("words", "no"))
    assert str(sentence) == "{} says no"
