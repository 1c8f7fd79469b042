"""What a plan is held to: bytes, limits, the fastest of all, wishes, and numbers in refusals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import SMOL, make_layout
from strategies import maybe

from punch.gguf import LayerSize, Layout
from punch.placement import (
    HEAD,
    HEAD_CPU,
    Calibration,
    Considered,
    Device,
    Factors,
    Link,
    Mix,
    Plan,
    Refused,
    Share,
    Solo,
    Speculation,
    Wants,
    describe,
    plan,
    predict,
)
from punch.placement._partition import Cutter

GB = 10**9

# Thousands, before sets were bound by what prompts take at least on their links, and by whether
# guessing can pay at all.
MOST_CUTS = 1500

LAN = Link(rtt=0.0003, rate=110e6)

# Eight billion parameters in 4.85 bits, and a fifth of it as head.
EIGHT = make_layout(
    [LayerSize(weights=135_000_000, kv_per_token=4096, values_per_token=2048)] * 32,
    embeddings=290_000_000,
    output=430_000_000,
    largest_tensor=430_000_000,
    embedding=4096,
    vocabulary=128_256,
)


def worker(name: str, memory: int = 16 * GB, **changes: Any) -> Device:
    """A machine on the LAN with a small GPU."""
    return attrs.evolve(
        Device(
            id=f"{name}/GPU",
            holder=name,
            memory=memory,
            bandwidth=200e9,
            compute=4e12,
            link=LAN,
        ),
        **changes,
    )


def cpu(memory: int = 16 * GB, **changes: Any) -> Device:
    """The head's processor."""
    return attrs.evolve(
        Device(id=HEAD_CPU, holder=HEAD, memory=memory, bandwidth=20e9, compute=2e11),
        **changes,
    )


def planned(layout: Layout, devices: Sequence[Device], wants: Wants | None = None) -> Plan:
    """The plan, which there is."""
    found = plan(layout, devices, wants or Wants())
    assert isinstance(found, Plan), found
    return found


def held(found: Plan) -> dict[str, int]:
    """Device to layers."""
    return {one.device: len(one.layers) for one in found.shares}


# -- any model, any devices -------------------------------------------------------------------

sizes = st.integers(10**6, 10**9)
blocks = st.builds(
    LayerSize,
    weights=sizes,
    kv_per_token=st.integers(0, 500).map(lambda each: 4 * each),
    window=maybe(st.integers(256, 4096)),
    state=st.integers(0, 10**6),
)


@st.composite
def models(draw: st.DrawFn, most: int = 8) -> Layout:
    """Models of a few layers, alike or not."""
    count = draw(st.integers(1, most))
    layers = (
        [draw(blocks)] * count
        if draw(st.booleans())
        else draw(st.lists(blocks, min_size=count, max_size=count))
    )
    return make_layout(
        layers,
        embeddings=draw(sizes),
        output=draw(sizes),
        is_tied=draw(st.booleans()),
        largest_tensor=draw(sizes),
        embedding=draw(st.integers(64, 8192)),
        vocabulary=draw(st.integers(1000, 200_000)),
    )


links = st.builds(Link, rtt=st.floats(0, 0.2), rate=st.floats(1e6, 1e9))


@st.composite
def machines(draw: st.DrawFn, most: int = 3) -> list[Device]:
    """The head's processor or none, and workers."""
    count = draw(st.integers(1, most))
    has_cpu = draw(st.booleans())
    made = []
    for i in range(count):
        is_cpu = has_cpu and i == 0
        made.append(
            Device(
                id=HEAD_CPU if is_cpu else f"GPU{i}",
                holder=HEAD if is_cpu else f"worker-{i}",
                memory=draw(st.integers(10**8, 2 * 10**10)),
                bandwidth=draw(st.floats(1e9, 1e12)),
                compute=draw(st.floats(1e10, 1e14)),
                link=None if is_cpu else draw(links),
            )
        )
    return made


