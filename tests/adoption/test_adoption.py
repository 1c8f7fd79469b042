"""What is adopted, what never is, and how lanes come and go; in virtual time."""

from __future__ import annotations

import pytest
import trio
from model_servers import LlamaServer, LmStudio, ModelServer, Ollama, Vllm
from played_servers import Gateway, Network, PlayedListener, WebServer, adopting
from trio.testing import MockClock

from punch.adoption import USUAL, Adoption, Given, Place, places_of
from punch.exceptions import ConfigurationError

OLLAMA = "127.0.0.1:11434"


def by_url(adoption: Adoption) -> dict[str, str]:
    return {each.url: each.state for each in adoption.adopted}


async def test_what_runs_is_found_and_is_a_lane(autojump_clock: MockClock) -> None:
    """Several programs, each named for what it says that it is; looking loads no model."""
    ollama, studio = Ollama("llama3.2:latest"), LmStudio("qwen")
    network = Network(
        {
            OLLAMA: ollama,
            "127.0.0.1:1234": studio,
            "::1:8000": Vllm("m"),
        }
    )
    listener = PlayedListener()
    async with adopting(network, listener, places=USUAL) as adoption:
        await trio.sleep(10)
        assert sorted(listener.names) == ["lm-studio", "ollama", "vllm"]
        found = {each.url: each for each in adoption.adopted}
        assert found["http://127.0.0.1:11434"].models == ("llama3.2:latest",)
        assert found["http://127.0.0.1:11434"].how == "found"
        assert found["http://[::1]:8000"].lane == "vllm"
        assert {each.state for each in found.values()} == {"ready"}
    assert listener.names == []
    assert ollama.loaded_by_asking == studio.loaded_by_asking == []


async def test_a_server_that_starts_later_is_found_within_seconds(
    autojump_clock: MockClock,
) -> None:
    """A refused connection costs nothing, so the place is looked at every few seconds."""
    server = Ollama("a")
    server.is_up = False
    listener = PlayedListener()
    async with adopting(Network({OLLAMA: server}), listener, places=USUAL) as adoption:
        await trio.sleep(1000)
        assert adoption.adopted == ()
        server.is_up = True
        await trio.sleep(4)
        assert listener.names == ["ollama"]


async def test_a_server_that_is_gone_rests_then_loses_its_lane_and_gets_it_back(
    autojump_clock: MockClock,
) -> None:
    """A restart costs nobody the lane; what is gone for long is no promise any more."""
    server, listener = Ollama("a"), PlayedListener()
    async with adopting(Network({OLLAMA: server}), listener, places=USUAL) as adoption:
        await trio.sleep(5)
        server.is_up = False
        await trio.sleep(30)
        assert by_url(adoption) == {"http://127.0.0.1:11434": "resting"}
        assert listener.names == ["ollama"]
        server.is_up = True
        await trio.sleep(5)
        assert by_url(adoption) == {"http://127.0.0.1:11434": "ready"}
        assert listener.added == ["ollama"]
        server.is_up = False
        await trio.sleep(200)
        assert (listener.names, adoption.adopted) == ([], ())
        server.is_up = True
        await trio.sleep(5)
        assert listener.added == ["ollama", "ollama"]


@pytest.mark.parametrize(
    "gateway",
    [
        Gateway("m"),
        Gateway(),
        Gateway("m", owner="somebody"),
        Gateway("m", needs_key=True),
    ],
)
@pytest.mark.parametrize("is_given", [False, True])
async def test_a_gateway_of_punch_is_never_adopted(
    gateway: Gateway, is_given: bool, autojump_clock: MockClock
) -> None:
    """Whatever its version, with or without a model or a key, found or named by its address."""
    listener = PlayedListener()
    network = Network({OLLAMA: gateway, "172.17.0.2:8080": gateway})
    given = [Given(url="http://172.17.0.2:8080", key="k")] if is_given else []
    places = [] if is_given else USUAL
    async with adopting(network, listener, given=given, places=places) as adoption:
        await trio.sleep(2000)
        (told,) = adoption.adopted
        assert (told.state, told.lane) == ("left alone", None)
        assert "gateway of punch" in (told.reason or "")
    assert listener.added == []
    assert all(asked.method == "GET" for asked in gateway.asked)


async def test_a_gateway_of_punch_in_the_place_of_a_server_gets_no_request(
    autojump_clock: MockClock,
) -> None:
    """Its port may be given to our own gateway while the lane still waits for the server."""
    network = Network({OLLAMA: Ollama("a")})
    listener = PlayedListener()
    async with adopting(network, listener, places=USUAL) as adoption:
        await trio.sleep(5)
        network.servers[OLLAMA] = Gateway("a")
        await trio.sleep(10)
        (told,) = adoption.adopted
        assert (told.state, told.models) == ("resting", ())
        await trio.sleep(200)
        assert listener.names == []


