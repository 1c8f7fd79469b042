"""The rules of a session, one by one and all at once. No I/O and no clock anywhere."""

from __future__ import annotations

from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import MESSAGES

from punch.capability import Capability, Load
from punch.exceptions import LocalProtocolError, NotPermitted, RemoteProtocolError
from punch.wire import (
    WINDOW,
    Advert,
    Cancel,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Credit,
    Encoded,
    Goodbye,
    Hello,
    Join,
    LoadReport,
    Message,
    Ping,
    Pong,
    Progress,
    Provenance,
    Reasoning,
    Request,
    Response,
    Roster,
    Session,
    Standing,
    Started,
    State,
    decode,
    encode,
    greeting,
)
from punch.wire import _session as rules

HELLO = greeting(namespace="home", incarnation=1, version="1.0")
MOCK = Provenance(kind="simulated", backend="mock")
STARTED = Started(request_id="r1", provenance=MOCK)
ADVERT = Advert(
    incarnation=1,
    sequence=1,
    age=0.0,
    capability=Capability.of_one_lane(backend="mock", simulated=True),
)
REPORT = LoadReport(sequence=2, age=0.0, loads={"": Load()})
THOUGHT = Reasoning(request_id="r1", text="hm")
# What a peer of the first release says.
OLD = attrs.evolve(HELLO, minor=0)


def ask(request_id: str = "r1") -> Request:
    """A request."""
    return Request(request=CommandRequest(request_id=request_id))


def respond(request_id: str = "r1") -> Response:
    """Its response."""
    return Response(response=CommandResponse(request_id=request_id, status="success"))


def chunk(text: str = "hello", request_id: str = "r1") -> Chunk:
    """A part of its answer."""
    return Chunk(request_id=request_id, text=text)


def events(session: Session) -> list[Message]:
    """Every message that has arrived."""
    found = []
    while (message := session.next_event()) is not None:
        found.append(message)
    return found


def deliver(sender: Session, receiver: Session) -> list[Message]:
    """Everything that *sender* has to say arrives at once."""
    receiver.receive_data(sender.data_to_send())
    return events(receiver)


def hear(session: Session, *messages: Any) -> list[Message]:
    """The other end says this, whether it may or not."""
    session.receive_data(b"".join(map(encode, messages)))
    return events(session)


def filling(size: int) -> Chunk:
    """A chunk that takes so many bytes of the window between peers of minor 1."""
    return chunk("x" * (size - len(encode(chunk("x" * 1000))) + 1000))


def meet(**theirs: Any) -> tuple[Session, Session]:
    """A dialer and a listener that have greeted each other; *theirs* is the listener's Hello."""
    dialer, listener = Session("dialer", HELLO), Session("listener", attrs.evolve(HELLO, **theirs))
    deliver(dialer, listener)
    deliver(listener, dialer)
    return dialer, listener


def opened(role: rules.Role = "listener", **ours: Any) -> Session:
    """One end that was greeted, with nothing left to send."""
    session = Session(role, attrs.evolve(HELLO, **ours))
    hear(session, HELLO)
    session.data_to_send()
    return session


def refusal(session: Session, *messages: Any) -> str:
    """What *session* says against the last message. It has ended and says goodbye with it."""
    with pytest.raises(RemoteProtocolError) as caught:
        hear(session, *messages)
    assert session.state is State.ENDED
    assert last_words(session) == Goodbye(code="remote_protocol", message=str(caught.value))
    return str(caught.value)


def last_words(session: Session) -> Any:
    """The last message that *session* has to send."""
    data, message = session.data_to_send(), None
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        message, data = decode(data[4:size]), data[size:]
    return message


# ---- greeting ----


def test_a_listener_greets_only_after_it_was_greeted() -> None:
    """A stranger does not learn from it which namespace it is in."""
    listener = Session("listener", HELLO)
    assert Session("dialer", HELLO).data_to_send() == encode(HELLO)
    assert listener.data_to_send() == b""
    hear(listener, attrs.evolve(HELLO, incarnation=2))
    assert listener.data_to_send() == encode(HELLO)


def test_a_session_is_open_once_the_other_has_greeted() -> None:
    """And knows what the other said of itself."""
    session = Session("dialer", HELLO)
    theirs = attrs.evolve(HELLO, incarnation=2)
    assert (session.state, session.theirs, session.can_ask) == (State.GREETING, None, False)
    assert hear(session, theirs) == [theirs]
    assert (session.state, session.theirs, session.can_ask) == (State.OPEN, theirs, True)