mixes = st.builds(
    Mix,
    prompt_tokens=st.integers(0, 4000),
    answer_tokens=st.integers(0, 2000),
    concurrent=st.integers(1, 4),
)
wishes = st.builds(
    Wants, mix=mixes, context_tokens=st.integers(256, 4096), slots=maybe(st.integers(1, 4))
)


@given(models(), machines(), wishes)
def test_every_byte_is_placed_once_and_no_limit_is_passed(
    layout: Layout, devices: list[Device], wants: Wants
) -> None:
    """Layers without a gap, the output in one place, and all of it where there is room."""
    found = plan(layout, devices, wants)
    if isinstance(found, Refused):
        assert found.word == "does_not_fit"
        assert found.needed is not None
        assert found.had is not None
        return
    layers = [each for one in found.shares for each in one.layers]
    assert layers == list(range(len(layout.layers)))
    assert [one.has_output for one in found.shares[:-1]] == [False] * (len(found.shares) - 1)
    assert found.shares[-1].has_output is not found.output_on_head
    by_id = {one.id: one for one in devices}
    output = sum(layout.output for one in found.shares if one.has_output and not one.is_head_cpu)
    if found.shares[-1].has_output and found.shares[-1].is_head_cpu:
        output = layout.output - layout.tied_matrix
    assert sum(one.weights for one in found.shares) == layout.layer_weights + output
    cache = layout.kv_bytes(
        found.slots * wants.context_tokens, slots=found.slots, micro_batch=found.micro_batch
    )
    for one in found.shares:
        device = by_id[one.device]
        assert one.holder == device.holder
        assert one.kv == sum(cache[one.layers.start : one.layers.stop])
        twice = min(layout.largest_tensor, one.weights) if device.is_remote else 0
        assert one.weights + one.kv + twice < one.memory <= device.memory
    if found.output_on_head:
        assert by_id[HEAD_CPU].memory >= layout.embeddings


@given(models(), machines(), wishes)
def test_a_plan_is_worth_what_it_predicts(
    layout: Layout, devices: list[Device], wants: Wants
) -> None:
    """The planner and `predict` have one law."""
    found = plan(layout, devices, wants)
    if isinstance(found, Plan):
        assert found.prediction == predict(
            layout,
            found.shares,
            devices=devices,
            wants=wants,
            output_on_head=found.output_on_head,
            micro_batch=found.micro_batch,
            slots=found.slots,
            speculation=found.speculation,
        )
        assert found.considered[0].seconds == found.prediction.seconds
        others = [one.seconds for one in found.considered if one.seconds is not None]
        assert min(others) == others[0]
        assert (found.speculation is None) is (found.prediction.gain == 1.0)
        assert found.speculation is None or found.prediction.gain >= 1.1


def every_cut(layers: int, shares: int) -> Iterator[list[range]]:
    """All ways to cut the layers into so many shares."""
    for ends in combinations(range(1, layers), shares - 1):
        yield [range(begin, end) for begin, end in zip([0, *ends], [*ends, layers], strict=True)]


def every_plan(
    layout: Layout, devices: list[Device], wants: Wants
) -> Iterator[tuple[float, dict[str, object]]]:
    """What each plan takes that there could be: all sets, orders, cuts and settings."""
    has_cpu = any(one.is_head_cpu for one in devices)
    for count in range(1, len(devices) + 1):
        for order in permutations(devices, count):
            if any(one.is_head_cpu for one in order[1:]):
                continue
            for cut in every_cut(len(layout.layers), count):
                shares = [
                    Share(device=one.id, holder=one.holder, layers=layers, weights=0, kv=0)
                    for one, layers in zip(order, cut, strict=True)
                ]
                for on_head in (False, True) if has_cpu and not order[-1].is_head_cpu else (False,):
                    for micro_batch in (64, 128, 256, 512):
                        settings_ = {"output_on_head": on_head, "micro_batch": micro_batch}
                        found = predict(
                            layout,
                            shares,
                            devices=devices,
                            wants=wants,
                            slots=1,
                            output_on_head=on_head,
                            micro_batch=micro_batch,
                        )
                        yield found.seconds, {"shares": shares, **settings_}


