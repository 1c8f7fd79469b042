"""Messages as bytes: frozen, there and back, and hostile."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import MESSAGES, messages, registrations

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.exceptions import LocalProtocolError, RemoteProtocolError
from punch.wire import (
    MAX_FRAME_BYTES,
    Addressed,
    Advert,
    Cancel,
    ChatMessage,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    ContentPart,
    Credit,
    Encoded,
    Fault,
    Goodbye,
    Hello,
    Join,
    LoadReport,
    Ping,
    Pong,
    Progress,
    Provenance,
    Reasoning,
    Registration,
    Request,
    Response,
    Roster,
    Sampling,
    Standing,
    Started,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
    decode,
    decode_registration,
    encode,
    encode_map,
    encode_registration,
)
from punch.wire._codec import MAX_CONTAINERS, SINCE
from punch.wire._schema import MINOR
from punch.wire._session import MAX_GREETING_BYTES

HEADER = 4
MOCK = Provenance(kind="real", backend="mock", model="m")

# One message of every type, and its frame. A change here is a change of the protocol: old peers
# must still understand it, so fields are added and none is renamed.
FROZEN: list[tuple[Any, str]] = [
    (
        Hello(
            minor=0,
            version="1.0",
            incarnation=7,
            namespace="home",
            max_frame=8 << 20,
            max_requests=1024,
        ),
        "0000005a87a56d696e6f7200a776657273696f6ea3312e30ab696e6361726e6174696f6e"
        "07a96e616d657370616365a4686f6d65a96d61785f6672616d65ce00800000ac6d61785f"
        "7265717565737473cd0400a474797065a568656c6c6f",
    ),
    (
        Goodbye(code="bye", message="done"),
        "0000002483a4636f6465a3627965a76d657373616765a4646f6e65a474797065a7676f6f64627965",
    ),
    (
        Advert(
            incarnation=7,
            sequence=2,
            age=0.5,
            capability=Capability.of_one_lane(
                backend="mock",
                simulated=True,
                models=(ModelOffer(name="m", features=frozenset({"embed", "chat"})),),
                load=Load(slots=4, busy=1),
            ),
        ),
        "0000008d85ab696e6361726e6174696f6e07a873657175656e636502a3616765cb3fe000"
        "0000000000aa6361706162696c69747984a76261636b656e64a46d6f636ba973696d756c"
        "61746564c3a66d6f64656c739182a46e616d65a16da8666561747572657392a463686174"
        "a5656d626564a46c6f616482a5736c6f747304a46275737901a474797065a6616476657274",
    ),
    (
        Request(
            request=CommandRequest(
                request_id="r1",
                model="m",
                messages=(ChatMessage(role="user", content="hé"),),
                sampling=Sampling(max_tokens=8, temperature=0.0),
                strict=True,
                timeout=60.0,
            )
        ),
        "0000009282a77265717565737486aa726571756573745f6964a27231a56d6f64656ca16d"
        "a86d657373616765739182a4726f6c65a475736572a7636f6e74656e74a368c3a9a87361"
        "6d706c696e6782aa6d61785f746f6b656e7308ab74656d7065726174757265cb00000000"
        "00000000a6737472696374c3a774696d656f7574cb404e000000000000a474797065a772"
        "657175657374",
    ),
    (
        Progress(request_id="r1", state="queued"),
        "0000002a83aa726571756573745f6964a27231a57374617465a6717565756564a4747970"
        "65a870726f6772657373",
    ),
    (
        Started(request_id="r1", provenance=MOCK),
        "0000004783aa726571756573745f6964a27231aa70726f76656e616e636583a46b696e64"
        "a47265616ca76261636b656e64a46d6f636ba56d6f64656ca16da474797065a773746172746564",
    ),
    (
        Chunk(request_id="r1", text="hé", tokens=2),
        "0000002b84aa726571756573745f6964a27231a474657874a368c3a9a6746f6b656e7302"
        "a474797065a56368756e6b",
    ),
    (
        Response(
            response=CommandResponse(
                request_id="r1",
                status="success",
                result=Completion(finish_reason="length"),
                executor=PeerId("p"),
                provenance=MOCK,
                usage=Usage(prompt_tokens=3, completion_tokens=2),
                timings=Timings(total=0.25),
                load=Load(),
            )
        ),
        "000000d082a8726573706f6e736588aa726571756573745f6964a27231a6737461747573"
        "a773756363657373a6726573756c7481ad66696e6973685f726561736f6ea66c656e6774"
        "68a86578656375746f72a170aa70726f76656e616e636583a46b696e64a47265616ca762"
        "61636b656e64a46d6f636ba56d6f64656ca16da5757361676582ad70726f6d70745f746f"
        "6b656e7303b1636f6d706c6574696f6e5f746f6b656e7302a774696d696e677381a5746f"
        "74616ccb3fd0000000000000a46c6f616480a474797065a8726573706f6e7365",
    ),
    (
        Cancel(request_id="r1"),
        "0000001b82aa726571756573745f6964a27231a474797065a663616e63656c",
    ),
    (
        Credit(request_id="r1", amount=16384),
        "0000002583aa726571756573745f6964a27231a6616d6f756e74cd4000a474797065a6637265646974",
    ),
    (Ping(nonce=1), "0000001282a56e6f6e636501a474797065a470696e67"),
    (Pong(nonce=1), "0000001282a56e6f6e636501a474797065a4706f6e67"),
    (
        Join(registration=b"\x80", signature=b"\x01\x02"),
        "0000002983ac726567697374726174696f6ec40180a97369676e6174757265c4020102a4"
        "74797065a46a6f696e",
    ),
    (
        Roster(
            namespace="home",
            whole=True,
            present=(Join(registration=b"\x80", signature=b"\x01"),),
            gone=(PeerId("p"),),
        ),
        "0000005285a96e616d657370616365a4686f6d65a577686f6c65c3a770726573656e7491"
        "82ac726567697374726174696f6ec40180a97369676e6174757265c40101a4676f6e6591"
        "a170a474797065a6726f73746572",
    ),
]
REGISTRATION = Registration(
    peer_id=PeerId("p"),
    namespace="home",
    roles=frozenset({"listener"}),
    addresses=("/ip4/127.0.0.1/tcp/1",),
    incarnation=7,
    sequence=0,
    lifetime=60.0,
)
FROZEN_REGISTRATION = (
    "87a7706565725f6964a170a96e616d657370616365a4686f6d65a4726f6c65a86c697374"
    "656e6572a961646472657373657391b42f6970342f3132372e302e302e312f7463702f31"
    "ab696e6361726e6174696f6e07a873657175656e636500a86c69666574696d65cb404e000000000000"
)


def packed(**fields: Any) -> bytes:
    """The body of a frame with these fields, whatever they are."""
    body: bytes = msgpack.packb(fields)
    return body


def ping(nonce: bytes) -> bytes:
    """A `Ping` whose nonce is these bytes."""
    return b"\x82\xa4type\xa4ping\xa5nonce" + nonce


def refusal(body: bytes) -> str:
    """What `decode` says against a body."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode(body)
    return str(caught.value)


