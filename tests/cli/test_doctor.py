"""`punch doctor`: what it reads, how it waits, and what it shows; judges are in tests/doctor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.cli.doctor._doctor import (
    DoctorSettings,
    bundle_of,
    lines_of,
    write_bundle,
)
from punch.cli.doctor._examine import Examination, examine
from punch.cli.doctor._facts import clock_facts, offer_facts, own_listener
from punch.cli.doctor._seen import lanes_that_rest, models_at_work, models_on_cpu, models_to_load
from punch.cli.doctor._set import read_surroundings
from punch.doctor import (
    Finding,
    Private,
    judge_settings,
    note,
    report_of,
    text,
    unknown,
    well,
    wrong,
)
from punch.exceptions import ConfigurationError
from punch.peers import IN_PROCESS, PeerRecord
from punch.settings import SETTINGS, ListenerSettings

SECRET = "s3cr3t"
NO_FILE = {"PUNCH_SETTINGS": "none"}


# ---- what is set ----


def test_every_wrong_setting_is_found_and_the_others_count(tmp_path: Path) -> None:
    """Of the variables and of the file; a program's settings can be had all the same."""
    path = tmp_path / "settings.toml"
    path.write_text("[listener]\nslots = -1\nqueue = 3\n[gateway]\nport = 99999\n")
    environment = {"PUNCH_SETTINGS": str(path), "PUNCH_CONTEXT": "many"}

    around = read_surroundings(environment)

    assert {(each.name, each.variable) for each in around.faults} == {
        ("listener.slots", None),
        ("listener.context", "PUNCH_CONTEXT"),
        ("gateway.port", None),
    }
    settings = around.load(ListenerSettings, {})
    assert (settings.queue, settings.backend.slots) == (3, None)


@pytest.mark.parametrize("content", ["[listener", "[listener]\nslosts = 1\n"])
def test_a_file_that_cannot_be_used_is_one_fault(tmp_path: Path, content: str) -> None:
    """Everything else is at its default."""
    path = tmp_path / "settings.toml"
    path.write_text(content)
    around = read_surroundings({"PUNCH_SETTINGS": str(path)})
    assert [each.name for each in around.faults] == [None]
    assert around.load(ListenerSettings, {}) is not None


def test_a_wrong_flag_is_told_as_of_every_program() -> None:
    """It was typed just now."""
    flags = {"--log-level": ("loud",)}
    with pytest.raises(ConfigurationError, match="loud"):
        read_surroundings(NO_FILE).load(DoctorSettings, flags)


# ---- waiting ----


def examination(findings: Sequence[Finding] | Exception | float, *checks: str) -> Examination:
    """One that finds something, fails, or takes so many seconds."""

    async def run() -> Sequence[Finding]:
        if isinstance(findings, Exception):
            raise findings
        if isinstance(findings, float):
            await trio.sleep(findings)
            return ()
        return findings

    return Examination(checks=checks, seconds=5.0, run=run)


async def test_a_check_that_hangs_holds_up_no_other(autojump_clock: trio.testing.MockClock) -> None:
    """What it would have told is not known; all of them wait together."""
    fine = well("disk", text("fine"))
    hanging = [examination(1e9, "ports"), examination(1e9, "grant"), examination([fine], "disk")]

    found = await examine(hanging)

    assert [(each.check, each.state) for each in found] == [
        ("ports", "unknown"),
        ("grant", "unknown"),
        ("disk", "well"),
    ]
    assert trio.current_time() < 6.0


async def test_facts_that_cannot_be_had_are_wrong_with_the_reason() -> None:
    """What depends on them is not known."""
    damaged = ConfigurationError("the grant is damaged: restore it")
    found = await examine([examination(damaged, "meeting points", "hello")])
    assert [(each.check, each.state) for each in found] == [
        ("meeting points", "wrong"),
        ("hello", "unknown"),
    ]
    assert str(found[0].said) == "(configuration) the grant is damaged: restore it"


async def test_one_cause_is_told_once() -> None:
    """Of two checks that it is in the way of, the second names the first."""
    damaged = ConfigurationError("the grant is damaged: restore it")
    found = await examine([examination(damaged, "grant"), examination(damaged, "name", "hello")])
    assert [(each.check, each.state, str(each.said)) for each in found[1:]] == [
        ("name", "unknown", "not known without the grant"),
        ("hello", "unknown", "not known without the grant"),
    ]


# ---- facts of peers ----


def peer(name: str, *offers: ModelOffer, lane: Lane | None = None, path: str = "") -> PeerRecord:
    """A listener with one lane."""
    lane = lane or Lane(id="one", backend="llama_cpp", simulated=False)
    claim = Capability(
        lanes=(lane,), models=tuple(attrs.evolve(offer, lane=lane.id) for offer in offers)
    )
    return PeerRecord(
        peer_id=PeerId(name),
        capability=claim,
        incarnation=5_000,
        sequence=1,
        seen_at=0.0,
        path=path or None,
    )


LLAMA = ModelOffer(name="llama", digest="d", chat_template="t")


def test_models_that_a_mock_makes_up_are_no_models() -> None:
    """Their names are those of real ones."""
    mock = Lane(id="mock", backend="mock", simulated=True)
    found = offer_facts((peer("a", LLAMA), peer("b", LLAMA, lane=mock)))
    assert [(each.peer, each.digest, each.template) for each in found] == [("a", "d", "t")]