@settings(max_examples=40)
@given(models(most=4), machines(), st.integers(0, 2000), st.integers(0, 500))
def test_no_plan_is_better_than_the_one_that_is_found(
    layout: Layout, devices: list[Device], prompt: int, answer: int
) -> None:
    """Beside all subsets, orders, cuts and settings of few devices, where memory is no question."""
    devices = [attrs.evolve(one, memory=10**12) for one in devices]
    wants = Wants(mix=Mix(prompt_tokens=prompt, answer_tokens=answer), may_speculate=False)
    found = planned(layout, devices, wants)
    best, how = min(every_plan(layout, devices, wants), key=lambda pair: pair[0])
    assert found.prediction.seconds <= best * 1.01, how


@given(models(), machines(), wishes, machines(most=1), st.floats(0, 1))
def test_a_further_worker_never_makes_a_plan_slower(
    layout: Layout, devices: list[Device], wants: Wants, more: list[Device], slow: float
) -> None:
    """However useless it is."""
    before = plan(layout, devices, wants)
    other = attrs.evolve(
        more[0],
        id="more",
        holder="another",
        bandwidth=max(1.0, more[0].bandwidth * slow),
        link=more[0].link or LAN,
    )
    after = plan(layout, [*devices, other], wants)
    if isinstance(before, Plan):
        assert isinstance(after, Plan)
        assert after.prediction.seconds <= before.prediction.seconds * (1 + 1e-9)


@settings(max_examples=60)
@given(models(), machines(), wishes, st.integers(0, 2), st.floats(1, 10), st.floats(1, 10))
def test_better_devices_and_links_never_make_a_plan_slower(
    layout: Layout, devices: list[Device], wants: Wants, place: int, times: float, nearer: float
) -> None:
    """Nor does a shorter way; a hundredth apart, for cuts that are not tried."""
    before = plan(layout, devices, wants)
    one = devices[place % len(devices)]
    link = one.link and Link(rtt=one.link.rtt / nearer, rate=one.link.rate * nearer)
    better = attrs.evolve(
        one, bandwidth=one.bandwidth * times, compute=one.compute * times, link=link
    )
    after = plan(layout, [better if each is one else each for each in devices], wants)
    if isinstance(before, Plan):
        assert isinstance(after, Plan)
        assert after.prediction.seconds <= before.prediction.seconds * 1.01


# -- few rather than many ---------------------------------------------------------------------


def test_few_workers_rather_than_many() -> None:
    """Each costs a round trip and nothing else: of four alike one is taken that holds it all."""
    answers = Wants(mix=Mix(prompt_tokens=20, answer_tokens=500))
    found = planned(EIGHT, [cpu(), *(worker(f"w{i}") for i in range(4))], answers)
    assert len(found.workers) == 1
    assert found.gpu_layers == 33


def test_as_many_workers_as_the_model_needs() -> None:
    """Memory decides how many."""
    found = planned(EIGHT, [cpu(2 * GB), *(worker(f"w{i}", 3 * GB) for i in range(4))])
    assert len(found.workers) == 3
    assert all(one.memory <= 3 * GB for one in found.shares)
    assert sum(found.tensor_split) == found.gpu_layers == 33


def test_long_prompts_are_read_by_two() -> None:
    """For a long prompt a pipeline of two is faster than either, for an answer it is not."""
    devices = [worker("a"), worker("b")]
    prompts = planned(EIGHT, devices, Wants(mix=Mix(prompt_tokens=3000, answer_tokens=10)))
    answers = planned(EIGHT, devices, Wants(mix=Mix(prompt_tokens=30, answer_tokens=1000)))
    assert len(prompts.workers) == 2
    assert prompts.micro_batch <= 128
    assert sorted(held(prompts).values()) == [16, 16]
    assert len(answers.workers) == 1


