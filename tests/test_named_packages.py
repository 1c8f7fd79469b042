"""The packages that punch is asked to be built on are what it is built on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from typing import Any

import attrs
import msgpack
import pydantic
import pytest
import trio
from integration.programs import ROOT

import punch
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.testing import open_swarm

LIMIT = 3600

# What does something, and so is no value; a class of values has no place in this list.
SERVICES = frozenset(
    {
        "Router",
        "Answer",
        "KnownPeers",
        "Bus",
        "Subscription",
        "DecisionLog",
        "Listener",
        "RunningLane",
        "Worker",
        "Borrower",
        "Lease",
        "RpcLender",
        "BootstrapServer",
        "DiskMembership",
        "Gateway",
    }
)


def public_classes() -> dict[str, type[Any]]:
    """The classes that users get from `import punch`, without errors and protocols."""
    found = {name: getattr(punch, name) for name in punch.__all__}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, type)
        and not issubclass(value, BaseException)
        and not getattr(value, "_is_protocol", False)
    }


def test_every_public_value_is_made_by_attrs_and_frozen() -> None:
    """No dataclass, no named tuple, no model of pydantic, and nothing that changes."""
    values = {name: cls for name, cls in public_classes().items() if name not in SERVICES}
    assert len(values) >= 15
    for name, cls in values.items():
        assert attrs.has(cls), name
        assert not dataclasses.is_dataclass(cls), name
        assert not issubclass(cls, (tuple, dict, pydantic.BaseModel)), name
        assert cls.__setattr__ is not object.__setattr__, f"{name} can be changed"


def test_no_service_is_a_value_in_disguise() -> None:
    """What is in the list above is no class of attrs that anybody could make and compare."""
    for name in SERVICES & public_classes().keys():
        cls = public_classes()[name]
        assert not (attrs.has(cls) and cls.__setattr__ is not object.__setattr__), name


async def test_a_session_is_msgpack(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that has msgpack and no code of punch asks a listener, and understands the answer."""
    with trio.fail_after(LIMIT):
        async with open_swarm() as swarm:
            await swarm.listener("listener", MockBackend(MockScript()))
            node = swarm.network.node("stranger")
            # The bootstrap was the first on this network, the listener the second.
            stream = await node.open_stream(
                PeerId("listener"), ("/ip4/10.0.0.2/tcp/1",), "/punch/session/1"
            )

            async def say(**message: Any) -> None:
                packed = msgpack.packb(message)
                await stream.send_all(len(packed).to_bytes(4, "big") + packed)

            received = bytearray()

            async def hear() -> dict[str, Any]:
                while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
                    data = await stream.receive_some()
                    assert data, "the session ended"
                    received.extend(data)
                size = int.from_bytes(received[:4], "big")
                message = msgpack.unpackb(bytes(received[4 : 4 + size]))
                del received[: 4 + size]
                assert isinstance(message, dict)
                return message

            await say(
                type="hello",
                minor=0,
                version="none of punch",
                incarnation=1,
                namespace="testing",
                max_frame=8 << 20,
                max_requests=16,
            )
            assert (await hear())["type"] == "hello"
            advert = await hear()
            assert (advert["type"], advert["capability"]["backend"]) == ("advert", "mock")
            await say(
                type="request",
                request={
                    "request_id": "1",
                    "messages": [{"role": "user", "content": "hello"}],
                    "sampling": {"max_tokens": 4},
                },
            )
            text = ""
            while (message := await hear())["type"] != "response":
                if message["type"] == "chunk":
                    text += message["text"]
    assert message["response"]["status"] == "success"
    assert message["response"]["usage"]["completion_tokens"] == len(text.split()) == 4


def test_llama_cpp_python_is_a_backend_that_is_tested() -> None:
    """With the real binding, in the stage that CI runs; an extra of its own brings it."""
    extras = importlib.metadata.metadata("punch-router").get_all("Provides-Extra") or []
    assert "llama-cpp-python" in extras
    for name in ("test_binding.py", "test_constrained.py"):
        text = (ROOT / "tests" / "integration" / name).read_text(encoding="utf-8")
        assert "llama_cpp_python" in text
        # It is never skipped where the binding is missing: a missing binding fails.
        assert not re.search(r"importorskip|pytest\.mark\.(skip|skipif|xfail|long)\b", text)
    assert "bins/setup" in (ROOT / "tests" / "stages.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["attrs", "msgpack", "trio", "libp2p"])
def test_what_it_is_built_on_is_installed_with_it(package: str) -> None:
    """Not only where somebody develops it."""
    needed = importlib.metadata.requires("punch-router") or []
    plain = {re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line}
    assert package in plain