def test_only_peers_of_other_machines_tell_of_the_clock() -> None:
    """One of this machine has the same clock."""
    facts = clock_facts(None, (peer("a"), peer("b", path=IN_PROCESS)), 7.0)
    assert facts.starts == (("a", 5.0),)


def test_the_port_to_let_in_is_that_of_the_punch_up_that_runs() -> None:
    """Another listener of this machine has another."""
    status = {"peer": "a", "listens": ["/ip4/10.0.0.1/tcp/21820/p2p/x", "nonsense"]}
    assert own_listener(peer("a"), {"peer": "a", "listens": ["nonsense"]}).port is None
    assert own_listener(peer("b"), status).port is None
    odd = {**status, "listens": ["/ip4/10.0.0.1/tcp/21820"]}
    assert own_listener(peer("a"), odd).port == 21820


def test_a_punch_up_with_a_circuit_address_is_relayed() -> None:
    """The port is that of its own address; of another listener neither is known."""
    relay = "12D3KooWGYqKxZBhTRg1mKCkJhm8U3Rc6jUDdVyc7MJgAywKosw2"
    circuit = f"/ip4/203.0.113.3/tcp/51820/p2p/{relay}/p2p-circuit"
    status = {"peer": "a", "listens": [circuit, "/ip4/10.0.0.1/udp/21820/quic-v1"]}
    found = own_listener(peer("a"), status)
    assert (found.relayed, found.port, found.transport) == (True, 21820, "udp")
    assert own_listener(peer("b"), status).relayed is None
    assert own_listener(peer("a"), {**status, "listens": status["listens"][1:]}).relayed is False


def test_what_a_listener_here_cannot_answer_with_now_is_told() -> None:
    """A lane that failed, a model to be loaded, and one that the GPU has nothing of."""
    failed = Lane(id="one", backend="llama_cpp", simulated=False, state="failed", reason="no file")
    (lane,) = lanes_that_rest((peer("a", lane=failed), peer("b")))
    assert (lane.backend, lane.has_failed, lane.words) == ("llama_cpp", True, "no file")

    at_work = Lane(
        id="one", backend="llama_cpp", simulated=False, load=Load(slots=2, busy=2, queued=1)
    )
    assert models_at_work((peer("a", LLAMA, lane=at_work), peer("b", LLAMA))) == ("llama",)
    assert models_at_work((peer("b", LLAMA),)) == ()

    asleep = attrs.evolve(LLAMA, load_seconds=9.0)
    assert models_to_load((peer("a", LLAMA, asleep), peer("b", asleep))) == ("llama",)

    on_cpu = attrs.evolve(LLAMA, name="cpu", loaded_bytes=9, gpu_bytes=0)
    on_gpu = attrs.evolve(LLAMA, loaded_bytes=9, gpu_bytes=9)
    assert models_on_cpu((peer("a", on_cpu, on_gpu, LLAMA),)) == ("cpu",)


# ---- what is shown ----

FOUND = (
    well("disk", text("roomy")),
    unknown("relay", text("not known yet")),
    note("name", text("another is called {}, too", Private("name", SECRET)), text("rename it")),
    wrong("ports", text("{} has the port", Private("program", SECRET)), text("end it")),
    well("clock", text("right")),
)


def test_what_is_wrong_comes_first_with_its_remedy_and_the_rest_takes_a_line() -> None:
    """A sound set-up has one line of what was looked at."""
    assert lines_of(report_of(FOUND, {}), 80) == [
        f"wrong: ports: {SECRET} has the port",
        "    remedy: end it",
        f"note: name: another is called {SECRET}, too",
        "    remedy: rename it",
        "well: clock, disk",
        "not known: relay",
    ]


def test_only_what_is_wrong_makes_a_report_bad() -> None:
    """A note and what is not known leave the exit code at 0."""
    assert not report_of(FOUND, {}).is_well
    assert report_of([each for each in FOUND if each.state != "wrong"], {}).is_well


def test_a_bundle_has_no_text_that_somebody_has_set() -> None:
    """Whatever variable it is in, whether the value is good or not; numbers and switches are."""
    environment = NO_FILE | {each.variable: SECRET for each in SETTINGS if each.variable}
    around = read_surroundings(environment | {"PUNCH_SLOTS": "3"})
    report = report_of((*judge_settings(around.faults), *FOUND), {})

    bundle = bundle_of(report, around, in_full=False)

    assert around.faults
    assert SECRET not in json.dumps(bundle)
    assert {"setting": "listener.slots", "layer": "variable", "value": "3"} in bundle["set"]


def test_a_bundle_with_names_has_no_keys_either() -> None:
    """Names are asked for with an option; nothing brings the keys in."""
    around = read_surroundings(
        NO_FILE | {"PUNCH_OPENAI_KEY": "a-key", "PUNCH_NAME": SECRET, "PUNCH_NAMESPACE": SECRET}
    )
    text = json.dumps(bundle_of(report_of(FOUND, {}), around, in_full=True))
    assert "a-key" not in text
    assert SECRET in text


def test_a_bundle_is_a_new_file(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    path, around, report = (
        tmp_path / "report.json",
        read_surroundings(NO_FILE),
        report_of(FOUND, {}),
    )
    write_bundle(path, report, around, in_full=False)
    found = cast("dict[str, object]", json.loads(path.read_text()))
    assert found["well"] is False
    with pytest.raises(ConfigurationError):
        write_bundle(path, report, around, in_full=False)