async def test_a_web_server_is_asked_politely_once_and_then_seldom(
    autojump_clock: MockClock,
) -> None:
    """One question in the first minute, fewer than ten in the first hour; never a POST."""
    web, listener = WebServer(), PlayedListener()
    async with adopting(Network({"127.0.0.1:8000": web}), listener, places=USUAL) as adoption:
        await trio.sleep(55)
        assert [(asked.method, asked.path) for asked in web.asked] == [("GET", "/v1/models")]
        await trio.sleep(3600)
        assert len(web.asked) < 10
        assert {asked.method for asked in web.asked} == {"GET"}
        assert by_url(adoption) == {"http://127.0.0.1:8000": "left alone"}
        # Who knows better than the pauses says so.
        asked = len(web.asked)
        adoption.look_now()
        await trio.sleep(1)
        assert len(web.asked) == asked + 1
    assert listener.added == []


async def test_one_engine_is_adopted_once_however_it_is_named(autojump_clock: MockClock) -> None:
    """Found, named by its name and by an address of this machine: the first that was named."""
    network = Network({OLLAMA: Ollama("a")})
    network.names = {
        "localhost": ("127.0.0.1",),
        "box.local": ("192.168.1.5",),
        "192.168.1.5": ("127.0.0.1",),
    }
    network.servers["192.168.1.5:11434"] = network.servers[OLLAMA]
    given = [
        Given(url="http://box.local:11434/v1", model="a"),
        Given(url="http://localhost:11434"),
        Given(url="http://192.168.1.5:11434"),
    ]
    listener = PlayedListener()
    async with adopting(network, listener, given=given, places=USUAL) as adoption:
        await trio.sleep(100)
        (told,) = adoption.adopted
        assert (told.url, told.how) == ("http://box.local:11434", "named")
        assert listener.added == ["ollama"]


async def test_a_name_that_is_looked_up_late_makes_no_second_lane(
    autojump_clock: MockClock,
) -> None:
    """What was found first stays, and the other address says whose engine it is."""
    network = Network({OLLAMA: Ollama("a"), "192.168.1.5:11434": Ollama("a")})
    listener = PlayedListener()
    given = [Given(url="http://box:11434")]
    async with adopting(network, listener, given=given, places=USUAL) as adoption:
        await trio.sleep(10)
        assert listener.names == ["ollama"]
        network.names = {"box": ("192.168.1.5",)}
        await trio.sleep(100)
        assert listener.added == ["ollama"]
        told = next(each for each in adoption.adopted if each.how == "named")
        assert told.reason == "it is the engine of http://127.0.0.1:11434"


async def test_what_this_process_serves_or_uses_itself_is_not_even_looked_at(
    autojump_clock: MockClock,
) -> None:
    """The engine of a lane's own setting, and our own gateway's port."""
    server = Ollama("a")
    network, listener = Network({OLLAMA: server}), PlayedListener()
    ours = ["http://localhost:11434/v1"]
    async with adopting(network, listener, places=USUAL, ours=lambda: ours):
        await trio.sleep(100)
        assert OLLAMA not in network.reached
        assert (server.asked, listener.added) == ([], [])
        ours.clear()
        await trio.sleep(5)
        assert listener.added == ["ollama"]


async def test_a_named_server_of_another_machine_waits_for_it_and_has_what_was_said(
    autojump_clock: MockClock,
) -> None:
    """Its model, features, context and key; until it is there it is told that it is looked for."""
    server = ModelServer("a", "b")
    server.is_up = False
    network = Network({"10.0.0.9:9999": server})
    given = Given(
        url="http://10.0.0.9:9999/v1", model="b", features=frozenset({"chat", "tools"}),
        context=512, key="secret",
    )  # fmt: skip
    listener = PlayedListener()
    async with adopting(network, listener, given=[given]) as adoption:
        await trio.sleep(100)
        assert by_url(adoption) == {"http://10.0.0.9:9999": "looking"}
        server.is_up = True
        await trio.sleep(5)
        (lane,) = listener.lanes
        (offer,) = lane.backend.offers
        assert (offer.name, offer.context_tokens) == ("b", 512)
        assert offer.features == {"chat", "tools"}
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer secret"}
    assert "secret" not in repr(given)