# ---- frozen ----


@pytest.mark.parametrize(("message", "frame"), FROZEN, ids=lambda v: type(v).__name__)
def test_a_frame_is_what_it_always_was(message: Any, frame: str) -> None:
    """Both ways: what a peer of minor 0 gets are the bytes of the first release."""
    assert encode(message, minor=0).hex() == frame
    assert decode(bytes.fromhex(frame)[HEADER:]) == message


def test_every_message_type_is_frozen() -> None:
    """A new message type gets a snapshot before it gets a user."""
    frozen = [*FROZEN, *ADDED_AT_1, *ADDED_AT_2]
    assert {type(message) for message, _ in frozen} == set(MESSAGES)


def test_a_registration_is_what_it_always_was() -> None:
    """Signatures are made over these bytes."""
    assert encode_registration(REGISTRATION).hex() == FROZEN_REGISTRATION
    assert decode_registration(bytes.fromhex(FROZEN_REGISTRATION)) == REGISTRATION


# A peer of many roles, some of which nobody here knows.
MANY_ROLES = attrs.evolve(REGISTRATION, roles=frozenset({"dialer", "worker", "oracle"}))
FROZEN_MANY_ROLES = (
    "88a7706565725f6964a170a96e616d657370616365a4686f6d65a4726f6c65a66469616c6572a5726f6c"
    "657393a66469616c6572a66f7261636c65a6776f726b6572a961646472657373657391b42f6970342f31"
    "32372e302e302e312f7463702f31ab696e6361726e6174696f6e07a873657175656e636500a86c696665"
    "74696d65cb404e000000000000"
)
# What minor 1 adds to the messages of minor 0.
ADDED_AT_1: list[tuple[Any, str]] = [
    (
        Response(
            response=CommandResponse(
                request_id="r1", status="success", result=Completion(stopped_by=".")
            )
        ),
        (
            "0000004b82a8726573706f6e736583aa726571756573745f6964a27231a6737461747573a7737563"
            "63657373a6726573756c7481aa73746f707065645f6279a12ea474797065a8726573706f6e7365"
        ),
    ),
    (
        Response(
            response=CommandResponse(
                request_id="r1",
                status="error",
                executor=PeerId("a"),
                error=Fault(
                    code="backend_failed", message="it ended", retryable=True, engine_died=True
                ),
            )
        ),
        (
            "0000008382a8726573706f6e736584aa726571756573745f6964a27231a6737461747573a56572726f72"
            "a56572726f7284a4636f6465ae6261636b656e645f6661696c6564a76d657373616765a8697420656e64"
            "6564a9726574727961626c65c3ab656e67696e655f64696564c3a86578656375746f72a161a474797065"
            "a8726573706f6e7365"
        ),
    ),
    (
        Reasoning(request_id="r1", text="hm", tokens=2),
        (
            "0000002e84aa726571756573745f6964a27231a474657874a2686da6746f6b656e7302a474797065a972"
            "6561736f6e696e67"
        ),
    ),
    (
        Request(
            request=CommandRequest(
                request_id="r1",
                messages=(
                    ChatMessage.of_parts(
                        "user",
                        [
                            ContentPart(type="text", text="What is this?"),
                            ContentPart(type="image", media_type="image/png", data=b"\x89PNG"),
                            ContentPart(type="image", url="https://a.example/b.png"),
                        ],
                    ),
                    ChatMessage(role="assistant", content="A cat.", reasoning="ears"),
                ),
            )
        ),
        (
            "000000f782a77265717565737482aa726571756573745f6964a27231a86d657373616765739283a4726f"
            "6c65a475736572a7636f6e74656e74ad5768617420697320746869733fa570617274739382a474797065"
            "a474657874a474657874ad5768617420697320746869733f83a474797065a5696d616765aa6d65646961"
            "5f74797065a9696d6167652f706e67a464617461c40489504e4782a474797065a5696d616765a375726c"
            "b768747470733a2f2f612e6578616d706c652f622e706e6783a4726f6c65a9617373697374616e74a763"
            "6f6e74656e74a641206361742ea9726561736f6e696e67a465617273a474797065a772657175657374"
        ),
    ),
    (
        Advert(
            incarnation=7,
            sequence=1,
            age=0.5,
            capability=Capability.of_one_lane(
                backend="b",
                simulated=False,
                models=[ModelOffer(name="m", architecture="llama", embedding_length=576)],
            ),
        ),
        (
            "0000009185ab696e6361726e6174696f6e07a873657175656e636501a3616765cb3fe0000000000000aa"
            "6361706162696c69747982a56c616e65739182a76261636b656e64a162a973696d756c61746564c2a66d"
            "6f64656c739183a46e616d65a16dac617263686974656374757265a56c6c616d61b0656d62656464696e"
            "675f6c656e677468cd0240a474797065a6616476657274"
        ),
    ),
    (
        Request(request=CommandRequest(request_id="r1", command="count", prompt="a")),
        (
            "0000003c82a77265717565737483aa726571756573745f6964a27231a7636f6d6d616e64a5636f756e74"
            "a670726f6d7074a161a474797065a772657175657374"
        ),
    ),
    (
        Response(
            response=CommandResponse(
                request_id="r1",
                status="success",
                result=Completion(text="A cat.", reasoning="ears"),
            )
        ),
        (
            "0000005982a8726573706f6e736583aa726571756573745f6964a27231a6737461747573a77375636365"
            "7373a6726573756c7482a474657874a641206361742ea9726561736f6e696e67a465617273a474797065"
            "a8726573706f6e7365"
        ),
    ),
    (
        LoadReport(sequence=3, age=0.5, loads={"gpu": Load(slots=4, busy=1), "m": Load()}),
        (
            "0000003e84a873657175656e636503a3616765cb3fe0000000000000a56c6f61647382a367707582a573"
            "6c6f747304a46275737901a16d80a474797065a46c6f6164"
        ),
    ),
    (
        LoadReport(sequence=3, loads={"": Load(queued=2)}),
        ("0000002683a873657175656e636503a56c6f61647381a081a671756575656402a474797065a46c6f6164"),
    ),
    (
        Request(
            request=CommandRequest(
                request_id="r1",
                parallel_tool_calls=False,
                reasoning_effort="low",
                reasoning_budget=64,
            )
        ),
        (
            "0000006182a77265717565737484aa726571756573745f6964a27231b3706172616c6c656c5f746f6f6c"
            "5f63616c6c73c2b0726561736f6e696e675f6566666f7274a36c6f77b0726561736f6e696e675f627564"
            "67657440a474797065a772657175657374"
        ),
    ),
    (
        Response(
            response=CommandResponse(
                request_id="r1",
                status="success",
                usage=Usage(completion_tokens=9, reasoning_tokens=7),
            )
        ),
        (
            "0000006282a8726573706f6e736583aa726571756573745f6964a27231a6737461747573a77375636365"
            "7373a5757361676582b1636f6d706c6574696f6e5f746f6b656e7309b0726561736f6e696e675f746f6b"
            "656e7307a474797065a8726573706f6e7365"
        ),
    ),
    (
        Request(request=CommandRequest(request_id="r1", offer="gpu/m")),
        (
            "0000003182a77265717565737482aa726571756573745f6964a27231a56f66666572a56770752f6da474"
            "797065a772657175657374"
        ),
    ),
    (
        Response(
            response=CommandResponse(request_id="r1", status="success", load=Load(), lane="gpu")
        ),
        (
            "0000004582a8726573706f6e736584aa726571756573745f6964a27231a6737461747573a77375636365"
            "7373a46c6f616480a46c616e65a3677075a474797065a8726573706f6e7365"
        ),
    ),
    (
        Hello(
            minor=1,
            version="1.1",
            incarnation=7,
            namespace="home",
            max_frame=8 << 20,
            max_requests=1024,
            grant=b"\x01\x02",
        ),
        (
            "0000006488a56d696e6f7201a776657273696f6ea3312e31ab696e6361726e6174696f6e07a96e616d65"
            "7370616365a4686f6d65a96d61785f6672616d65ce00800000ac6d61785f7265717565737473cd0400a5"
            "6772616e74c4020102a474797065a568656c6c6f"
        ),
    ),
    (
        Join(registration=b"\x80", signature=b"\x01", minor=1, grant=b"\x02", root=b"\x03"),
        (
            "0000004086ac726567697374726174696f6ec40180a97369676e6174757265c40101a56d696e6f7201a5"
            "6772616e74c40102a4726f6f74c40103a474797065a46a6f696e"
        ),
    ),
    (
        Roster(
            namespace="home",
            present=(Join(registration=b"\x80", signature=b"\x01", minor=1, grant=b"\x02"),),
            minor=1,
        ),
        (
            "0000005a84a96e616d657370616365a4686f6d65a770726573656e749184ac726567697374726174696f"
            "6ec40180a97369676e6174757265c40101a56d696e6f7201a56772616e74c40102a56d696e6f7201a474"
            "797065a6726f73746572"
        ),
    ),
]