def test_the_heads_own_devices_hold_layers_too() -> None:
    """A GPU beside the head holds what it can, and a worker the rest."""
    metal = Device(id="Metal0", holder=HEAD, memory=3 * GB, bandwidth=400e9, compute=8e12)
    found = planned(EIGHT, [cpu(2 * GB), metal, worker("w")])
    assert held(found)["Metal0"] >= 14
    assert found.workers == ("w",)
    assert [one.device for one in found.listed] == [one.device for one in found.shares]


def test_the_heads_processor_holds_the_first_layers() -> None:
    """llama.cpp leaves the first ones to it, by -ngl, and --tensor-split does not name it."""
    found = planned(EIGHT, [worker("w", 2 * GB), cpu()])
    first, second = found.shares
    assert first.is_head_cpu
    assert first.layers.start == 0
    assert found.tensor_split == (len(second.layers) + 1,)
    assert found.gpu_layers == len(second.layers) + 1


def test_a_model_that_fits_here_and_is_fast_here_is_no_split() -> None:
    """Then nobody is asked."""
    found = planned(EIGHT, [cpu(bandwidth=300e9, compute=6e12), worker("w")])
    assert not found.is_split
    assert found.tensor_split == ()
    assert found.gpu_layers == 0


def test_the_best_link_is_the_last_where_logits_cross_it() -> None:
    """Without a processor that could make them, the near worker does."""
    far = worker("far", 4 * GB, link=Link(rtt=0.001, rate=5e6))
    near = worker("near", 4 * GB)
    for devices in ([far, near], [near, far]):
        found = planned(EIGHT, devices, Wants(mix=Mix(prompt_tokens=10, answer_tokens=500)))
        assert found.shares[-1].holder == "near"


def test_the_output_is_on_the_head_when_its_logits_cost_more() -> None:
    """513 KB of logits over 5 MB/s are 103 ms, and the processor makes them in 22 ms."""
    thin = Link(rtt=0.001, rate=5e6)
    wants = Wants(mix=Mix(prompt_tokens=10, answer_tokens=500))
    slow = [cpu(2 * GB), *(worker(each, 4 * GB, link=thin) for each in "ab")]
    fast = [
        cpu(2 * GB),
        *(worker(each, 4 * GB, link=attrs.evolve(thin, rate=1e9)) for each in "ab"),
    ]
    assert planned(EIGHT, slow, wants).output_on_head
    assert not planned(EIGHT, fast, wants).output_on_head


def test_guessing_that_gains_little_is_left_alone() -> None:
    """Between nothing and a tenth: text that never repeats itself would lose that."""
    link = Link(rtt=0.008, rate=1e9)
    slow = [worker("a", 10**9, link=link, bandwidth=6e9, compute=2e10)]
    wants = Wants(context_tokens=2048, mix=Mix(prompt_tokens=20))
    gains = [
        predict(
            SMOL,
            [Share(device="a/GPU", layers=range(30), weights=0, kv=0)],
            devices=slow,
            wants=wants,
            speculation=Speculation(draft=draft),
        ).gain
        for draft in (4, 8, 16)
    ]
    assert 1.0 < max(gains) < 1.1
    assert planned(SMOL, slow, wants).speculation is None


@pytest.mark.parametrize(
    ("compute", "draft"), [(1.2e10, None), (2e10, 4), (4e10, 8), (1e11, 16), (1e13, 16)]
)
def test_a_draft_is_as_short_as_a_wrong_one_is_dear(compute: float, draft: int | None) -> None:
    """The slower a device computes, the fewer tokens are guessed; and then none at all.

    So that text of which most guesses are wrong is not slower than it is without.
    """
    link = Link(rtt=0.04, rate=1e9)
    far = [worker(each, 2 * 10**8, link=link, bandwidth=6e9, compute=compute) for each in "ab"]
    wants = Wants(context_tokens=2048, min_workers=2, mix=Mix(prompt_tokens=20))
    found = planned(SMOL, far, wants)
    assert (found.speculation and found.speculation.draft) == draft
    if found.speculation is not None:
        doubted = predict(
            SMOL,
            found.shares,
            devices=far,
            wants=wants,
            output_on_head=found.output_on_head,
            micro_batch=found.micro_batch,
            speculation=found.speculation.doubted(),
        )
        assert doubted.gain >= 1.0