@pytest.mark.parametrize(
    "message", [ask(), ADVERT, Ping(nonce=1), chunk()], ids=lambda m: type(m).__name__
)
def test_nothing_comes_before_hello(message: Message) -> None:
    """Not from the peer, and not from us."""
    name = type(message).__name__
    assert refusal(Session("listener", HELLO), message) == f"{name} before Hello"
    with pytest.raises(LocalProtocolError) as caught:
        Session("dialer", HELLO).send(message)
    assert str(caught.value) == f"{name} while the session is greeting"


def test_hello_comes_once() -> None:
    """Who a peer is does not change in the middle."""
    assert refusal(opened("dialer"), HELLO) == "a listener may not say Hello"
    with pytest.raises(LocalProtocolError, match=r"^a listener may not say Hello$"):
        opened().send(HELLO)


def test_peers_of_two_namespaces_do_not_talk() -> None:
    """And the text names neither."""
    stranger = attrs.evolve(HELLO, namespace="work")
    assert refusal(Session("dialer", HELLO), stranger) == ("the listener is in another namespace")


def test_the_older_side_is_told_to_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says which side that is."""
    monkeypatch.setattr(rules, "OLDEST_MINOR", 2)
    assert refusal(Session("listener", HELLO), attrs.evolve(HELLO, minor=1)) == (
        "the dialer speaks /punch/session/1.1 (punch 1.0) and the listener needs at least .2: "
        "the dialer must upgrade"
    )


def test_a_newer_peer_is_welcome() -> None:
    """Fields are only ever added, so it understands us."""
    session = Session("listener", HELLO)
    hear(session, attrs.evolve(HELLO, minor=99))
    assert session.state is State.OPEN


def test_a_peer_may_leave_before_it_greets() -> None:
    """A goodbye is an answer to our hello, such as: wrong namespace."""
    session = Session("dialer", HELLO)
    goodbye = Goodbye(code="remote_protocol", message="no")
    assert hear(session, goodbye) == [goodbye]
    assert session.state is State.ENDED


# ---- frames ----


@pytest.mark.parametrize("length", [8 << 20, (1 << 32) - 1])
def test_a_frame_beyond_the_limit_is_refused_from_its_length_alone(length: int) -> None:
    """Four bytes never make us wait for four gigabytes."""
    session = opened(max_frame=(8 << 20) - 1)
    session.receive_data(length.to_bytes(4, "big"))
    assert refusal(session) == f"a frame of {length} bytes; this side takes at most 8388607"


def test_a_frame_of_exactly_the_limit_is_taken() -> None:
    """The limit itself is allowed, before the greeting as after it."""
    session = opened(max_frame=2048)
    body = msgpack.packb({"type": "ping", "nonce": 1, "x": b""})
    body = msgpack.packb({"type": "ping", "nonce": 1, "x": bytes(2048 - len(body) - 1)})
    session.receive_data(len(body).to_bytes(4, "big") + body)
    assert (len(body), events(session)) == (2048, [Ping(nonce=1)])


def test_an_empty_frame_is_no_message() -> None:
    """A length of zero is no keep-alive."""
    session = opened()
    session.receive_data(bytes(4))
    assert refusal(session) == "not a msgpack map: Unpack failed: incomplete input"


def test_a_frame_too_long_for_the_peer_is_not_sent() -> None:
    """It said in its Hello what it takes. Nothing has changed."""
    dialer, _ = meet(max_frame=1 << 20)
    long = Request(request=CommandRequest(request_id="r1", prompt="x" * (1 << 20)))
    with pytest.raises(LocalProtocolError, match=r"a request of \d+ bytes; .* at most 1048576"):
        dialer.send(long)
    assert (dialer.requests, dialer.pending) == (0, 0)
    dialer.send(ask())


def test_a_goodbye_fits_the_smallest_frame_a_peer_may_ask_for() -> None:
    """Otherwise the peer learns of a frame too long in place of the reason."""
    dialer, listener = Session("dialer", HELLO), Session("listener", HELLO)
    dialer.data_to_send()
    dialer.send(Goodbye(code="bye", message="ü" * 4000))
    # Before the greeting is the smallest: 4096 bytes.
    assert [type(message) for message in deliver(dialer, listener)] == [Goodbye]


@given(data=st.data())
def test_the_cuts_in_the_stream_mean_nothing(data: st.DataObject) -> None:
    """Any split of the bytes gives the same messages."""
    texts = data.draw(st.lists(st.text(min_size=1, max_size=10), max_size=5))
    said: list[Message] = [
        ADVERT,
        STARTED,
        *(chunk(text) for text in texts),
        respond(),
        Ping(nonce=2),
    ]
    stream = b"".join(map(encode, said))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    dialer = opened("dialer")
    dialer.send(ask())
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        dialer.receive_data(stream[start:end])
        found += events(dialer)
    assert found == said


def test_what_is_queued_leaves_as_one_piece() -> None:
    """In order, once, and counted while it waits."""
    dialer = opened("dialer")
    dialer.send(ask())
    dialer.send(Ping(nonce=1))
    whole = encode(ask()) + encode(Ping(nonce=1))
    assert dialer.pending == len(whole)
    assert dialer.data_to_send() == whole
    assert (dialer.data_to_send(), dialer.pending) == (b"", 0)


# ---- who may say what ----

BOTH = {Standing, Ping, Pong, Goodbye}
MAY_SAY: dict[rules.Role, set[type[Any]]] = {
    "dialer": BOTH | {Request, Cancel, Credit},
    "listener": BOTH | {Advert, LoadReport, Progress, Started, Chunk, Reasoning, Response},
}
SAMPLES: list[Any] = [
    HELLO,
    ADVERT,
    REPORT,
    ask("new"),
    Progress(request_id="r1", state="queued"),
    STARTED,
    chunk(),
    THOUGHT,
    respond(),
    Cancel(request_id="r1"),
    Credit(request_id="r1", amount=1),
    Join(registration=b"", signature=b""),
    Roster(namespace="home"),
]


def test_the_tables_say_who_may_say_what() -> None:
    """Every message of a session has a place in the tables, and no other message has."""
    assert {role: set(said) for role, said in rules.SAYS.items()} == MAY_SAY
    assert MAY_SAY["dialer"] | MAY_SAY["listener"] == set(MESSAGES) - {Hello, Join, Roster}


@pytest.mark.parametrize("role", ["dialer", "listener"])
@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_nobody_speaks_out_of_role(message: Any, role: rules.Role) -> None:
    """The peer's fault if it comes in, ours if it should go out."""
    if type(message) in MAY_SAY[role]:
        return
    text = f"a {role} may not say {type(message).__name__}"
    other: rules.Role = "listener" if role == "dialer" else "dialer"
    assert refusal(opened(other), message) == text
    session = opened(role)
    with pytest.raises(LocalProtocolError) as caught:
        session.send(message)
    assert (str(caught.value), session.state, session.pending) == (text, State.OPEN, 0)