def test_many_roles_are_what_they_always_were() -> None:
    """Signatures are made over these bytes, and unknown roles are kept."""
    assert encode_registration(MANY_ROLES).hex() == FROZEN_MANY_ROLES
    assert decode_registration(bytes.fromhex(FROZEN_MANY_ROLES)) == MANY_ROLES


@pytest.mark.parametrize(("message", "frame"), ADDED_AT_1, ids=lambda v: type(v).__name__)
def test_what_minor_1_added_is_what_it_always_was(message: Any, frame: str) -> None:
    """Both ways."""
    assert encode(message).hex() == frame
    assert decode(bytes.fromhex(frame)[HEADER:]) == message


ADDED_AT_2: list[tuple[Any, str]] = [
    (
        Standing(grant=b"\x01", revocations=(b"\x02", b"\x03")),
        (
            "0000002b83a56772616e74c40101ab7265766f636174696f6e7392c40102c40103a474797065a87374"
            "616e64696e67"
        ),
    ),
    (
        Join(registration=b"\x80", signature=b"\x01", minor=2, relayed=True),
        (
            "0000003885ac726567697374726174696f6ec40180a97369676e6174757265c40101a56d696e6f7202"
            "a772656c61796564c3a474797065a46a6f696e"
        ),
    ),
    (
        Join(registration=b"\x80", signature=b"\x01", minor=2, near=True),
        (
            "0000003585ac726567697374726174696f6ec40180a97369676e6174757265c40101a56d696e6f7202"
            "a46e656172c3a474797065a46a6f696e"
        ),
    ),
    (
        Progress(request_id="r1", state="working", prompt_tokens=33, cached_tokens=3),
        (
            "0000004985aa726571756573745f6964a27231a57374617465a7776f726b696e67ad70726f6d70745f"
            "746f6b656e7321ad6361636865645f746f6b656e7303a474797065a870726f6772657373"
        ),
    ),
]


@pytest.mark.parametrize(("message", "frame"), ADDED_AT_2, ids=lambda v: type(v).__name__)
def test_what_minor_2_added_is_what_it_always_was(message: Any, frame: str) -> None:
    """Both ways."""
    assert encode(message).hex() == frame
    assert decode(bytes.fromhex(frame)[HEADER:]) == message


@given(message=messages)
def test_a_peer_of_minor_0_is_told_no_key_that_came_later(message: Any) -> None:
    """It would ignore them; what it gets is what it always got."""
    # Of these names there were fields before, in other messages.
    before = {"id", "minor", "prompt_tokens", "context_tokens", "cached_tokens"}
    later = {name for (_, name), minor in SINCE.items() if minor > 0} - before

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {*value, *(key for item in value.values() for key in keys(item))}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    assert not keys(msgpack.unpackb(encode(message, minor=0)[HEADER:])) & later


def test_a_peer_of_minor_0_is_told_the_text_of_a_message_of_parts() -> None:
    """What else there is in it, it could not read; what the request needs keeps it away."""
    parts = (ContentPart(type="text", text="hi"), ContentPart(type="image", url="u"))
    message = ChatMessage.of_parts("user", parts)
    request = CommandRequest(request_id="r1", messages=(message,))
    assert request.needs == {"image"}
    frame = encode(Request(request=request), minor=0)
    plain = attrs.evolve(request, messages=(ChatMessage(role="user", content="hi"),))
    assert decode(frame[HEADER:]) == Request(request=plain)


def test_parts_of_text_alone_are_text() -> None:
    """Everybody can be asked for that."""
    parts = [ContentPart(type="text", text=text) for text in ("a", "b")]
    assert ChatMessage.of_parts("user", parts, name="ann") == ChatMessage(
        role="user", content="ab", name="ann"
    )


def test_values_that_name_kinds_may_grow() -> None:
    """A newer peer's words are kept: features, states, finish reasons, codes, types of parts."""
    lane = Lane(id="a", backend="b", simulated=False, state="dreaming")
    offer = ModelOffer(name="m", lane="a", features=frozenset({"chat", "telepathy"}))
    part = ContentPart(type="smell", data=b"x")
    grown: list[Any] = [
        attrs.evolve(LANES, capability=Capability(lanes=(lane,), models=(offer,))),
        Response(
            response=CommandResponse(
                request_id="r1",
                status="error",
                result=Completion(finish_reason="boredom"),
                error=Fault(code="boredom", message="yawn"),
            )
        ),
        Goodbye(code="boredom", message="yawn"),
        Request(
            request=CommandRequest(
                request_id="r1", messages=(ChatMessage(role="user", content="", parts=(part,)),)
            )
        ),
    ]
    for message in grown:
        assert decode(encode(message)[HEADER:]) == message