@pytest.mark.parametrize("concurrent", [1, 8])
@pytest.mark.parametrize(("slots", "guesses"), [(1, True), (2, False), (4, False), (8, False)])
def test_only_a_head_of_one_slot_guesses(slots: int, guesses: bool, concurrent: int) -> None:
    """It guesses for whoever comes: several answers would pay for the guesses of each other."""
    link = Link(rtt=0.04, rate=1e9)
    far = [worker(each, GB, link=link, bandwidth=8e9, compute=2.4e10) for each in "ab"]
    mix = Mix(prompt_tokens=60, concurrent=concurrent)
    wants = Wants(context_tokens=2048, min_workers=2, slots=slots, mix=mix)
    assert (planned(SMOL, far, wants).speculation is not None) is guesses


def test_guessing_pays_where_round_trips_are_most_of_a_token() -> None:
    """And is left alone where nothing is gained, or the user does not want it."""
    slow = {"bandwidth": 6e9, "compute": 2e10}
    near = [worker(each, 2 * 10**8, link=Link(rtt=0.0001, rate=1e9), **slow) for each in "ab"]
    far = [attrs.evolve(one, link=Link(rtt=0.04, rate=1e9)) for one in near]
    wants = Wants(context_tokens=2048, min_workers=2, mix=Mix(prompt_tokens=20))
    far_plan = planned(SMOL, far, wants)
    assert far_plan.speculation is not None
    assert far_plan.prediction.gain > 1.3
    assert planned(SMOL, near, wants).speculation is None
    assert planned(SMOL, far, attrs.evolve(wants, may_speculate=False)).speculation is None


def test_slots_for_requests_that_come_at_once() -> None:
    """They share the round trips; memory for their contexts is the limit."""
    far = [worker(each, 6 * GB, link=Link(rtt=0.04, rate=1e9)) for each in "ab"]
    wants = Wants(context_tokens=1024, mix=Mix(prompt_tokens=50, answer_tokens=50, concurrent=8))
    assert planned(EIGHT, far, wants).slots == 8
    assert planned(EIGHT, far, attrs.evolve(wants, slots=2)).slots == 2
    long = attrs.evolve(wants, context_tokens=4096)
    tight = [attrs.evolve(one, memory=4 * GB) for one in far]
    assert 1 <= planned(EIGHT, tight, long).slots < 8


def test_a_window_keeps_less_than_a_context() -> None:
    """Layers with a sliding window take a window, and the micro-batch."""
    full = LayerSize(weights=10**6, kv_per_token=4096)
    model = make_layout([full, attrs.evolve(full, window=512)] * 2)
    found = planned(model, [worker("w")], Wants(context_tokens=8192))
    assert found.shares[0].kv == 2 * 4096 * (8192 + 512 + found.micro_batch)


def test_experts_that_do_not_work_are_held_and_not_read() -> None:
    """A token reads two of eight, and memory holds all."""
    dense = make_layout([LayerSize(weights=10**8)] * 8)
    sparse = attrs.evolve(
        dense,
        layers=(LayerSize(weights=10**8, experts=8 * 10**7),) * 8,
        experts=8,
        experts_used=2,
    )
    wants = Wants(mix=Mix(prompt_tokens=1, answer_tokens=100), may_speculate=False)
    devices = [worker("w", link=Link(rtt=0.0, rate=1e12))]
    both = [planned(each, devices, wants) for each in (dense, sparse)]
    assert both[0].shares[0].weights == both[1].shares[0].weights
    read = [each.prediction.token_parts.compute - 0.001 for each in both]
    assert read[1] / read[0] == pytest.approx(0.4, rel=0.01)