# ---- one request ----


def test_a_request_from_the_question_to_the_answer() -> None:
    """Every message in its place, and nothing is left at either end."""
    dialer, listener = meet()
    working = Progress(request_id="r1", state="working")
    waiting = Progress(request_id="r1", state="queued")
    answer: list[Message] = [waiting, STARTED, working, chunk("a"), chunk("b"), respond()]
    dialer.send(ask())
    assert deliver(dialer, listener) == [ask()]
    assert (dialer.requests, listener.requests) == (1, 1)
    for message in answer:
        listener.send(message)
    assert deliver(listener, dialer) == answer
    assert (dialer.requests, listener.requests) == (0, 0)


def test_an_identifier_may_be_used_again_after_its_response() -> None:
    """A session remembers nothing of what has ended."""
    dialer, listener = meet()
    for _ in range(3):
        dialer.send(ask())
        deliver(dialer, listener)
        listener.send(respond())
        assert deliver(listener, dialer) == [respond()]


# Each script is what one end hears after the greeting; the last message breaks a rule.
@pytest.mark.parametrize(
    ("role", "heard", "text"),
    [
        ("listener", [ask(), ask()], "Request for request 'r1', which is asked"),
        (
            "listener",
            [ask(), Credit(request_id="r1", amount=1)],
            "Credit for request 'r1', which is asked",
        ),
        (
            "listener",
            [ask(), Cancel(request_id="r1"), Cancel(request_id="r1")],
            "Cancel for request 'r1', which is cancelling",
        ),
        (
            "listener",
            [ask(), Cancel(request_id="r1"), ask()],
            "Request for request 'r1', which is cancelling",
        ),
        ("dialer", [respond("r2")], "Response for request 'r2', which is not in flight"),
        (
            "dialer",
            [Progress(request_id="r2", state="loading")],
            "Progress for request 'r2', which is not in flight",
        ),
        ("dialer", [chunk()], "Chunk for request 'r1', which is asked"),
        ("dialer", [STARTED, STARTED], "Started for request 'r1', which is started"),
        ("dialer", [respond(), respond()], "Response for request 'r1', which is not in flight"),
        (
            "dialer",
            [STARTED, respond(), chunk()],
            "Chunk for request 'r1', which is not in flight",
        ),
        ("dialer", [respond(), STARTED], "Started for request 'r1', which is not in flight"),
    ],
)
def test_a_message_out_of_place_ends_the_session(
    role: rules.Role, heard: list[Message], text: str
) -> None:
    """The text says what was said, about what, and in which state that was."""
    session = opened(role)
    if role == "dialer":
        session.send(ask())
    assert hear(session, *heard[:-1]) == heard[:-1]
    assert refusal(session, heard[-1]) == text