def test_a_role_that_nobody_knows_is_no_fault() -> None:
    """Neither the one role of minor 0 nor one of a set."""
    fields = msgpack.unpackb(encode_registration(REGISTRATION)) | {"role": "worker"}
    told = decode_registration(packed(**fields))
    assert told.roles == {"worker"}
    assert (told.role, told.is_listener, told.is_shown) == ("dialer", False, True)


def test_a_set_of_roles_counts_more_than_the_one_beside_it() -> None:
    """The one is for minor 0, which knows two of them."""
    fields = msgpack.unpackb(encode_registration(MANY_ROLES))
    assert fields["role"] == "dialer"
    assert decode_registration(packed(**fields | {"role": "listener"})) == MANY_ROLES


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "registration.role: expected a value, got nothing"),
        ({"role": 1}, "registration.role: expected 1 to 32 printable characters, got int '1'"),
        (
            {"roles": ["a"] * 17},
            "registration.roles: expected a list of at most 16, got list of 17",
        ),
        ({"roles": ["\n"]}, "registration.roles: expected 1 to 32 printable characters"),
        ({"roles": None}, "registration.roles: expected a list of at most 16, got NoneType 'None'"),
    ],
)
def test_roles_are_few_and_can_be_shown(fields: dict[str, Any], text: str) -> None:
    """One line each, with nothing that a terminal would obey."""
    given = msgpack.unpackb(encode_registration(REGISTRATION))
    del given["role"]
    with pytest.raises(RemoteProtocolError) as caught:
        decode_registration(packed(**given | fields))
    assert str(caught.value).startswith(text)


def test_a_listeners_registration_fits_members_of_minor_0() -> None:
    """They take 2048 bytes; what they are never told may have 4096."""
    long = attrs.evolve(REGISTRATION, addresses=tuple(str(i) * 390 for i in range(8)))
    with pytest.raises(RemoteProtocolError, match="at most 2048 are allowed"):
        decode_registration(encode_registration(long))
    worker = attrs.evolve(long, roles=frozenset({"worker"}))
    assert 2048 < len(encode_registration(worker)) <= 4096
    assert decode_registration(encode_registration(worker)) == worker


def test_a_hello_with_the_longest_grant_fits_what_a_stranger_may_send() -> None:
    """In the longest namespace that there can be."""
    hello = Hello(
        minor=1,
        version="10.10.10rc10",
        incarnation=1 << 53,
        namespace="\U0001f600" * 256,
        max_frame=1 << 31,
        max_requests=1 << 20,
        grant=bytes(2560),
    )
    frame = encode(hello)
    assert len(frame) - HEADER <= MAX_GREETING_BYTES
    assert decode(frame[HEADER:]) == hello


# A request and a response with everything that was added since, as they were first sent.
FORMED = Request(
    request=CommandRequest(
        request_id="r1",
        messages=(
            ChatMessage(role="user", content="hi", name="ann"),
            ChatMessage(
                role="assistant",
                content="",
                tool_calls=(ToolCall(id="c1", name="f", arguments="{}"),),
            ),
            ChatMessage(role="tool", content="1", tool_call_id="c1"),
        ),
        tools=(Tool(name="f", description="d", parameters='{"type":"object"}'), Tool(name="g")),
        tool_choice="function:f",
        response_schema="{}",
        logprobs=2,
        sampling=Sampling(presence_penalty=0.5, frequency_penalty=-0.5),
    )
)
FORMED_FRAME = (
    "0000016882a77265717565737487aa726571756573745f6964a27231a86d657373616765739383a4726f"
    "6c65a475736572a7636f6e74656e74a26869a46e616d65a3616e6e83a4726f6c65a9617373697374616e"
    "74a7636f6e74656e74a0aa746f6f6c5f63616c6c739183a26964a26331a46e616d65a166a9617267756d"
    "656e7473a27b7d83a4726f6c65a4746f6f6ca7636f6e74656e74a131ac746f6f6c5f63616c6c5f6964a2"
    "6331a873616d706c696e6782b070726573656e63655f70656e616c7479cb3fe0000000000000b1667265"
    "7175656e63795f70656e616c7479cbbfe0000000000000a5746f6f6c739283a46e616d65a166ab646573"
    "6372697074696f6ea164aa706172616d6574657273b17b2274797065223a226f626a656374227d81a46e"
    "616d65a167ab746f6f6c5f63686f696365aa66756e6374696f6e3a66af726573706f6e73655f73636865"
    "6d61a27b7da86c6f6770726f627302a474797065a772657175657374"
)
ANSWERED = Response(
    response=CommandResponse(
        request_id="r1",
        status="success",
        result=Completion(
            text="hi",
            finish_reason="tool_calls",
            tool_calls=(ToolCall(id="c1", name="f", arguments='{"a":1}'),),
            logprobs=(
                TokenLogprob(token="h", logprob=-0.25, top=(("h", -0.25), ("", -2.0))),
                TokenLogprob(token="i", logprob=0.0),
            ),
        ),
    )
)
ANSWERED_FRAME = (
    "000000c282a8726573706f6e736583aa726571756573745f6964a27231a6737461747573a77375636365"
    "7373a6726573756c7484a474657874a26869ad66696e6973685f726561736f6eaa746f6f6c5f63616c6c"
    "73aa746f6f6c5f63616c6c739183a26964a26331a46e616d65a166a9617267756d656e7473a77b226122"
    "3a317da86c6f6770726f62739296a168cbbfd0000000000000a168cbbfd0000000000000a0cbc0000000"
    "0000000092a169cb0000000000000000a474797065a8726573706f6e7365"
)


@pytest.mark.parametrize(
    ("message", "frame"),
    [(FORMED, FORMED_FRAME), (ANSWERED, ANSWERED_FRAME)],
    ids=["asked", "answered"],
)
def test_tools_schemas_and_logprobs_are_what_they_always_were(message: Any, frame: str) -> None:
    """Both ways, in every field."""
    assert encode(message).hex() == frame
    assert decode(bytes.fromhex(frame)[HEADER:]) == message


# A claim of two lanes, as minor 1 has it.
LANES = Advert(
    incarnation=7,
    sequence=2,
    age=0.5,
    capability=Capability(
        lanes=(
            Lane(id="gpu", backend="llama_cpp", simulated=False, load=Load(slots=4), threads=8),
            Lane(id="m", backend="mock", simulated=True, state="starting"),
        ),
        models=(
            ModelOffer(name="m", id="gpu/m", lane="gpu"),
            ModelOffer(name="m", id="m/m", lane="m"),
        ),
        cpu_count=16,
    ),
)
LANES_FRAME = (
    "000000ef85ab696e6361726e6174696f6e07a873657175656e636502a3616765cb3fe0000000000000aa"
    "6361706162696c69747983a56c616e65739285a26964a3677075a76261636b656e64a96c6c616d615f63"
    "7070a973696d756c61746564c2a46c6f616481a5736c6f747304a7746872656164730884a26964a16da7"
    "6261636b656e64a46d6f636ba973696d756c61746564c3a57374617465a87374617274696e67a66d6f64"
    "656c739283a46e616d65a16da26964a56770752f6da46c616e65a367707583a46e616d65a16da26964a3"
    "6d2f6da46c616e65a16da96370755f636f756e7410a474797065a6616476657274"
)
# What a peer of minor 0 is told of it.
LANES_AT_0 = Advert(
    incarnation=7,
    sequence=2,
    age=0.5,
    capability=Capability.of_one_lane(
        backend="llama_cpp",
        simulated=True,
        load=Load(slots=5),
        threads=8,
        models=(ModelOffer(name="m"), ModelOffer(name="m")),
        cpu_count=16,
    ),
)


