"""The law against what was measured with real servers, and its directions."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SMOL, make_layout
from strategies import maybe

from punch.gguf import LayerSize, Layout
from punch.placement import (
    HEAD,
    Device,
    Link,
    Mix,
    Prediction,
    Share,
    Speculation,
    Wants,
    predict,
)

# Milliseconds one way, and what SmolLM2 took over so many plain rpc-servers of one thread on
# loopback behind a proxy with that delay: milliseconds a token, and seconds until it was ready.
# llama.cpp 0.3.36, RPC 7.0.0, on two cores.
DELAYS = (0.0, 1.0, 5.0, 10.0, 20.0)
TOKENS = {
    1: (17.6, 17.8, 28.2, 37.7, 59.4),
    2: (18.8, 22.1, 38.7, 57.2, 100.6),
    3: (17.8, 25.7, 50.8, 79.4, 139.9),
}
LOADS = {
    1: (0.46, 0.60, 0.97, 1.42, 2.33),
    2: (0.43, 0.69, 1.34, 2.23, 4.07),
    3: (0.42, 0.73, 1.86, 3.15, 5.81),
}
# Tokens a second of a prompt of 1,300 over two workers, by micro-batch; one machine had 150.
PROMPTS = {512: 178, 128: 244, 64: 247}
# The same with the output on the head: without delay, and at 20 ms one way.
PROMPTS_OUTPUT_ON_HEAD = {512: (178, 167), 128: (172, 210), 64: (230, 210)}
# Tokens a second together at 20 ms one way over two workers, by requests at once, prompts of 24
# tokens among them.
AT_ONCE = {1: 8.2, 2: 13.4, 4: 18.8, 8: 26.6}

LOOPBACK_RATE = 1e9
WITHIN = 0.15


def workers(count: int, delay: float, *, token: float, prompt_rate: float = 166.0) -> list[Device]:
    """Machines with *token* milliseconds for SmolLM2 alone, each *delay* milliseconds away."""
    weights = sum(one.weights for one in SMOL.layers)
    return [
        Device(
            id=f"RPC{i}",
            holder=f"worker-{i}",
            memory=10**9,
            bandwidth=(weights + SMOL.output) / (token / 1e3 - 0.001 * count),
            # So that one machine alone reads a prompt of 1,300 at the rate that was measured.
            compute=prompt_rate * (weights * 8 / 4.85 + 30 * SMOL.embedding * 1300),
            link=Link(rtt=2 * delay / 1e3, rate=LOOPBACK_RATE),
        )
        for i in range(count)
    ]


def even(devices: list[Device], layers: int = 30) -> list[Share]:
    """All layers, in shares of one size."""
    ends = [round(layers * i / len(devices)) for i in range(len(devices) + 1)]
    return [
        Share(device=one.id, layers=range(ends[i], ends[i + 1]), weights=0, kv=0)
        for i, one in enumerate(devices)
    ]


def law(devices: list[Device], wants: Wants | None = None, **plan: Any) -> Prediction:
    """What even shares of SmolLM2 take."""
    return predict(
        SMOL,
        even([one for one in devices if one.is_remote]),
        devices=devices,
        wants=wants or Wants(context_tokens=2048, mix=Mix(prompt_tokens=24, answer_tokens=20)),
        **plan,
    )


@pytest.mark.parametrize("count", TOKENS)
@pytest.mark.parametrize("place", range(len(DELAYS)))
def test_a_token_takes_the_base_and_a_round_trip_for_each_worker(count: int, place: int) -> None:
    """With the first cell of a row given, the others are within 15 %."""
    base = TOKENS[count][0]
    found = law(workers(count, DELAYS[place], token=base))
    assert found.token * 1e3 == pytest.approx(TOKENS[count][place], rel=WITHIN)


@pytest.mark.parametrize("count", LOADS)
@pytest.mark.parametrize("place", range(len(DELAYS)))
def test_a_load_waits_46_times_for_each_worker(count: int, place: int) -> None:
    """The start of a head is the same for all cells."""
    found = law(workers(count, DELAYS[place], token=18.0))
    assert found.load == pytest.approx(LOADS[count][place], rel=WITHIN)


@pytest.mark.parametrize("micro_batch", PROMPTS)
def test_two_workers_read_a_prompt_at_once(micro_batch: int) -> None:
    """Both have a core of a machine that two busy cores slow down by a tenth."""
    wants = Wants(context_tokens=2048, mix=Mix(prompt_tokens=1300, answer_tokens=1))
    devices = workers(2, 0.0, token=18.0, prompt_rate=150.0 * 0.9)
    found = law(devices, wants, micro_batch=micro_batch)
    assert found.prompt_rate == pytest.approx(PROMPTS[micro_batch], rel=WITHIN)


def test_a_plan_that_is_split_says_where_each_second_goes() -> None:
    """Terms add up, and are named."""
    found = law(workers(2, 20.0, token=18.8), speculation=Speculation())
    assert found.seconds == pytest.approx(sum(found.terms.values()))
    assert found.token_parts.waits == pytest.approx(0.08)
    assert found.terms["speculation"] < 0
    assert {name.split()[0] for name in found.terms} == {
        "prompt",
        "answer",
        "speculation",
        "switch",
    }
    assert found.token == pytest.approx(sum(one.token.total for one in found.devices))


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_several_at_once_share_the_round_trips(at_once: int) -> None:
    """The first prompts of their shape wait four times more at each of the two workers."""
    mix = Mix(prompt_tokens=24, answer_tokens=24, concurrent=at_once)
    found = law(workers(2, 20.0, token=18.8), Wants(context_tokens=512, mix=mix), slots=at_once)
    seconds = found.seconds + 2 * 4 * 0.04
    assert 24 * at_once / seconds == pytest.approx(AT_ONCE[at_once], rel=0.25)


def test_an_output_placed_by_hand_slows_long_prompts_down() -> None:
    """By a fifteenth at most, and a prompt of one micro-batch not at all."""
    devices = workers(2, 0.0, token=18.0)
    head = Device(id="CPU", holder=HEAD, memory=10**9, bandwidth=8e9, compute=2e10)
    for tokens, least, most in ((1300, 1.04, 1.08), (64, 0.99, 1.01)):
        wants = Wants(context_tokens=2048, mix=Mix(prompt_tokens=tokens, answer_tokens=1))
        there, here = (
            predict(
                SMOL,
                even(devices),
                devices=[head, *devices],
                wants=wants,
                micro_batch=64,
                output_on_head=output_on_head,
            )
            for output_on_head in (False, True)
        )
        assert least <= here.first_token / there.first_token <= most


def test_guessing_gains_what_was_measured() -> None:
    """1.65 to 1.78 times over two workers at 20 ms one way, and a loss without any delay."""
    far = law(workers(2, 20.0, token=18.8), speculation=Speculation())
    near = law(workers(2, 0.0, token=18.8), speculation=Speculation())
    assert far.gain == pytest.approx(1.65, rel=WITHIN)
    assert near.gain < 1.0


def test_logits_cross_the_last_link_unless_the_output_is_on_the_head() -> None:
    """608 KB of a vocabulary of 152,000 take 49 ms at 100 Mbit/s."""
    model = attrs.evolve(SMOL, vocabulary=152_000)
    head = Device(id="CPU", holder=HEAD, memory=10**9, bandwidth=8e9, compute=2e10)
    devices = [
        attrs.evolve(one, link=Link(rtt=0.001, rate=12.5e6)) for one in workers(2, 0.0, token=18.8)
    ]
    wants = Wants()
    there = predict(model, even(devices), devices=[head, *devices], wants=wants)
    here = predict(model, even(devices), devices=[head, *devices], wants=wants, output_on_head=True)
    assert there.token_parts.logits == pytest.approx(0.0486, rel=0.01)
    assert here.token_parts.logits == 0.0
    assert there.devices[1].down_bytes == 608_000
    assert here.devices[1].down_bytes == 4 * 576


def test_a_kept_prompt_costs_round_trips_for_each_layer() -> None:
    """Sixty of them and the cache over two workers, as was counted without -cram 0."""
    kept = law(workers(2, 20.0, token=18.8), keeps_prompts=True)
    assert kept.terms["switch"] == pytest.approx(60 * 0.04, rel=0.01)
    assert law(workers(2, 20.0, token=18.8)).terms["switch"] == 0.0


def test_shares_must_hold_each_layer_once() -> None:
    """Gaps, overlaps and unknown devices are refused by name."""
    devices = workers(2, 0.0, token=18.8)
    for ranges in ((range(15), range(16, 30)), (range(16), range(15, 30)), (range(15), range(29))):
        shares = [
            Share(device=one.id, layers=layers, weights=0, kv=0)
            for one, layers in zip(devices, ranges, strict=False)
        ]
        with pytest.raises(ValueError, match="they must hold all 30 layers"):
            predict(SMOL, shares, devices=devices, wants=Wants())
    other = [Share(device="RPC7", layers=range(30), weights=0, kv=0)]
    with pytest.raises(ValueError, match="RPC7"):
        predict(SMOL, other, devices=devices, wants=Wants())


# -- directions -------------------------------------------------------------------------------

sizes = st.integers(1, 10**9)
layers = st.builds(
    lambda weights, share, kv, window, state: LayerSize(
        weights=weights,
        experts=int(weights * share),
        kv_per_token=kv,
        window=window,
        state=state,
    ),
    sizes,
    st.floats(0, 1),
    st.integers(0, 10**5),
    maybe(st.integers(1, 10**4)),
    st.integers(0, 10**6),
)
layouts = st.builds(
    lambda blocks, used, **rest: make_layout(
        blocks, experts=8 if used else 0, experts_used=used, **rest
    ),
    st.lists(layers, min_size=3, max_size=8),
    st.integers(0, 8),
    embeddings=sizes,
    output=sizes,
    is_tied=st.booleans(),
    largest_tensor=sizes,
    embedding=st.integers(1, 10_000),
    vocabulary=st.integers(1, 200_000),
)
speeds = st.floats(1e6, 1e13)
links = st.builds(Link, rtt=st.floats(0, 1), rate=st.floats(1e4, 1e10))
mixes = st.builds(
    Mix,
    prompt_tokens=st.integers(0, 10_000),
    answer_tokens=st.integers(0, 10_000),
    concurrent=st.integers(1, 9),
)


@st.composite
def splits(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of a prediction: a head's processor, three workers, and shares of all."""
    layout = draw(layouts)
    devices = [
        Device(
            id=f"RPC{i}" if i else "CPU",
            holder=f"worker-{i}" if i else HEAD,
            memory=10**12,
            bandwidth=draw(speeds),
            compute=draw(speeds),
            link=draw(links) if i else None,
        )
        for i in range(4)
    ]
    used = draw(st.lists(st.sampled_from(devices), min_size=1, max_size=3, unique_by=id))
    total = len(layout.layers)
    ends = sorted(
        draw(
            st.lists(
                st.integers(1, total - 1),
                min_size=len(used) - 1,
                max_size=len(used) - 1,
                unique=True,
            )
        )
    )
    shares = [
        Share(device=one.id, layers=range(begin, end), weights=0, kv=0)
        for one, begin, end in zip(used, [0, *ends], [*ends, total], strict=True)
    ]
    return {
        "layout": layout,
        "shares": shares,
        "devices": devices,
        "wants": Wants(mix=draw(mixes)),
        "output_on_head": draw(st.booleans()),
        "micro_batch": draw(st.sampled_from((64, 128, 256, 512))),
        "slots": draw(st.integers(1, 9)),
    }