async def test_servers_that_are_named_later_come_and_go_without_disturbing_others(
    autojump_clock: MockClock,
) -> None:
    """A lane that stays as it was is the very same; one with other words is another."""
    network = Network({OLLAMA: Ollama("a"), "10.0.0.9:1": ModelServer("b")})
    listener = PlayedListener()
    b = Given(url="http://10.0.0.9:1")
    async with adopting(network, listener, places=USUAL) as adoption:
        await trio.sleep(5)
        (first,) = listener.lanes
        await adoption.update([b], USUAL)
        await trio.sleep(5)
        assert listener.names == ["ollama", "server"]
        await adoption.update([Given(url=b.url, context=64)], USUAL)
        await trio.sleep(5)
        assert listener.added == ["ollama", "server", "server"]
        assert listener.lanes[0] is first
        await adoption.update([Given(url="http://127.0.0.1:11434", model="a")], USUAL)
        await trio.sleep(5)
        assert listener.names == ["ollama"]
        assert listener.lanes[0] is not first
        await adoption.update([], [])
        assert (listener.names, adoption.adopted) == ([], ())


async def test_two_servers_of_one_program_have_lanes_of_two_names(
    autojump_clock: MockClock,
) -> None:
    """No two lanes of a listener share one, and none says an address."""
    network = Network({OLLAMA: Ollama("a"), "10.0.0.9:11434": Ollama("a")})
    listener = PlayedListener()
    given = [Given(url="http://10.0.0.9:11434")]
    async with adopting(network, listener, given=given, places=USUAL):
        await trio.sleep(5)
    assert sorted(listener.added) == ["ollama", "ollama-2"]


async def test_a_lane_that_cannot_be_added_is_told_and_tried_again(
    autojump_clock: MockClock,
) -> None:
    """A listener may have no room for it now."""
    listener = PlayedListener()
    listener.refusal = ConfigurationError("there are 64 lanes, and no listener has more")
    network = Network({OLLAMA: Ollama("a")})
    async with adopting(network, listener, places=USUAL) as adoption:
        await trio.sleep(5)
        (told,) = adoption.adopted
        assert (told.state, told.reason) == ("left alone", listener.refusal.message)
        listener.refusal = None
        await trio.sleep(200)
        assert listener.names == ["ollama"]


async def test_a_server_that_wants_a_key_is_told_of_and_not_adopted(
    autojump_clock: MockClock,
) -> None:
    """It is named with its key, by a person."""
    server = Vllm("m")
    server.status = 401
    listener = PlayedListener()
    async with adopting(Network({"127.0.0.1:8000": server}), listener, places=USUAL) as adoption:
        await trio.sleep(600)
        (told,) = adoption.adopted
        assert (told.state, told.reason) == ("left alone", "its server wants a key")
    assert len(server.asked) < 20


async def test_a_server_that_loads_is_adopted_once_it_is_ready(autojump_clock: MockClock) -> None:
    """llama-server answers 503 until its model is in memory."""
    server = LlamaServer("m")
    server.status = 503
    listener = PlayedListener()
    async with adopting(Network({"127.0.0.1:8080": server}), listener, places=USUAL):
        await trio.sleep(20)
        assert listener.names == []
        server.status = None
        await trio.sleep(60)
        assert listener.names == ["llama-server"]


async def test_looking_is_told_once_for_each_change(autojump_clock: MockClock) -> None:
    """Who shows what is adopted waits for a change, and is not woken every few seconds."""
    network, listener = Network({OLLAMA: Ollama("a")}), PlayedListener()
    async with adopting(network, listener, places=places_of({})) as adoption:
        await trio.sleep(20)
        with trio.move_on_after(1000) as scope:
            await adoption.changed.wait()
        assert scope.cancelled_caught


async def test_an_address_that_makes_no_sense_is_refused(autojump_clock: MockClock) -> None:
    """With the value and the rule, and before anything is changed."""
    network, listener = Network({}), PlayedListener()
    async with adopting(network, listener) as adoption:
        with pytest.raises(ConfigurationError, match="address of a server"):
            await adoption.update([Given(url="nas:11434")])
        with pytest.raises(ConfigurationError, match="48 are the most"):
            await adoption.update([Given(url=f"http://a:{n}") for n in range(1, 60)])


async def test_the_end_of_everything_waits_for_no_lane(autojump_clock: MockClock) -> None:
    """Who ends the program is not kept by what is adopted."""
    network, listener = Network({OLLAMA: Ollama("a")}), PlayedListener()
    began = trio.current_time()
    with trio.move_on_after(5):
        async with adopting(network, listener, places=[Place(port=11434, program="Ollama")]):
            await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(5)
    assert listener.names == ["ollama"]