def test_lanes_are_what_they_always_were() -> None:
    """Both ways, between peers of minor 1."""
    assert encode(LANES).hex() == LANES_FRAME
    assert decode(bytes.fromhex(LANES_FRAME)[HEADER:]) == LANES


def test_a_peer_of_minor_0_is_told_of_one_peer_and_no_lanes() -> None:
    """The first real backend, simulated if any is, and the sum of the loads; no ids."""
    frame = encode(LANES, minor=0)
    assert frame == encode(LANES_AT_0, minor=0)
    assert decode(frame[HEADER:]) == LANES_AT_0


def test_a_peer_of_minor_0_is_told_when_there_is_no_lane() -> None:
    """With a backend that it takes, and nothing that it could ask for."""
    nothing = Advert(incarnation=7, sequence=2, age=0.5, capability=Capability())
    assert decode(encode(nothing)[HEADER:]) == nothing
    told = decode(encode(nothing, minor=0)[HEADER:])
    assert isinstance(told, Advert)
    (lane,) = told.capability.lanes
    assert lane == Lane(backend="none", simulated=False, load=Load(draining=True))


def test_the_ids_of_a_peer_without_lanes_are_unknown_keys() -> None:
    """Only minor 1 names offers."""
    offer = {"name": "m", "id": "x", "lane": "y"}
    told = decode(packed(**capability(models=[offer, offer])))
    assert isinstance(told, Advert)
    assert told.capability.models == (ModelOffer(name="m"), ModelOffer(name="m"))


# ---- there and back ----