def never_faster(after: Prediction, before: Prediction) -> bool:
    """Whether nothing of *after* is faster, floats apart."""
    return all(
        getattr(after, name) >= getattr(before, name) * (1 - 1e-9)
        for name in ("token", "step", "first_token", "load", "seconds")
    )


@given(splits(), st.integers(1, 3), st.floats(0, 1), st.floats(0.01, 1))
def test_no_link_that_is_worse_makes_it_faster(
    split: dict[str, Any], place: int, more: float, share: float
) -> None:
    """Monotone in round trip and rate."""
    before = predict(**split)
    devices = list(split["devices"])
    link = devices[place].link
    worse = Link(rtt=link.rtt + more, rate=link.rate * share)
    devices[place] = attrs.evolve(devices[place], link=worse)
    assert never_faster(predict(**{**split, "devices": devices}), before)


@given(splits(), st.integers(0, 3), st.floats(0.01, 1), st.floats(0.01, 1))
def test_no_slower_device_makes_it_faster(
    split: dict[str, Any], place: int, bandwidth: float, compute: float
) -> None:
    """Monotone in what a device can do."""
    before = predict(**split)
    devices = list(split["devices"])
    one = devices[place]
    devices[place] = attrs.evolve(
        one, bandwidth=one.bandwidth * bandwidth, compute=one.compute * compute
    )
    assert never_faster(predict(**{**split, "devices": devices}), before)


@given(splits(), st.integers(0, 2), st.integers(0, 10**9), st.integers(0, 10**5))
def test_no_larger_model_is_faster(
    split: dict[str, Any], place: int, weights: int, kv: int
) -> None:
    """Monotone in bytes."""
    before = predict(**split)
    layout = split["layout"]
    assert isinstance(layout, Layout)
    blocks = list(layout.layers)
    blocks[place] = attrs.evolve(
        blocks[place],
        weights=blocks[place].weights + weights,
        kv_per_token=blocks[place].kv_per_token + kv,
    )
    larger = attrs.evolve(layout, layers=tuple(blocks), output=layout.output + weights)
    assert never_faster(predict(**{**split, "layout": larger}), before)


@given(splits())
def test_terms_are_seconds_that_add_up(split: dict[str, Any]) -> None:
    """No term is below zero but what speculation saves, and the parts of each formula add up."""
    found = predict(**split)
    assert all(value >= 0 for value in found.terms.values())
    assert found.seconds == pytest.approx(sum(found.terms.values()))
    assert found.token == pytest.approx(found.token_parts.total)
    assert found.first_token == pytest.approx(found.prompt_parts.total)
    assert found.load == pytest.approx(found.load_parts.total)