# -- solo -------------------------------------------------------------------------------------


def test_a_split_that_a_peer_alone_would_beat_is_refused_with_both_numbers() -> None:
    """Unless it is forced."""
    devices = [worker("a", 4 * GB), worker("b", 4 * GB)]
    solo = Solo(peer="big", decode_rate=200.0, prefill_rate=5000.0)
    refused = plan(EIGHT, devices, Wants(), solos=[solo])
    assert isinstance(refused, Refused)
    assert refused.word == "solo_is_faster"
    assert refused.solo is solo
    assert refused.solo_seconds == pytest.approx(solo.seconds(Mix()))
    assert refused.split_seconds is not None
    assert refused.split_seconds > solo.seconds(Mix())
    assert refused.considered[0].devices == ("big",)
    assert refused.considered[0].removed_by is None
    forced = plan(EIGHT, devices, Wants(is_forced=True), solos=[solo])
    assert isinstance(forced, Plan)
    assert forced.prediction.seconds == pytest.approx(refused.split_seconds)
    assert {one.removed_by for one in forced.considered if one.is_solo} == {"forced"}


def test_a_forced_plan_is_a_split_though_the_head_alone_is_faster() -> None:
    """The head is a peer that has the model whole, too."""
    far = worker("far", link=Link(rtt=0.1, rate=1e6))
    assert not planned(SMOL, [cpu(), far]).is_split
    assert planned(SMOL, [cpu(), far], Wants(is_forced=True)).is_split


def test_what_cannot_be_split_runs_on_the_head_alone_though_it_was_forced() -> None:
    """Workers that hold no layer, or none at all, are no reason to have no model."""
    for devices in ([cpu()], [cpu(), worker("tiny", 1000)]):
        found = planned(SMOL, devices, Wants(is_forced=True))
        assert held(found) == {HEAD_CPU: 30}


def test_a_slow_peer_alone_does_not_stop_a_split() -> None:
    """It is told among what was considered, with what it would take."""
    solo = Solo(peer="small", decode_rate=1.0, prefill_rate=20.0)
    found = plan(EIGHT, [worker("a", 4 * GB), worker("b", 4 * GB)], Wants(), solos=[solo])
    assert isinstance(found, Plan)
    (told,) = [one for one in found.considered if one.is_solo]
    assert told.removed_by == "slower"
    assert told.seconds == pytest.approx(solo.seconds(Mix()))


def test_the_mix_decides_between_a_peer_alone_and_a_split() -> None:
    """One that decodes well and reads slowly loses long prompts to a split."""
    devices = [worker("a", 4 * GB), worker("b", 4 * GB)]
    solo = Solo(peer="mac", decode_rate=60.0, prefill_rate=100.0)
    answers = Wants(mix=Mix(prompt_tokens=20, answer_tokens=1000), may_speculate=False)
    prompts = Wants(mix=Mix(prompt_tokens=4000, answer_tokens=50), may_speculate=False)
    assert isinstance(plan(EIGHT, devices, answers, solos=[solo]), Refused)
    assert isinstance(plan(EIGHT, devices, prompts, solos=[solo]), Plan)


# -- wishes -----------------------------------------------------------------------------------


def test_a_tensor_split_is_honoured() -> None:
    """By proportion, in the order of the devices; a share of nothing holds nothing."""
    devices = [worker("a"), worker("b"), worker("c")]
    found = planned(EIGHT, devices, Wants(tensor_split=(3, 0, 1)))
    assert held(found) == {"a/GPU": 24, "c/GPU": 8}
    assert found.tensor_split == (24, 9)