@given(message=messages)
def test_what_is_decoded_is_what_was_encoded(message: Any) -> None:
    """Every legal message survives the journey."""
    frame = encode(message)
    assert int.from_bytes(frame[:HEADER], "big") == len(frame) - HEADER
    assert decode(frame[HEADER:]) == message


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Python turns to another thread wherever it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_write_into_no_message_of_each_other() -> None:
    """A membership writes chains in threads, and a program may run a router in each of several."""

    def write(number: int) -> set[bytes]:
        message = Request(
            request=CommandRequest(
                request_id=str(number),
                command="chat",
                messages=(ChatMessage(role="user", content=str(number) * 50),) * 20,
            ),
        )
        return {encode(message) for _ in range(500)} | {
            encode_map({"grants": [{"grant": b"x" * 300}] * 3, "number": number})
            for _ in range(500)
        }

    alone = [write(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == alone


@given(registration=registrations)
def test_a_registration_survives_the_journey(registration: Registration) -> None:
    """The bootstrap and every member read what the peer signed."""
    assert decode_registration(encode_registration(registration)) == registration


@given(features=st.frozensets(st.text(min_size=1, max_size=4), max_size=8))
def test_a_set_travels_sorted(features: frozenset[str]) -> None:
    """So that the same message is always the same bytes, in every process."""
    offer = ModelOffer(name="m", features=features)
    vector = Capability.of_one_lane(backend="b", simulated=False, models=(offer,))
    frame = encode(Advert(incarnation=1, sequence=1, age=0.0, capability=vector))
    (travelled,) = msgpack.unpackb(frame[HEADER:])["capability"]["models"]
    assert travelled.get("features", ["chat", "complete"]) == sorted(features)


@given(message=messages)
def test_none_never_travels(message: Any) -> None:
    """What is not known is left out."""

    def holds_none(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(holds_none, value.values()))
        if isinstance(value, list):
            return any(map(holds_none, value))
        return value is None

    assert not holds_none(msgpack.unpackb(encode(message)[HEADER:]))


def test_defaults_are_left_out() -> None:
    """A request as most people send it is small."""
    frame = encode(Request(request=CommandRequest(request_id="r1")))
    assert msgpack.unpackb(frame[HEADER:]) == {"type": "request", "request": {"request_id": "r1"}}


def test_what_the_router_adds_is_never_sent() -> None:
    """`decision` and `attempts` are for our own caller."""
    bare = CommandResponse(request_id="r1", status="success")
    full = attrs.evolve(bare, decision={"policy": "secret"}, attempts=({"peer": "a"},))
    assert encode(Response(response=full)) == encode(Response(response=bare))


def test_a_listener_tells_every_field_of_a_response_but_what_a_router_adds() -> None:
    """Whoever adds a field has it sent; a dialer is told the load of now, and its lane."""
    added = {"decision", "attempts", "segments"}
    fields = {field.name for field in attrs.fields(CommandResponse)}
    full = CommandResponse(**{name: f"the {name}" for name in fields})  # type: ignore[arg-type]  # told apart, not used
    result, load = Completion(text="so"), Load(busy=1)
    told = full.told(result, load=load, lane="gpu")
    bare = CommandResponse(request_id="r1", status="success")
    assert {name: getattr(told, name) for name in fields} == {
        **{name: f"the {name}" for name in fields},
        **{name: getattr(bare, name) for name in added},
        "result": result,
        "load": load,
        "lane": "gpu",
    }


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    """Other languages write 1.0 as 1."""
    advert = Advert(
        incarnation=1,
        sequence=1,
        age=2.0,
        capability=Capability.of_one_lane(backend="b", simulated=False),
    )
    fields = msgpack.unpackb(encode(advert)[HEADER:]) | {"age": 2}
    assert decode(packed(**fields)) == advert


@given(
    message=messages,
    extra=st.dictionaries(st.text(max_size=8).map("x_".__add__), st.integers(0, 255)),
)
def test_unknown_keys_are_ignored(message: Any, extra: dict[str, int]) -> None:
    """A newer peer may say more."""
    fields = msgpack.unpackb(encode(message)[HEADER:])
    assert decode(packed(**fields, **extra)) == message


def test_unknown_keys_are_ignored_at_any_depth() -> None:
    """A field may be added to any part of a message."""
    request = {"request_id": "r1", "sampling": {"seed": 1, "x": 1}, "x": [{}]}
    decoded = decode(packed(type="request", request=request))
    assert decoded == Request(request=CommandRequest(request_id="r1", sampling=Sampling(seed=1)))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_a_body_may_be_any_kind_of_bytes(kind: Any) -> None:
    """No copy is asked of the caller."""
    assert decode(kind(encode(Ping(nonce=1))[HEADER:])) == Ping(nonce=1)


def test_a_long_answer_with_all_its_alternatives_fits_one_frame() -> None:
    """As many tokens as are allowed, of a usual length."""
    top = tuple((f"token{i}", -float(i)) for i in range(20))
    tokens = (TokenLogprob(token="token0", logprob=0.0, top=top),) * 8192
    response = CommandResponse(
        request_id="r1", status="success", result=Completion(text="x", logprobs=tokens)
    )
    frame = encode(Response(response=response))
    assert len(frame) < MAX_FRAME_BYTES / 2
    assert decode(frame[HEADER:]) == Response(response=response)


def test_a_load_report_takes_tens_of_bytes() -> None:
    """That is what it is for."""
    report = LoadReport(sequence=70_000, loads={"": Load(slots=4, busy=1)})
    assert len(encode(report)) < 64


def test_what_goes_to_many_is_encoded_once_for_each_minor() -> None:
    """The same bytes as for one, and the very same object for the next."""
    many = Encoded(LANES)
    assert many.frame() is many.frame() == encode(LANES)
    assert many.frame(minor=0) is many.frame(minor=0) == encode(LANES, minor=0)
    with pytest.raises(LocalProtocolError, match="the peer takes at most 9"):
        many.frame(max_frame=9)


@pytest.mark.parametrize("minor", range(MINOR + 1))
def test_what_a_dialer_fills_in_travels_as_if_the_request_had_it(minor: int) -> None:
    """To each minor version; minor 0 knows no offers."""
    request = CommandRequest(request_id="r1", prompt="x", model="a", timeout=9.0, offer="o1")
    filled = attrs.evolve(request, timeout=2.5, model="b", offer="o2")
    addressed = Addressed(request, timeout=2.5, model="b", offer="o2")
    expected = decode(encode(Request(request=filled), minor=minor)[HEADER:])
    assert decode(addressed.frame(minor=minor)[HEADER:]) == expected
    assert addressed.message == Request(request=request)


def test_what_a_dialer_does_not_fill_in_stays_as_its_caller_said() -> None:
    """All but the time that is left."""
    request = CommandRequest(request_id="r1", prompt="x", model="a", offer="o1")
    frame = Addressed(request, timeout=2.5).frame()
    assert decode(frame[HEADER:]) == Request(request=attrs.evolve(request, timeout=2.5))
    with pytest.raises(LocalProtocolError, match="the peer takes at most 9"):
        Addressed(request, timeout=2.5).frame(max_frame=9)


# ---- ours to get right ----


def test_a_frame_too_long_for_the_peer_is_our_own_fault() -> None:
    """The text has both sizes."""
    with pytest.raises(LocalProtocolError) as caught:
        encode(Chunk(request_id="r1", text="x" * 1100), max_frame=1024)
    assert str(caught.value) == "a chunk of 1134 bytes; the peer takes at most 1024"


def test_a_frame_of_exactly_the_limit_is_sent() -> None:
    """The limit itself is allowed."""
    message = Chunk(request_id="r1", text="x" * 1000)
    size = len(encode(message)) - HEADER
    assert len(encode(message, max_frame=size)) == HEADER + size
    with pytest.raises(LocalProtocolError):
        encode(message, max_frame=size - 1)


def test_no_frame_is_longer_than_eight_mebibytes() -> None:
    """Without a limit from the peer, our own one holds."""
    request = CommandRequest(request_id="r1", prompt="x" * MAX_FRAME_BYTES)
    with pytest.raises(LocalProtocolError, match="the peer takes at most 8388608"):
        encode(Request(request=request))


def test_half_a_character_is_our_own_fault() -> None:
    """A lone surrogate is no Unicode and cannot travel."""
    with pytest.raises(LocalProtocolError) as caught:
        encode(Chunk(request_id="r1", text="a\ud800"))
    assert str(caught.value) == "text that is not Unicode: surrogates not allowed"


def test_a_number_beyond_64_bits_is_our_own_fault() -> None:
    """It does not fit the format."""
    with pytest.raises(LocalProtocolError):
        encode(Ping(nonce=1 << 64))


def test_a_value_that_is_no_message_part_is_our_own_fault() -> None:
    """Only values of this library travel."""
    with pytest.raises(LocalProtocolError) as caught:
        encode(Chunk(request_id="r1", text=object()))  # type: ignore[arg-type]  # what is tried
    assert str(caught.value) == "object cannot travel"


def test_a_failed_encoding_leaves_nothing_behind() -> None:
    """The next frame is whole and has nothing of the one that failed."""
    with pytest.raises(LocalProtocolError):
        encode(Chunk(request_id="r1", text="abc\ud800"))
    assert encode(Ping(nonce=1)).hex() == "0000001282a56e6f6e636501a474797065a470696e67"


# ---- theirs to get right ----

COUNT = "expected an integer from 0 to 9007199254740992, got"
OFFER = {"name": "m"}


def capability(**fields: Any) -> dict[str, Any]:
    """An advert with this much more in its capability."""
    vector = {"backend": "b", "simulated": False, **fields}
    return {"type": "advert", "incarnation": 1, "sequence": 1, "age": 0, "capability": vector}


def lanes(*them: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An advert with these lanes."""
    vector = {"lanes": [{"backend": "b", "simulated": False, **lane} for lane in them], **fields}
    return capability() | {"capability": vector}


def request(**fields: Any) -> dict[str, Any]:
    """A request with these fields."""
    return {"type": "request", "request": {"request_id": "r1", **fields}}


def said(**fields: Any) -> dict[str, Any]:
    """A request with one message that has these fields."""
    return request(messages=[{"role": "user", "content": "", **fields}])


def response(**fields: Any) -> dict[str, Any]:
    """A response with these fields."""
    return {"type": "response", "response": {"request_id": "r1", "status": "success", **fields}}


def joined(**fields: Any) -> dict[str, Any]:
    """A join with these fields."""
    return {"type": "join", "registration": b"", "signature": b"", **fields}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        # a value of the wrong type
        ({"type": "ping", "nonce": "1"}, f"ping.nonce: {COUNT} str '1'"),
        ({"type": "ping", "nonce": True}, f"ping.nonce: {COUNT} bool 'True'"),
        ({"type": "ping", "nonce": 1.0}, f"ping.nonce: {COUNT} float '1.0'"),
        ({"type": "ping", "nonce": None}, f"ping.nonce: {COUNT} NoneType 'None'"),
        (
            {"type": "chunk", "request_id": "r1", "text": b"x"},
            "chunk.text: expected text of 1 to 65536 characters, got bytes \"b'x'\"",
        ),
        (request(stream=1), "request.request.stream: expected true or false, got int '1'"),
        (
            request(inputs="a"),
            "request.request.inputs: expected a list of at most 2048, got str 'a'",
        ),
        (request(sampling=[]), "request.request.sampling: expected a map, got list of 0"),
        (joined(signature="x"), "join.signature: expected at most 128 bytes, got str 'x'"),
        ({"type": "request", "request": 1}, "request.request: expected a map, got int '1'"),
        # a value that is missing
        ({"type": "ping"}, "ping.nonce: expected a value, got nothing"),
        (
            request(messages=[{"role": "user"}]),
            "request.request.messages.content: expected a value, got nothing",
        ),
        (
            capability(models=[{"digest": "a" * 64}]),
            "advert.capability.models.name: expected a value, got nothing",
        ),
        # a number out of range
        ({"type": "ping", "nonce": -1}, f"ping.nonce: {COUNT} int '-1'"),
        ({"type": "ping", "nonce": 1 << 54}, f"ping.nonce: {COUNT} int '18014398509481984'"),
        (
            {"type": "credit", "request_id": "r1", "amount": 0},
            "credit.amount: expected an integer from 1 to 2147483648, got int '0'",
        ),
        (
            request(priority=101),
            "request.request.priority: expected an integer from -100 to 100, got int '101'",
        ),
        (
            capability(load={"slots": 0}),
            "advert.capability.load.slots: expected an integer from 1 to 65536, got int '0'",
        ),
        (
            capability(cpu_usage=1.5),
            "advert.capability.cpu_usage: expected a number from 0.0 to 1.0, got float '1.5'",
        ),
        (
            capability(models=[OFFER | {"decode_rate": 0}]),
            "advert.capability.models.decode_rate: "
            "expected a number from 1e-06 to 1000000000.0, got int '0'",
        ),
        # a number that is none
        (
            capability(models=[OFFER | {"load_seconds": math.nan}]),
            "advert.capability.models.load_seconds: expected a finite number, got float 'nan'",
        ),
        (
            request(timeout=math.inf),
            "request.request.timeout: expected a finite number, got float 'inf'",
        ),
        (
            request(sampling={"temperature": -math.inf}),
            "request.request.sampling.temperature: expected a finite number, got float '-inf'",
        ),
        (
            response(result={"embeddings": [[0.0, math.nan]]}),
            "response.response.result.embeddings: expected a finite number, got float 'nan'",
        ),
        # lanes that do not fit together
        (
            lanes({"id": "a"}, {"id": "a"}),
            "advert.capability: expected lanes with an id of their own each, got two of the same",
        ),
        (
            lanes({"id": "a"}, models=[{"name": "m", "lane": "b"}]),
            "advert.capability: expected offers of its own lanes, got one of str 'b'",
        ),
        (
            lanes({}, models=[{"name": "m", "id": "o"}] * 2),
            "advert.capability: expected offers with an id of their own each, got two of the same",
        ),
        (
            lanes({"id": ""}),
            "advert.capability.lanes.id: expected 1 to 64 printable characters, got str ''",
        ),
        (
            lanes(*[{}] * 65),
            "advert.capability.lanes: expected a list of at most 64, got list of 65",
        ),
        (
            {"type": "load", "sequence": 1, "age": 0, "loads": [1]},
            "load.loads: expected a map of at most 64, got list of 1",
        ),
        (
            {"type": "load", "sequence": 1, "age": 0, "loads": {str(i): {} for i in range(65)}},
            "load.loads: expected a map of at most 64, got dict of 65",
        ),
        (
            {"type": "load", "sequence": 1, "age": 0, "loads": {"a" * 65: {}}},
            f"load.loads: expected text of 0 to 64 characters, got str '{'a' * 40}'",
        ),
        (
            {"type": "load", "sequence": 1, "age": 0, "loads": {"a": {"busy": -1}}},
            f"load.loads.busy: {COUNT} int '-1'",
        ),
        (
            {"type": "reasoning", "request_id": "r1", "text": ""},
            "reasoning.text: expected text of 1 to 65536 characters, got str ''",
        ),
        (
            said(parts=[{"type": "image", "data": "x"}]),
            "request.request.messages.parts.data: expected at most 6291456 bytes, got str 'x'",
        ),
        (
            said(parts=[{"type": "image"}] * 129),
            "request.request.messages.parts: expected a list of at most 128, got list of 129",
        ),
        (
            said(parts=[{"text": "x"}]),
            "request.request.messages.parts.type: expected a value, got nothing",
        ),
        (
            request(offer=""),
            "request.request.offer: expected 1 to 64 printable characters, got str ''",
        ),
        # text out of range
        (
            {"type": "chunk", "request_id": "r1", "text": ""},
            "chunk.text: expected text of 1 to 65536 characters, got str ''",
        ),
        (
            {"type": "cancel", "request_id": "r 1"},
            "cancel.request_id: expected 1 to 128 printable ASCII characters without spaces, "
            "got str 'r 1'",
        ),
        (
            request(request_id="r" * 129),
            "request.request.request_id: expected "
            f"1 to 128 printable ASCII characters without spaces, got str '{'r' * 40}'",
        ),
        (
            request(model_digest="A" * 64),
            "request.request.model_digest: expected 64 hexadecimal digits, in small letters, "
            f"got str '{'A' * 40}'",
        ),
        (
            response(status="great"),
            "response.response.status: "
            "expected one of success, error, refused, timeout, cancelled; got str 'great'",
        ),
        (
            response(provenance={"kind": "maybe", "backend": "b"}),
            "response.response.provenance.kind: expected one of real, simulated; got str 'maybe'",
        ),
        # too many
        (
            request(sampling={"stop": ["x"] * 17}),
            "request.request.sampling.stop: expected a list of at most 16, got list of 17",
        ),
        (
            joined(registration=b"x" * 65537),
            f'join.registration: expected at most 4096 bytes, got bytes "b\'{"x" * 38}"',
        ),
        (
            request(tools=[{"name": "f"}] * 129),
            "request.request.tools: expected a list of at most 128, got list of 129",
        ),
        (
            request(messages=[{"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}]),
            "request.request.messages.tool_calls.name: expected a value, got nothing",
        ),
        (
            request(logprobs=21),
            "request.request.logprobs: expected an integer from 0 to 20, got int '21'",
        ),
        (
            request(sampling={"presence_penalty": 3}),
            "request.request.sampling.presence_penalty: "
            "expected a number from -2 to 2, got int '3'",
        ),
        (
            response(result={"tool_calls": [{"id": "c", "name": "f", "arguments": 1}]}),
            "response.response.result.tool_calls.arguments: "
            "expected text of 0 to 524288 characters, got int '1'",
        ),
        *[
            (
                response(result={"logprobs": [wrong]}),
                "response.response.result.logprobs: "
                f"expected a token, a number, and at most 20 such pairs more, got {shown}",
            )
            for wrong, shown in [
                ([], "list of 0"),
                (["a"], "list of 1"),
                (["a", -1.0] * 22, "list of 44"),
                ({"token": "a"}, "dict of 1"),
            ]
        ],
        (
            response(result={"logprobs": [["a", 0.5]]}),
            "response.response.result.logprobs: "
            "expected a number from -10000.0 to 0.0, got float '0.5'",
        ),
        (
            response(result={"logprobs": [["a", -1.0, -1.0, "a"]]}),
            "response.response.result.logprobs: "
            "expected text of 0 to 1024 characters, got float '-1.0'",
        ),
        (
            response(result={"logprobs": [["a", 0]] * 8193}),
            "response.response.result.logprobs: expected a list of at most 8192, got list of 8193",
        ),
        # no message at all
        ({}, "not a message: type NoneType 'None'"),
        ({"nonce": 1}, "not a message: type NoneType 'None'"),
        ({"type": "pong!"}, "not a message: type str 'pong!'"),
        ({"type": ["ping"]}, "not a message: type list of 1"),
        ({"type": b"ping", "nonce": 1}, "not a message: type bytes \"b'ping'\""),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(fields: dict[str, Any], text: str) -> None:
    """Whoever wrote the other end can find the mistake from the text."""
    assert refusal(packed(**fields)) == text


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "hello", b"hello", [], ["type", "ping"]], ids=repr
)
def test_a_body_that_is_no_map_is_no_message(value: object) -> None:
    """Whatever else msgpack can hold is refused."""
    assert refusal(msgpack.packb(value)) == "not a message: type NoneType 'None'"


def test_a_wrong_registration_is_named_with_its_rule() -> None:
    """Like any other value from outside."""
    fields = msgpack.unpackb(bytes.fromhex(FROZEN_REGISTRATION)) | {"lifetime": 0.5}
    with pytest.raises(RemoteProtocolError) as caught:
        decode_registration(packed(**fields))
    assert str(caught.value) == (
        "registration.lifetime: expected a number from 1.0 to 86400.0, got float '0.5'"
    )


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", b"\xa1a", b"\xc1"], ids=bytes.hex)
def test_what_is_no_map_is_no_registration(data: bytes) -> None:
    """However short."""
    with pytest.raises(RemoteProtocolError):
        decode_registration(data)


# ---- bombs ----


@pytest.mark.parametrize("depth", [10, 500, 900, 1000, 1023, 1024, 100_000])
@pytest.mark.parametrize(
    "before",
    [b"\x81\xa4type", b"\x82\xa4type\xa4ping\xa5nonce", b"\x82\xa5nonce\x01\xa4more"],
    ids=["the type", "a field", "an unknown field"],
)
@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_depth_is_no_bomb(before: bytes, nest: bytes, depth: int) -> None:
    """However deep the nesting, it is the peer's fault and nothing else breaks."""
    assert refusal(before + nest * depth + b"\xc0")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ping(b"\xdd\x00\x01\x00\x01"), "65537 exceeds max_array_len(65536)"),
        (ping(b"\xdd\xff\xff\xff\xff"), "4294967295 exceeds max_array_len(65536)"),
        (ping(b"\xdf\x00\x01\x00\x01"), "65537 exceeds max_map_len(65536)"),
        (b"\xdf\xff\xff\xff\xff", "4294967295 exceeds max_map_len(65536)"),
        (ping(b"\xd6\xff\x00\x00\x00\x00"), "5 exceeds max_ext_len(0)"),
        (ping(b"\xc9\xff\xff\xff\xff\x05"), "exceeds max_ext_len(0)"),
        (b"\x81\x01\x01", "int is not allowed for map key"),
        (b"\x81\x90\x01", "list is not allowed for map key"),
        (b"\x81\x80\x01", "dict is not allowed for map key"),
        (b"\x81\xc0\x01", "NoneType is not allowed for map key"),
        (ping(b"\xa2\xc3\x28"), "'utf-8' codec can't decode"),
        (ping(b"\xa3\xed\xa0\x80"), "'utf-8' codec can't decode"),
        (ping(b"\xc1"), ""),
        (ping(b""), "incomplete input"),
        (ping(b"\x01\x01"), "extra data"),
        (b"", "incomplete input"),
        (b"\xdc\xff\xff" * 400, "incomplete input"),
    ],
)
def test_bytes_that_are_no_message_are_refused(body: bytes, text: str) -> None:
    """Lengths, extension types, keys, half characters, and what is too short or too long."""
    found = refusal(body)
    assert found.startswith("not a msgpack map: ")
    assert text in found