@pytest.mark.parametrize(
    "message",
    [chunk(), respond("r2"), Progress(request_id="r2", state="queued")],
    ids=lambda m: type(m).__name__,
)
def test_our_own_message_out_of_place_changes_nothing(message: Message) -> None:
    """The session goes on as if it had not been tried."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    with pytest.raises(LocalProtocolError):
        listener.send(message)
    assert (listener.state, listener.requests, listener.pending) == (State.OPEN, 1, 0)
    listener.send(respond())
    assert deliver(listener, dialer) == [respond()]


def test_we_do_not_send_a_chunk_without_text() -> None:
    """The peer must refuse it, so it is our own fault before it costs us the session."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    with pytest.raises(LocalProtocolError):
        listener.send(chunk(""))


@pytest.mark.parametrize("amount", [0, -1])
def test_we_do_not_send_a_credit_for_nothing(amount: int) -> None:
    """Nor one that takes room away: the peer must refuse both."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    deliver(listener, dialer)
    with pytest.raises(LocalProtocolError):
        dialer.send(Credit(request_id="r1", amount=amount))


# ---- cancelling ----


def test_a_cancel_and_an_answer_may_cross() -> None:
    """What was on its way still arrives, and the late cancel means nothing."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    said: list[Message] = [STARTED, chunk(), respond()]
    for message in said:
        listener.send(message)
    dialer.send(Cancel(request_id="r1"))
    assert deliver(listener, dialer) == said
    assert deliver(dialer, listener) == [Cancel(request_id="r1")]
    assert (dialer.requests, listener.requests) == (0, 0)


def test_a_late_cancel_does_not_touch_the_next_request_of_that_name() -> None:
    """It comes before it in the stream."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(respond())
    dialer.send(Cancel(request_id="r1"))
    deliver(listener, dialer)
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    listener.send(chunk())
    assert deliver(listener, dialer) == [STARTED, chunk()]


def test_a_late_credit_means_nothing() -> None:
    """The dialer read on while the response was on its way."""
    session = opened()
    late = Credit(request_id="r1", amount=7)
    assert hear(session, late) == [late]
    assert session.state is State.OPEN


def test_a_cancelled_request_ends_with_its_response() -> None:
    """Until then it counts."""
    dialer, listener = meet()
    dialer.send(ask())
    dialer.send(Cancel(request_id="r1"))
    deliver(dialer, listener)
    assert (dialer.requests, listener.requests) == (1, 1)
    listener.send(respond())
    deliver(listener, dialer)
    assert (dialer.requests, listener.requests) == (0, 0)


def test_we_cancel_only_what_is_in_flight() -> None:
    """Who asks knows what has ended."""
    dialer = opened("dialer")
    with pytest.raises(LocalProtocolError) as caught:
        dialer.send(Cancel(request_id="r1"))
    assert str(caught.value) == "Cancel for request 'r1', which is not in flight"


# ---- limits ----


def test_no_more_requests_than_the_listener_takes() -> None:
    """It said in its Hello how many; a response makes room."""
    dialer, listener = meet(max_requests=2)
    dialer.send(ask("a"))
    dialer.send(ask("b"))
    full = not dialer.can_ask
    assert full
    with pytest.raises(LocalProtocolError, match=r"^more than 2 requests in flight$"):
        dialer.send(ask("c"))
    deliver(dialer, listener)
    listener.send(respond("a"))
    deliver(listener, dialer)
    assert dialer.can_ask
    dialer.send(ask("c"))
    assert deliver(dialer, listener) == [ask("c")]


def test_one_request_too_many_is_the_peers_fault() -> None:
    """Nobody makes us keep more than we said."""
    assert refusal(opened(max_requests=1), ask("a"), ask("b")) == "more than 1 requests in flight"


def test_a_listener_is_at_most_a_window_ahead() -> None:
    """In bytes of the frames that went; the limit itself is allowed."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    assert listener.send_window("r1") == WINDOW
    listener.send(chunk("ü" * 100))
    listener.send(filling(listener.send_window("r1")))
    assert listener.send_window("r1") == 0
    with pytest.raises(LocalProtocolError) as caught:
        listener.send(chunk("x"))
    ahead = WINDOW + len(encode(chunk("x")))
    assert str(caught.value) == f"'r1' is {ahead} bytes ahead of its reader"
    dialer.receive_data(listener.data_to_send())
    charged = []
    while (message := dialer.next_event()) is not None:
        if isinstance(message, Chunk):
            charged.append(dialer.charged)
    assert charged[0] == len(encode(chunk("ü" * 100)))
    assert sum(charged) == WINDOW