@given(
    st.lists(st.floats(0, 100), min_size=3, max_size=3).filter(lambda each: sum(each) > 1),
)
def test_any_tensor_split_is_honoured_to_a_layer(shares: list[float]) -> None:
    """No device is more than a layer off its proportion."""
    found = planned(EIGHT, [worker(each) for each in "abc"], Wants(tensor_split=tuple(shares)))
    for name, share in zip("abc", shares, strict=True):
        layers = held(found).get(f"{name}/GPU", 0)
        assert abs(layers - 32 * share / math.fsum(shares)) <= 1


def test_a_tensor_split_that_cannot_be_had_is_refused_by_name() -> None:
    """Of too many shares, or of more than a device holds."""
    devices = [worker("a"), worker("b", GB)]
    refused = plan(EIGHT, devices, Wants(tensor_split=(1, 1, 1)))
    assert isinstance(refused, Refused)
    assert (refused.word, refused.needed, refused.had) == ("bad_split", 2, 3)
    refused = plan(EIGHT, devices, Wants(tensor_split=(1, 1)))
    assert isinstance(refused, Refused)
    assert refused.word == "does_not_fit"
    assert "b/GPU" in refused.reason
    assert refused.had == GB
    assert refused.needed is not None
    assert refused.needed > GB


def test_at_least_so_many_workers_hold_layers() -> None:
    """Two where one would be faster; a refusal where there are not so many."""
    devices = [worker(each) for each in "abc"]
    answers = Wants(mix=Mix(prompt_tokens=20, answer_tokens=500))
    for least in (0, 1, 2, 3):
        found = planned(EIGHT, devices, attrs.evolve(answers, min_workers=least))
        assert len(found.workers) == max(1, least)
    refused = plan(EIGHT, devices, Wants(min_workers=4))
    assert isinstance(refused, Refused)
    assert (refused.word, refused.needed, refused.had) == ("too_few_workers", 4, 3)


def test_what_is_excluded_holds_nothing() -> None:
    """By peer or by device; with nothing left there is no plan."""
    devices = [worker("a"), worker("b", bandwidth=1e12)]
    assert planned(EIGHT, devices).workers == ("b",)
    for name in ("b", "b/GPU"):
        assert planned(EIGHT, devices, Wants(exclude=frozenset({name}))).workers == ("a",)
    refused = plan(EIGHT, devices, Wants(exclude=frozenset("ab")))
    assert isinstance(refused, Refused)
    assert refused.word == "no_device"


def test_only_the_devices_that_are_named_hold_layers() -> None:
    """The head's processor may still make the logits."""
    thin = Link(rtt=0.001, rate=5e6)
    devices = [cpu(), worker("a", link=thin), worker("b", link=thin, bandwidth=1e12)]
    wants = Wants(device=frozenset({"a"}), mix=Mix(prompt_tokens=10, answer_tokens=500))
    found = planned(EIGHT, devices, wants)
    assert held(found) == {"a/GPU": 32}
    assert found.output_on_head


# -- refusals and explanations ----------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_both_sizes() -> None:
    """What layers and contexts take, and what there is."""
    refused = plan(EIGHT, [worker("a", GB), worker("b", GB)], Wants())
    assert isinstance(refused, Refused)
    assert refused.word == "does_not_fit"
    assert refused.needed == EIGHT.layer_weights + sum(EIGHT.kv_bytes(4096))
    assert refused.had is not None
    assert refused.had < 2 * GB
    assert {one.removed_by for one in refused.considered} == {"memory"}
    assert "GB" in describe(refused)


def test_every_set_of_devices_is_accounted_for() -> None:
    """The plan, what was slower, what could not be faster and what does not fit, or a number."""
    devices = [worker("a"), worker("b", link=Link(rtt=0.5, rate=1e6)), worker("c", GB)]
    found = planned(EIGHT, devices)
    assert found.considered[0].removed_by is None
    assert len(found.considered) + found.left_out == 7
    words = {one.removed_by for one in found.considered}
    assert words <= {None, "slower", "bound", "memory"}
    assert "memory" in words
    for one in found.considered[1:]:
        assert one.reason
        if one.seconds is not None:
            assert one.seconds >= found.prediction.seconds
            assert sum(one.terms.values()) == pytest.approx(one.seconds)