def test_an_extension_without_content_is_refused() -> None:
    """No field takes one, however small."""
    assert refusal(ping(b"\xc7\x00\x05")).startswith("ping.nonce: ")


# ---- anything ----


def survives(body: bytes) -> None:
    """Decode *body*: it is a message, or the peer's fault."""
    try:
        message = decode(body)
    except RemoteProtocolError:
        return
    # What was accepted is a legal message: it travels on unchanged.
    assert decode(encode(message)[HEADER:]) == message


@given(body=st.binary(max_size=200))
@example(body=b"\x81\xa4type\xa4ping")
def test_arbitrary_bytes_raise_only_the_peers_error(body: bytes) -> None:
    """No bytes from outside break anything."""
    survives(body)


@given(message=messages, data=st.data())
def test_a_flipped_byte_raises_only_the_peers_error(message: Any, data: st.DataObject) -> None:
    """One wrong byte in a good frame: another message, or an error."""
    body = bytearray(encode(message)[HEADER:])
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(body))


@given(message=messages, data=st.data())
def test_a_truncated_body_is_the_peers_error(message: Any, data: st.DataObject) -> None:
    """No part of a message is a message."""
    body = encode(message)[HEADER:]
    assert refusal(body[: data.draw(st.integers(0, len(body) - 1))])