def test_towards_minor_0_the_text_is_counted() -> None:
    """In bytes of UTF-8, as the first release does it; the limit itself is allowed."""
    dialer, listener = meet(minor=0)
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    listener.send(chunk("ü" * (WINDOW // 2)))
    assert listener.send_window("r1") == 0
    with pytest.raises(LocalProtocolError) as caught:
        listener.send(chunk("x"))
    assert str(caught.value) == f"'r1' is {WINDOW + 1} bytes ahead of its reader"
    assert deliver(listener, dialer)[-1] == chunk("ü" * (WINDOW // 2))
    assert dialer.charged == WINDOW
    dialer.send(Credit(request_id="r1", amount=WINDOW))
    deliver(dialer, listener)
    assert listener.send_window("r1") == WINDOW


@pytest.mark.parametrize("minor", [0, 1])
@given(text=st.text(min_size=1, max_size=50), ours=st.sampled_from(["r1", "r" * 128]))
def test_no_text_costs_more_than_is_said_before(minor: int, text: str, ours: str) -> None:
    """So whoever waits for that much room has it."""
    dialer, listener = meet(minor=minor)
    dialer.send(ask(ours))
    deliver(dialer, listener)
    listener.send(Started(request_id=ours, provenance=MOCK))
    before = listener.send_window(ours)
    said = listener.cost(text)
    listener.send(Chunk(request_id=ours, text=text, tokens=1 << 20))
    assert before - listener.send_window(ours) <= said


def test_a_credit_gives_the_room_back() -> None:
    """As much as was read."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    listener.send(filling(WINDOW))
    deliver(listener, dialer)
    dialer.send(Credit(request_id="r1", amount=1000))
    deliver(dialer, listener)
    assert listener.send_window("r1") == 1000
    listener.send(filling(1000))
    assert deliver(listener, dialer) == [filling(1000)]


def test_the_window_of_one_request_is_not_that_of_another() -> None:
    """One slow reader blocks nobody else."""
    dialer, listener = meet(minor=0)
    dialer.send(ask("slow"))
    dialer.send(ask("fast"))
    deliver(dialer, listener)
    listener.send(Started(request_id="slow", provenance=MOCK))
    listener.send(chunk("x" * WINDOW, "slow"))
    assert (listener.send_window("slow"), listener.send_window("fast")) == (0, WINDOW)


# ---- what minor 2 brought ----


@pytest.mark.parametrize("minor", [0, 1])
def test_news_of_members_goes_to_those_who_know_it(minor: int) -> None:
    """To an older peer it is a message that does not exist; either end may say it."""
    news = Standing(grant=b"g", revocations=(b"r",))
    dialer, listener = meet()
    dialer.send(news)
    listener.send(news)
    assert (deliver(dialer, listener), deliver(listener, dialer)) == ([news], [news])
    _, listener = meet(minor=minor)
    listener.data_to_send()
    with pytest.raises(LocalProtocolError, match=rf"^Standing to a peer of minor {minor}$"):
        listener.send(news)


@pytest.mark.parametrize("namespace", ["home", "another"])
def test_who_is_not_let_in_does_not_hear_whether_it_guessed_the_name(namespace: str) -> None:
    """The door is asked before the names are compared."""
    listener = Session("listener", HELLO)

    def turn_away(hello: Hello) -> None:
        raise NotPermitted("members only")

    listener.admit = turn_away
    with pytest.raises(NotPermitted):
        hear(listener, attrs.evolve(HELLO, namespace=namespace))
    goodbye = Goodbye(code="not_permitted", message="members only")
    assert listener.data_to_send() == encode(goodbye)


# ---- what minor 1 brought ----


def test_a_load_report_goes_to_those_who_know_it() -> None:
    """To a peer of minor 0 it is a message that does not exist."""
    dialer, listener = meet()
    listener.send(REPORT)
    assert deliver(listener, dialer) == [REPORT]
    _, listener = meet(minor=0)
    listener.data_to_send()
    with pytest.raises(LocalProtocolError, match=r"^LoadReport to a peer of minor 0$"):
        listener.send(REPORT)
    assert (listener.state, listener.pending) == (State.OPEN, 0)


def test_what_a_model_thinks_takes_of_the_window_as_its_answer_does() -> None:
    """A reader that is behind is not flooded with it; a peer of minor 0 gets none."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    with pytest.raises(LocalProtocolError, match=r"^Reasoning for request 'r1', which is asked$"):
        listener.send(THOUGHT)
    listener.send(STARTED)
    listener.send(THOUGHT)
    size = len(encode(THOUGHT))
    assert listener.send_window("r1") == WINDOW - size
    assert deliver(listener, dialer) == [STARTED, THOUGHT]
    assert dialer.charged == size
    dialer.send(Credit(request_id="r1", amount=size))
    deliver(dialer, listener)
    assert listener.send_window("r1") == WINDOW
    with pytest.raises(LocalProtocolError):
        listener.send(Reasoning(request_id="r1", text=""))
    dialer, listener = meet(minor=0)
    dialer.send(ask())
    deliver(dialer, listener)
    listener.send(STARTED)
    with pytest.raises(LocalProtocolError, match=r"^Reasoning to a peer of minor 0$"):
        listener.send(THOUGHT)


@pytest.mark.parametrize(("ours", "theirs", "both"), [(1, 0, 0), (0, 1, 0), (1, 1, 1), (1, 9, 1)])
def test_both_ends_speak_the_older_minor(ours: int, theirs: int, both: int) -> None:
    """What one of them does not know is not said."""
    listener = Session("listener", attrs.evolve(HELLO, minor=ours))
    hear(listener, attrs.evolve(HELLO, minor=theirs))
    assert listener.minor == both


def test_what_goes_to_many_peers_is_encoded_once() -> None:
    """Each gets the frame of its minor version."""
    many = Encoded(ADVERT)
    new, old = opened(), Session("listener", HELLO)
    hear(old, OLD)
    old.data_to_send()
    for session in (new, old):
        session.send(many)
    assert new.data_to_send() == many.frame() == encode(ADVERT)
    assert old.data_to_send() == many.frame(minor=0) == encode(ADVERT, minor=0)


def test_nothing_is_sent_for_what_is_not_in_flight() -> None:
    """There is no room for it."""
    assert opened().send_window("r1") == 0


def test_a_listener_too_far_ahead_is_at_fault() -> None:
    """Our memory is bounded whatever it sends."""
    dialer = opened("dialer")
    dialer.send(ask())
    hear(dialer, STARTED, filling(WINDOW))
    ahead = WINDOW + len(encode(chunk("y")))
    assert refusal(dialer, chunk("y")) == f"'r1' is {ahead} bytes ahead of its reader"


def test_a_credit_beyond_what_was_sent_is_a_fault() -> None:
    """Otherwise a window could be grown without end."""
    listener = opened()
    hear(listener, ask())
    listener.send(STARTED)
    listener.send(chunk("12345"))
    sent = len(encode(chunk("12345")))
    hear(listener, Credit(request_id="r1", amount=sent - 2))
    assert refusal(listener, Credit(request_id="r1", amount=3)) == (
        "credit for 'r1' beyond what was sent"
    )


# ---- the end ----


def test_a_goodbye_ends_the_session_at_both_ends() -> None:
    """Nothing is in flight, nothing more is said, and nothing more is heard."""
    dialer, listener = meet()
    dialer.send(ask())
    deliver(dialer, listener)
    goodbye = Goodbye(code="bye", message="done")
    listener.send(goodbye)
    assert deliver(listener, dialer) == [goodbye]
    for session in (dialer, listener):
        assert (session.state, session.requests, session.can_ask) == (State.ENDED, 0, False)
        assert hear(session, Ping(nonce=1)) == []
        with pytest.raises(LocalProtocolError, match=r"^Ping while the session is ended$"):
            session.send(Ping(nonce=1))


def test_nothing_is_said_after_the_last_word() -> None:
    """A second goodbye is not sent."""
    session = opened()
    session.send(Goodbye(code="bye", message="one"))
    session.send(Goodbye(code="bye", message="two"))
    assert last_words(session) == Goodbye(code="bye", message="one")


def test_a_long_reason_is_cut_between_characters() -> None:
    """The last word is short enough for everybody, and is still text."""
    session = opened()
    session.send(Goodbye(code="bye", message="x" + "ü" * 5000))
    said = last_words(session)
    assert ("x" + "ü" * 5000).startswith(said.message)
    assert 500 < len(said.message.encode()) < 1000


def test_what_follows_a_fault_is_not_heard() -> None:
    """The first broken rule ends it, whatever else has arrived."""
    session = opened()
    assert refusal(session, Ping(nonce=1), HELLO, Ping(nonce=2)) == "a dialer may not say Hello"
    assert events(session) == []


# ---- two honest peers ----


@attrs.define
class Exchange:
    """One request, as an onlooker sees it who reads everybody's mind."""

    request_id: str
    sent: str = ""
    received: str = ""
    unread: int = 0
    """Bytes that the dialer has taken and not acknowledged."""
    started: bool = False
    cancelled: bool = False
    ends: int = 0
    """Responses that arrived."""


class TwoHonestPeers(RuleBasedStateMachine):
    """Two honest peers, and between them bytes that are cut and delayed.

    The invariant: whatever two honest peers do and however their bytes are cut and delayed,
    neither ever sees a protocol error, every request ends exactly once, the text received is a
    prefix of the text sent, and when all has been delivered nothing is in flight on either side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_listener, self.to_dialer = bytearray(), bytearray()
        self.asked: list[Exchange] = []
        # Who is in flight, as each end knows it by now.
        self.at_dialer: dict[str, Exchange] = {}
        self.at_listener: dict[str, Exchange] = {}

    @initialize(late=st.booleans(), minors=st.tuples(st.integers(0, 1), st.integers(0, 2)))
    def greet(self, late: bool, minors: tuple[int, int]) -> None:
        """Sometimes the greetings have arrived, sometimes not; each end is of some minor."""
        self.dialer = Session("dialer", attrs.evolve(HELLO, minor=minors[0]))
        self.listener = Session("listener", attrs.evolve(HELLO, minor=minors[1], max_requests=3))
        if not late:
            self.deliver_all()

    # ---- the wires ----

    def flush(self) -> None:
        """What is queued is on its way."""
        for session, pipe in (
            (self.dialer, self.to_listener),
            (self.listener, self.to_dialer),
        ):
            pipe += session.data_to_send()
            assert session.pending == 0

    @rule(size=st.integers(1, 200) | st.just(1 << 20))
    def arrive_at_the_listener(self, size: int) -> None:
        """A few bytes, cut anywhere."""
        self.flush()
        self.listener.receive_data(bytes(self.to_listener[:size]))
        del self.to_listener[:size]
        for message in events(self.listener):
            if isinstance(message, Request):
                request_id = message.request.request_id
                assert request_id not in self.at_listener
                self.at_listener[request_id] = self.at_dialer[request_id]

    @rule(size=st.integers(1, 200) | st.just(1 << 20))
    def arrive_at_the_dialer(self, size: int) -> None:
        """A few bytes, cut anywhere."""
        self.flush()
        self.dialer.receive_data(bytes(self.to_dialer[:size]))
        del self.to_dialer[:size]
        while (message := self.dialer.next_event()) is not None:
            if isinstance(message, Chunk):
                exchange = self.at_dialer[message.request_id]
                exchange.received += message.text
                exchange.unread += self.dialer.charged
            elif isinstance(message, Response):
                self.at_dialer.pop(message.response.request_id).ends += 1

    def deliver_all(self) -> None:
        """Nothing is under way any more."""
        self.flush()
        while self.to_listener or self.to_dialer:
            self.arrive_at_the_listener(1 << 30)
            self.arrive_at_the_dialer(1 << 30)
            self.flush()

    # ---- the dialer ----

    @precondition(lambda self: self.dialer.can_ask)
    @rule(name=st.sampled_from("abcdef"))
    def asks(self, name: str) -> None:
        """A new request, under a name that may have been used before."""
        if name not in self.at_dialer:
            self.dialer.send(ask(name))
            self.at_dialer[name] = Exchange(request_id=name)
            self.asked.append(self.at_dialer[name])

    @precondition(lambda self: self.at_dialer)
    @rule(data=st.data())
    def reads(self, data: st.DataObject) -> None:
        """Some of what has arrived."""
        name = data.draw(st.sampled_from(sorted(self.at_dialer)))
        exchange = self.at_dialer[name]
        if exchange.unread:
            amount = data.draw(st.integers(1, exchange.unread))
            self.dialer.send(Credit(request_id=name, amount=amount))
            exchange.unread -= amount

    @precondition(lambda self: self.at_dialer)
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        """Once, whatever state it is in."""
        exchange = self.at_dialer[data.draw(st.sampled_from(sorted(self.at_dialer)))]
        if not exchange.cancelled:
            self.dialer.send(Cancel(request_id=exchange.request_id))
            exchange.cancelled = True

    # ---- the listener ----

    @precondition(lambda self: self.at_listener)
    @rule(data=st.data(), state=st.sampled_from(["queued", "loading"]))
    def makes_progress(self, data: st.DataObject, state: Any) -> None:
        """It waits for something, or works on it."""
        exchange = self.at_listener[data.draw(st.sampled_from(sorted(self.at_listener)))]
        state = "working" if exchange.started else state
        self.listener.send(Progress(request_id=exchange.request_id, state=state))

    @precondition(lambda self: self.at_listener)
    @rule(data=st.data(), text=st.text(min_size=1, max_size=20), fill=st.booleans())
    def answers(self, data: st.DataObject, text: str, fill: bool) -> None:
        """A little more text, or as much as there is room for."""
        exchange = self.at_listener[data.draw(st.sampled_from(sorted(self.at_listener)))]
        name = exchange.request_id
        if not exchange.started:
            self.listener.send(Started(request_id=name, provenance=MOCK))
            exchange.started = True
        window = self.listener.send_window(name)
        if fill:
            text = "x" * (window - self.listener.cost("x") + 1)
        if text and self.listener.cost(text) <= window:
            self.listener.send(chunk(text, name))
            exchange.sent += text

    @precondition(lambda self: self.at_listener)
    @rule(data=st.data())
    def responds(self, data: st.DataObject) -> None:
        """The end of a request."""
        name = data.draw(st.sampled_from(sorted(self.at_listener)))
        del self.at_listener[name]
        load = Load(busy=len(self.at_listener))
        response = CommandResponse(
            request_id=name, status="success", result=Completion(), load=load
        )
        self.listener.send(Response(response=response))

    @precondition(lambda self: self.listener.state is State.OPEN)
    @rule()
    def advertises(self) -> None:
        """The listener says what it can do, and how busy it is to those who know that word."""
        self.listener.send(ADVERT)
        if self.listener.minor:
            self.listener.send(Encoded(REPORT))

    @rule(nonce=st.integers(0, 9))
    def ping(self, nonce: int) -> None:
        """Either end, at any time after the greeting."""
        for session in (self.dialer, self.listener):
            if session.state is State.OPEN:
                session.send(Ping(nonce=nonce))
                session.send(Pong(nonce=nonce))

    # ---- what always holds ----

    @invariant()
    def text_is_neither_lost_nor_made_up(self) -> None:
        """What was received is a prefix of what was sent."""
        for exchange in self.asked:
            assert exchange.sent.startswith(exchange.received)

    @invariant()
    def both_ends_know_what_is_in_flight(self) -> None:
        """Their counts are those of the onlooker."""
        assert self.dialer.requests == len(self.at_dialer) <= 3
        assert self.listener.requests == len(self.at_listener) <= 3

    @invariant()
    def no_request_ends_twice(self) -> None:
        """Those in flight have not ended; all others have, once."""
        under_way = {id(exchange) for exchange in self.at_dialer.values()}
        assert all(exchange.ends == (id(exchange) not in under_way) for exchange in self.asked)

    def teardown(self) -> None:
        """When all is delivered and answered, nothing is left anywhere."""
        self.deliver_all()
        for name in sorted(self.at_listener):
            self.listener.send(respond(name))
        self.at_listener.clear()
        self.deliver_all()
        assert (self.dialer.requests, self.listener.requests) == (0, 0)
        assert (self.dialer.state, self.listener.state) == (State.OPEN, State.OPEN)
        for exchange in self.asked:
            assert (exchange.ends, exchange.received) == (1, exchange.sent)


TestTwoHonestPeers = TwoHonestPeers.TestCase
TestTwoHonestPeers.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


# ---- one hostile peer ----

_legal = st.one_of(*MESSAGES.values(), st.just(HELLO), st.just(ask()), st.just(respond())).map(
    encode
)


@st.composite
def _spoiled(draw: st.DrawFn) -> bytes:
    """A frame with one byte changed, anywhere."""
    frame = bytearray(draw(_legal))
    frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)


def fault_in(session: Session) -> RemoteProtocolError | None:
    """What is wrong with what has arrived."""
    try:
        events(session)
    except RemoteProtocolError as error:
        return error
    return None


@pytest.mark.parametrize("role", ["dialer", "listener"])
@given(
    greeted=st.booleans(),
    stream=st.lists(_legal | _spoiled() | st.binary(max_size=20), max_size=6).map(b"".join),
    cut=st.integers(1, 50),
)
def test_a_hostile_peer_ends_its_own_session_and_nothing_else(
    role: rules.Role, greeted: bool, stream: bytes, cut: int
) -> None:
    """Whatever it sends, we see only its protocol error, and then say goodbye with the reason."""
    session = opened(role) if greeted else Session(role, HELLO)
    if greeted and role == "dialer":
        session.send(ask())
    for start in range(0, len(stream), cut):
        session.receive_data(stream[start : start + cut])
        fault = fault_in(session)
        if fault is not None:
            assert (session.state, session.requests) == (State.ENDED, 0)
            said = last_words(session)
            assert (type(said), said.code) == (Goodbye, "remote_protocol")
            assert said.message
            assert str(fault).startswith(said.message)
            assert events(session) == []
            return
    # It broke no rule: it left, or more may come. We have said nothing new.
    assert last_words(session) in (None, HELLO, ask())
