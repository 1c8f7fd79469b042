"""What is wrong with a machine, by the facts."""

from __future__ import annotations

import attrs
import pytest
from doctor.judged import DAY, NOW, only

from punch.doctor import (
    ClockFacts,
    EngineFacts,
    EngineTry,
    FolderFact,
    GpuFacts,
    InterfaceFacts,
    LaneFact,
    PortFact,
    SettingFault,
    judge_clock,
    judge_disk,
    judge_engines,
    judge_gpus,
    judge_interfaces,
    judge_ports,
    judge_settings,
)

# ---- settings ----


def test_settings_that_are_right_are_well() -> None:
    """Nothing is said of them."""
    assert only(judge_settings(())).state == "well"


def test_a_wrong_value_of_the_file_is_set_anew() -> None:
    """By the command that does it."""
    found = only(judge_settings((SettingFault(name="listener.slots", words="line 3: is x"),)))
    assert (found.state, str(found.said)) == ("wrong", "listener.slots: line 3: is x")
    assert "punch settings set listener.slots" in str(found.remedy)


def test_a_wrong_variable_is_mended_where_it_is() -> None:
    """No command of punch changes a variable."""
    fault = SettingFault(name="listener.slots", words="is x", variable="PUNCH_SLOTS")
    remedy = str(only(judge_settings((fault,))).remedy)
    assert "PUNCH_SLOTS" in remedy
    assert "punch settings" not in remedy


def test_a_file_that_cannot_be_read_is_mended_at_its_place() -> None:
    """Its error has the place."""
    found = only(judge_settings((SettingFault(name=None, words="settings.toml:7: odd"),)))
    assert "punch settings path" in str(found.remedy)


# ---- clock ----


def test_a_clock_is_well_if_nothing_is_in_its_future() -> None:
    """A grant of yesterday, and peers that started before."""
    facts = ClockFacts(now=NOW, granted_at=NOW - DAY, starts=(("a", NOW - 5), ("b", NOW + 30)))
    assert only(judge_clock(facts)).state == "well"


def test_a_clock_of_1970_is_wrong() -> None:
    """As of a machine whose battery is empty."""
    assert only(judge_clock(ClockFacts(now=86_400.0))).state == "wrong"


def test_a_grant_of_tomorrow_shows_that_the_clock_is_behind() -> None:
    """It was made before now."""
    found = only(judge_clock(ClockFacts(now=NOW, granted_at=NOW + 3 * DAY)))
    assert (found.state, "3 days" in str(found.said)) == ("wrong", True)


def test_most_peers_are_right_about_the_time() -> None:
    """Two of three that started in the future: this clock is behind."""
    starts = (("a", NOW + 600), ("b", NOW + 900), ("c", NOW - 5))
    found = only(judge_clock(ClockFacts(now=NOW, starts=starts)))
    assert (found.state, "10 minutes" in str(found.said)) == ("wrong", True)


def test_one_peer_may_be_wrong_itself() -> None:
    """Nobody can tell which of two clocks is wrong."""
    found = only(judge_clock(ClockFacts(now=NOW, starts=(("a", NOW + 600),))))
    assert (found.state, str(found.said).startswith("a has started")) == ("note", True)


# ---- interfaces ----

ALONE = InterfaceFacts(addresses=(), lans=(), meets_elsewhere=False, uses_lan=False)


def test_a_machine_without_a_network_is_wrong_where_others_are_to_be_met() -> None:
    """And worth a note where all is on one machine."""
    assert only(judge_interfaces(ALONE)).state == "note"
    assert only(judge_interfaces(attrs.evolve(ALONE, meets_elsewhere=True))).state == "wrong"


def test_no_lan_is_noted_where_members_are_looked_for_on_one() -> None:
    """A VPN alone is none."""
    vpn = InterfaceFacts(addresses=("10.8.0.2",), lans=(), meets_elsewhere=True, uses_lan=True)
    assert only(judge_interfaces(vpn)).state == "note"
    assert only(judge_interfaces(attrs.evolve(vpn, uses_lan=False))).state == "well"


# ---- ports ----

TAKEN = PortFact(setting="gateway.port", port=11435, is_free=False, holder="process 7 (nginx)")