FIELDS = sorted({field.name for cls in MESSAGES for field in attrs.fields(cls)} | {"type"})
TYPES = sorted(type(message).__name__.lower() for message, _ in FROZEN)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(kind=st.sampled_from(TYPES), fields=st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_any_value_in_any_field_raises_only_the_peers_error(
    kind: str, fields: dict[str, Any]
) -> None:
    """Right names with wrong values get no further than the door."""
    survives(packed(**fields | {"type": kind}))


@given(message=messages, wrong=ANYTHING, data=st.data())
def test_any_value_at_any_place_raises_only_the_peers_error(
    message: Any, wrong: Any, data: st.DataObject
) -> None:
    """Somewhere inside a good message, anything at all."""
    body = msgpack.unpackb(encode(message)[HEADER:])
    place = body
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = wrong
    survives(packed(**body))


@given(data=st.binary(max_size=100))
def test_arbitrary_registrations_raise_only_the_peers_error(data: bytes) -> None:
    """The signature may be good and the content bad."""
    try:
        registration = decode_registration(data)
    except RemoteProtocolError:
        return
    assert decode_registration(encode_registration(registration)) == registration


def test_a_frame_of_too_many_containers_is_refused() -> None:
    """An empty one is a byte on the wire and fifty in memory, whatever key it is under."""
    ping = {"type": "ping", "nonce": 1}
    # The map itself and the list that holds them are two.
    few, many = ({**ping, "x": [[]] * count} for count in (MAX_CONTAINERS - 2, MAX_CONTAINERS - 1))
    assert decode(msgpack.packb(few)) == Ping(nonce=1)
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb(many))