def test_a_plan_tells_people_what_it_found() -> None:
    """Who holds what, how fast, why not otherwise."""
    found = plan(
        EIGHT,
        [cpu(2 * GB), worker("a", 4 * GB), worker("b", 4 * GB)],
        Wants(),
        solos=[Solo(peer="small", decode_rate=1.0, prefill_rate=20.0)],
    )
    assert isinstance(found, Plan)
    text = describe(found)
    for part in ("a/GPU of a: layers", "tokens/s", "first token after", "considered:", "taken"):
        assert part in text
    assert "small alone: " in text
    assert found.as_dict()["considered"][0]["devices"] == [one.device for one in found.shares]
    assert "A/GPU of A: layers" in describe(found, called=lambda name: name.replace("a", "A"))


def test_calibration_moves_what_is_chosen() -> None:
    """Where devices turn out slow, a peer alone that lost wins."""
    devices = [worker("a", 4 * GB), worker("b", 4 * GB)]
    wants = Wants(may_speculate=False)
    bare = planned(EIGHT, devices, wants).prediction.seconds
    rate = Mix().answer_tokens / (bare * 1.2)
    solo = Solo(peer="p", decode_rate=rate, prefill_rate=1e9)
    assert isinstance(plan(EIGHT, devices, wants, solos=[solo]), Plan)
    slow = Calibration(token=Factors(compute=2.0), prompt=Factors(compute=2.0))
    assert isinstance(plan(EIGHT, devices, wants, solos=[solo], calibration=slow), Refused)


def test_two_devices_of_one_name_are_a_mistake() -> None:
    """They could not be told apart in a plan."""
    with pytest.raises(ValueError, match="an id of its own"):
        plan(EIGHT, [worker("a"), worker("a")], Wants())


@pytest.mark.parametrize(
    "mix",
    [
        Mix(),
        Mix(concurrent=4),
        Mix(prompt_tokens=3000, answer_tokens=10),
        Mix(prompt_tokens=10, answer_tokens=1000),
    ],
    ids=("usual", "four at once", "prompts", "answers"),
)
def test_eight_unlike_devices_are_planned_with_little_work(
    mix: Mix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router asks for a plan while a request waits: of 255 sets few are cut at all.

    Cuts are counted, since the time of a test says how busy its machine is; all but a few
    milliseconds of a plan go there.
    """
    devices = [cpu(4 * GB)] + [
        worker(
            f"w{i}",
            int((1 + 0.37 * i) * GB),
            bandwidth=(50 + 31 * i) * 1e9,
            compute=(1 + i % 3) * 1e12,
            link=Link(rtt=0.0002 * (1 + i * 5 % 7), rate=(20 + 13 * i) * 1e6),
        )
        for i in range(7)
    ]
    counted: list[tuple[int, ...]] = []
    cut = Cutter._best

    def count(cutter: Cutter, order: tuple[int, ...], *given: Any) -> Any:
        counted.append(order)
        return cut(cutter, order, *given)

    monkeypatch.setattr(Cutter, "_best", count)
    begin = time.process_time()
    planned(EIGHT, devices, Wants(mix=mix))
    assert time.process_time() - begin < 1.0
    assert len(counted) <= MOST_CUTS


def test_very_many_devices_are_planned_all_the_same() -> None:
    """Not every set of forty is looked at."""
    devices = [
        worker(f"w{i}", int((0.4 + 0.01 * i) * GB) + 10**9, bandwidth=(50 + i) * 1e9)
        for i in range(40)
    ]
    found = planned(EIGHT, devices)
    assert len(found.considered) <= 24
    assert isinstance(found.considered[0], Considered)