def test_a_port_of_another_program_is_wrong_and_one_of_ours_is_not() -> None:
    """The program is named, and how to give another port."""
    found = only(judge_ports((TAKEN,)))
    assert "nginx" in str(found.said)
    assert "punch settings set gateway.port" in str(found.remedy)
    assert only(judge_ports((attrs.evolve(TAKEN, is_ours=True),))).state == "well"


def test_a_holder_that_cannot_be_seen_is_not_made_up() -> None:
    """It is another user's."""
    found = only(judge_ports((attrs.evolve(TAKEN, holder=None),)))
    assert str(found.said).endswith("is taken by another program")


def test_a_port_below_1024_is_refused_to_most_users() -> None:
    """Nobody has it, and it cannot be had."""
    low = PortFact(setting="gateway.port", port=80, is_free=False, is_refused=True)
    assert "may not listen" in str(only(judge_ports((low,))).said)


# ---- disk ----

ROOMY = FolderFact(kind="data", path="/data", is_writable=True, free_bytes=1 << 40)


@pytest.mark.parametrize(
    ("folder", "state"),
    [
        (ROOMY, "well"),
        (attrs.evolve(ROOMY, free_bytes=None), "well"),
        (attrs.evolve(ROOMY, free_bytes=1 << 30), "note"),
        (attrs.evolve(ROOMY, free_bytes=1 << 20), "wrong"),
        (attrs.evolve(ROOMY, is_writable=False), "wrong"),
    ],
)
def test_a_disk_is_wrong_where_keys_cannot_be_written(folder: FolderFact, state: str) -> None:
    """And worth a note where a model does not fit."""
    assert only(judge_disk((folder,))).state == state


# ---- GPU ----


def test_a_gpu_whose_driver_is_silent_is_wrong() -> None:
    """The device is there, and its library says nothing of it."""
    assert only(judge_gpus(GpuFacts(names=(), has_device=True))).state == "wrong"
    assert only(judge_gpus(GpuFacts(names=(), has_device=False))).state == "well"


def test_a_model_beside_an_idle_gpu_is_noted() -> None:
    """Its engine was built without support for it, say."""
    facts = GpuFacts(names=("RTX",), has_device=True, on_cpu=("llama",))
    assert only(judge_gpus(facts)).state == "note"
    assert only(judge_gpus(attrs.evolve(facts, on_cpu=()))).state == "well"


# ---- engines ----


def test_an_engine_that_makes_a_token_is_well() -> None:
    """And none at all is worth a note."""
    facts = EngineFacts(tries=(EngineTry(name="llama", is_program=False),))
    assert only(judge_engines(facts)).state == "well"
    assert only(judge_engines(EngineFacts())).state == "note"


def test_an_engine_without_a_token_is_wrong() -> None:
    """With what it said."""
    broken = EngineTry(name="llama-server", is_program=True, words="no such library")
    found = only(judge_engines(EngineFacts(tries=(broken,))))
    assert (found.state, "no such library" in str(found.said)) == ("wrong", True)


def test_a_failed_lane_is_wrong_and_one_that_starts_is_not() -> None:
    """The second will be there by itself."""
    failed = LaneFact(backend="llama_cpp", has_failed=True, words="out of memory")
    starts = LaneFact(backend="llama_cpp", has_failed=False, words=None)
    assert only(judge_engines(EngineFacts(lanes=(failed,)))).state == "wrong"
    assert only(judge_engines(EngineFacts(lanes=(starts,)))).state == "unknown"


def test_a_model_that_nobody_has_loaded_is_not_loaded_for_a_check() -> None:
    """It would push out the one in use."""
    found = only(judge_engines(EngineFacts(on_demand=("big",))))
    assert (found.state, "big" in str(found.said)) == ("unknown", True)


def test_a_model_that_is_busy_is_not_taken_for_a_broken_one() -> None:
    """A token would come too late, and its requests show that it works."""
    found = only(judge_engines(EngineFacts(busy=("llama",))))
    assert (found.state, "busy" in str(found.said)) == ("unknown", True)


def test_a_machine_that_embeds_has_an_engine() -> None:
    """It is asked for no token, and nothing is missing."""
    assert only(judge_engines(EngineFacts(has_lanes=True))).state == "unknown"


def test_a_mock_is_noted() -> None:
    """Its answers look real."""
    assert only(judge_engines(EngineFacts(simulates=True))).state == "note"
