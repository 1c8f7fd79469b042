"""HTTP/1.1 as bytes: requests however they are cut, and what no client may do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.gateway.server._http1 import (
    MAX_REQUESTS_AHEAD,
    BadRequest,
    Framing,
    Request,
    RequestParser,
)

MAX_HEAD = 1024

HOST = b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"

# One of everything that may follow something else on a connection.
EVERYTHING = (
    b"\r\nGET /a%20b?c=d HTTP/1.1\r\nHost: a\r\nA:  b \t\r\n\r\n",
    POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nA: trailer\r\n\r\n",
    POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nA: trailer\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)


class Parsed:
    """What a parser makes of bytes, with what is taken as the connection takes it."""

    def __init__(self, parts: Iterable[bytes], most_head: int = MAX_HEAD) -> None:
        self.parser = RequestParser(most_head)
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.most_held = 0
        self.fed = 0
        for part in parts:
            if self.parser.error is not None:
                break
            self.parser.feed(part)
            self.fed += len(part)
            self.most_held = max(self.most_held, self.held())
            self._take()

    def _take(self) -> None:
        while True:
            if self.requests:
                self.bodies[-1] += self.requests[-1].consume()
            if not self.parser.requests:
                return
            self.requests.append(self.parser.requests.popleft())
            self.bodies.append(b"")

    def held(self) -> int:
        """Bytes of all requests that nobody has taken."""
        requests = {id(each): each for each in [*self.parser.requests, self.parser._request]}
        return sum(
            len(each.target)
            + sum(len(name) + len(value) for name, value in each.headers)
            + sum(map(len, each._parts))
            for each in requests.values()
        )

    @property
    def facts(self) -> list[tuple[object, ...]]:
        """All that an application may see."""
        return [
            (r.method, r.target, r.version, r.headers, r.keeps_alive, r.waits, r.is_complete, body)
            for r, body in zip(self.requests, self.bodies, strict=True)
        ]

    @property
    def status(self) -> int | None:
        """What the bytes are refused with."""
        return None if self.parser.error is None else self.parser.error.status


def only(data: bytes) -> Request:
    """The one request in *data*."""
    parsed = Parsed([data])
    assert parsed.status is None
    (request,) = parsed.requests
    return request


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """*data* in pieces."""
    ends = [0, *sorted(places), len(data)]
    return [data[begin:end] for begin, end in pairwise(ends)]


# ---- requests ----


def test_everything_that_may_follow_something_is_understood() -> None:
    """In its order, whole, and with nothing of one in the next."""
    parsed = Parsed([b"".join(EVERYTHING)])
    framed = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert parsed.status is None
    assert [request.method for request in parsed.requests] == [
        *("GET", "POST", "POST", "POST", "POST", "GET", "HEAD")
    ]
    assert parsed.bodies == [b"", b"hello", b"hello", b"hello", b"hello", b"", b""]
    assert all(request.is_complete and request.keeps_alive for request in parsed.requests)
    assert [request.waits for request in parsed.requests] == [False, True, *([False] * 5)]
    assert parsed.requests[0].headers == [(b"host", b"a"), (b"a", b"b")]
    assert parsed.requests[2].headers == framed
    assert parsed.requests[5].headers[0] == (b"host", b"a")
    assert parsed.requests[6].headers == [(b"connection", b"keep-alive")]


def test_it_does_not_matter_where_a_request_is_cut() -> None:
    """At any byte, or at all of them."""
    data = b"".join(EVERYTHING)
    whole = Parsed([data]).facts
    assert all(Parsed(cut(data, [place])).facts == whole for place in range(len(data)))
    assert Parsed(cut(data, range(1, len(data)))).facts == whole


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request that is valid."""
    lines = [
        draw(st.sampled_from([b"POST /x HTTP/1.1", b"PUT /x?y HTTP/1.1", b"GET * HTTP/1.1"])),
        b"Host: a",
        *draw(
            st.lists(
                st.sampled_from(
                    [b"A: b", b"Upgrade: h2c", b"Connection: Upgrade", b"C:", b"D: \xff "]
                )
            )
        ),
    ]
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    if draw(st.booleans()):
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n"
        body += draw(st.sampled_from([b"", b"E: f\r\n"])) + b"\r\n"
    else:
        body = b"".join(parts)
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


@given(requests=st.lists(_requests(), max_size=4), data=st.data())
def test_valid_requests_are_the_same_however_they_are_cut(
    requests: list[bytes], data: st.DataObject
) -> None:
    """As many as were sent, whole."""
    stream = b"".join(requests)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    parsed = Parsed(cut(stream, places))
    assert parsed.status is None
    assert len(parsed.requests) == len(requests)
    assert all(request.is_complete for request in parsed.requests)
    assert parsed.facts == [fact for each in requests for fact in Parsed([each]).facts]


_PIECES = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [
            *EVERYTHING,
            *(b"\r\n", b"\n", b" ", b":", b"0\r\n\r\n", b"f\r\n", b"ffffffffffffffff\r\n", b"\0"),
            *(POST, HOST, CHUNKED, b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"),
            *(b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n", b"CONNECT a:1 HTTP/1.1\r\n"),
            *(b"x" * 300, b"A: " + b"b" * 300, b"A: b\r\n" * 40, b"PRI * HTTP/2.0\r\n\r\n"),
        ]
    ),
)


@given(pieces=st.lists(_PIECES, max_size=60))
def test_whatever_comes_is_taken_or_refused(pieces: list[bytes]) -> None:
    """Nothing else is raised, and no more is held than a head and what was fed at once."""
    parsed = Parsed(pieces)
    assert parsed.most_held <= MAX_HEAD + max(map(len, pieces), default=0)
    assert parsed.status in (None, 400, 429, 431, 501, 505)


@given(pieces=st.lists(st.binary(max_size=64), max_size=20))
def test_nothing_is_read_behind_a_mistake(pieces: list[bytes]) -> None:
    """There would be no telling where a request begins."""
    parser = Parsed([b"GET / HTTP/1.1\r\nno header\r\n\r\n"]).parser
    error = parser.error
    for piece in [*pieces, NEXT]:
        parser.feed(piece)
    assert isinstance(error, BadRequest)
    assert parser.error is error
    assert not parser.requests


# ---- what has no end ----


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b"\r\n"),
        (b"G", b"E"),
        (b"GET /", b"a"),
        (b"GET /?", b"a"),
        (b"GET / HTTP/1.1\r\n", b"a"),
        (b"GET / HTTP/1.1\r\nA:", b" "),
        (b"GET / HTTP/1.1\r\nA: b", b"b"),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
        (CHUNKED, b"0"),
        (CHUNKED + b"5;", b"a"),
        (CHUNKED + b'5;a="', b"b"),
        (CHUNKED + b"5;a=b", b";a=b"),
        (CHUNKED + b"0\r\n", b"A: b\r\n"),
        (CHUNKED + b"0\r\nA: b", b"b"),
    ],
)
def test_what_has_no_end_is_refused(start: Any, more: bytes) -> None:
    """Before much more than the limit was taken of it, in however small pieces it comes."""
    parsed = Parsed([start, *([more] * 2 * MAX_HEAD)])
    assert parsed.status in (400, 431)
    assert parsed.fed <= len(start) + MAX_HEAD + 16


def test_a_head_may_be_as_long_as_the_limit() -> None:
    """And no longer, in one piece or in many."""
    line = b"GET /" + b"a" * 500 + b" HTTP/1.1\r\n" + HOST
    fits = line + b"B: " + b"b" * 480 + b"\r\n\r\n"
    over = line + b"B: " + b"b" * 520 + b"\r\n\r\n"
    every = range(1, len(fits))
    for places in (every[:0], every):
        assert Parsed(cut(fits, places) * 2).status is None
        assert Parsed(cut(over, places)).status == 431


def test_a_body_may_be_longer_than_a_head() -> None:
    """In pieces of one byte that have more around them than in them."""
    body = b"1;a=b\r\nx\r\n" * MAX_HEAD
    parsed = Parsed(cut(CHUNKED + body + b"0\r\n\r\n", range(0, len(body), 100)))
    assert parsed.status is None
    assert parsed.bodies == [b"x" * MAX_HEAD]


def test_so_many_requests_may_be_sent_ahead() -> None:
    """One more is refused, and those before it are there."""
    parser = RequestParser(MAX_HEAD)
    parser.feed(NEXT * MAX_REQUESTS_AHEAD)
    before = parser.error
    parser.feed(NEXT)
    assert before is None
    assert parser.error is not None
    assert parser.error.status == 429
    assert len(parser.requests) == MAX_REQUESTS_AHEAD


# ---- what could be read in two ways ----


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3 3\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length: 1\r\n 3\r\n",
        b"Content-Length: 3\n",
        b"A: b\rContent-Length: 3\r\n",
        b"A: b\0\r\n",
        b": b\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: gzip\r\n chunked\r\n",
        b"Host: b\r\n",
    ],
)
def test_what_others_may_read_otherwise_is_refused(headers: bytes) -> None:
    """What is a body for one is a request for another: https://portswigger.net/web-security/request-smuggling."""
    parsed = Parsed([POST + headers + b"\r\n0\r\n\r\n" + NEXT])
    assert parsed.status in (400, 501)
    assert not parsed.requests


def test_http_1_0_has_no_chunks() -> None:
    """RFC 9112, section 6.1: what is before us and knows only 1.0 sees a request in them."""
    head = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    parsed = Parsed([head + b"0\r\n\r\n" + NEXT])
    assert parsed.status == 400
    assert not parsed.requests


@pytest.mark.parametrize(
    "chunk",
    [
        b"0x3\r\nabc\r\n",
        b"-3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\nabc\r\n",
        b"3;\nabc\r\n",
        b"\r\nabc\r\n",
        b"fffffffffffffffff\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcXX",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_a_body_in_bad_chunks_has_no_end(chunk: bytes) -> None:
    """What came before is there, and nothing behind it."""
    parsed = Parsed([CHUNKED + b"2\r\nok\r\n" + chunk + b"0\r\n\r\n" + NEXT])
    (request,) = parsed.requests
    assert parsed.status == 400
    assert parsed.bodies[0][:2] == b"ok"
    assert not request.is_complete


def test_a_tunnel_is_refused_and_nothing_else_answered() -> None:
    """What is behind it is for somebody else."""
    parsed = Parsed([b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n" + NEXT])
    assert parsed.status == 400
    assert not parsed.requests


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_what_is_no_request_is_refused(start: bytes, status: int) -> None:
    """With the status that says why."""
    assert Parsed([start]).status == status


# ---- what a request says ----


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a%2Fb?c=/d?e", b"/a%2Fb", b"c=/d?e"),
        (b"//b/c", b"//b/c", b""),
        (b"/a://b", b"/a://b", b""),
        (b"http://b:1/c?d=http://e/f", b"/c", b"d=http://e/f"),
        (b"http://b", b"/", b""),
        (b"http://b?c=/d", b"/", b"c=/d"),
        (b"*", b"*", b""),
    ],
)
def test_a_path_is_what_is_between_host_and_query(target: bytes, path: bytes, query: bytes) -> None:
    """Also of a whole address, as proxies are sent them (RFC 9112, section 3.2)."""
    request = only(b"OPTIONS %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
    assert (request.target, request.path, request.query) == (target, path, query)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"keep-alive, Close", False),
        (b"1.1", b"Upgrade, close", False),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
    ],
)
def test_a_client_says_whether_it_goes_on(version: bytes, connection: bytes, keeps: bool) -> None:
    """HTTP/1.1 does unless it says otherwise, 1.0 does not."""
    said = b"Connection: %b\r\nUpgrade: h2c\r\n" % connection if connection else b""
    assert only(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, said)).keeps_alive is keeps


@pytest.mark.parametrize(
    ("version", "expect", "waits"),
    [
        (b"1.1", b"100-continue", True),
        (b"1.1", b"100-Continue \t", True),
        (b"1.1", b"something", False),
        (b"1.0", b"100-continue", False),
    ],
)
def test_a_client_says_whether_it_waits(version: bytes, expect: bytes, waits: bool) -> None:
    """One that speaks 1.0 could not (RFC 9110, section 10.1.1)."""
    head = b"POST / HTTP/%b\r\nHost: a\r\nExpect: %b\r\nContent-Length: 1\r\n\r\n"
    assert only(head % (version, expect)).waits is waits


def test_a_head_that_has_begun_is_seen() -> None:
    """From its first byte to its last."""
    parser = RequestParser(MAX_HEAD)
    seen = []
    for place in range(len(NEXT)):
        parser.feed(NEXT[place : place + 1])
        seen.append(parser.in_head)
    assert seen == [*([True] * (len(NEXT) - 1)), False]


@pytest.mark.parametrize("data", [NEXT, CHUNKED + b"5\r\nhe", POST[:9], b"GET / HTTP/3\r\n"])
def test_a_closed_parser_is_let_go(data: Any) -> None:
    """At once: the collector of cycles comes seldom, and it holds what was read."""
    parser = RequestParser(MAX_HEAD)
    parser.feed(data)
    parser.feed(b"A: " + b"b" * MAX_HEAD + b"\r\n")
    there = weakref.ref(parser._request)
    gc.disable()
    try:
        parser.close()
        del parser
        assert there() is None
    finally:
        gc.enable()


# ---- answers ----


def framing(head: bytes = NEXT, *, closes: bool = False) -> Framing:
    """For an answer to one request."""
    return Framing(only(head), closes=closes)


LENGTH_2 = [(b"content-length", b"2")]
OLD = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("request_head", "status", "headers", "answer"),
    [
        (NEXT, 200, LENGTH_2, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (NEXT, 200, [], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (NEXT, 499, [], b"HTTP/1.1 499 \r\ncontent-length: 2\r\n\r\nok"),
        (NEXT, 204, [], b"HTTP/1.1 204 No Content\r\n\r\n"),
        (NEXT, 304, LENGTH_2, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n"),
        (HEAD, 200, LENGTH_2, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        (
            OLD,
            200,
            LENGTH_2,
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
        ),
    ],
)
def test_a_whole_answer_has_its_length(
    request_head: Any, status: int, headers: Any, answer: bytes
) -> None:
    """And no body where there is none."""
    assert framing(request_head).head(status, headers, b"ok", last=True) == answer


def test_an_answer_in_parts_is_chunked() -> None:
    """An empty part is none: it would be the end."""
    frame = framing()
    assert frame.head(200, [], b"a", last=False) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    )
    assert frame.body(b"", last=False) == b""
    assert frame.body(b"b" * 16, last=False) == b"10\r\nbbbbbbbbbbbbbbbb\r\n"
    assert frame.body(b"c", last=True) == b"1\r\nc\r\n0\r\n\r\n"
    assert not frame.closes


def test_an_answer_in_parts_ends_with_the_connection_in_http_1_0() -> None:
    """There are no chunks, whatever the client asked for."""
    frame = framing(OLD)
    assert frame.head(200, [], b"a", last=False) == (
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\na"
    )
    assert frame.body(b"b", last=True) == b"b"
    assert frame.closes


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"1.1", b"1.0")])
def test_the_answer_to_head_has_no_body(head: Any) -> None:
    """In however many parts it comes."""
    frame = framing(head)
    assert frame.head(200, [], b"a", last=False).endswith(b"\r\n\r\n")
    assert frame.body(b"b", last=False) == b""
    assert frame.body(b"c", last=True) == b""


def test_the_end_of_a_connection_is_told_once() -> None:
    """By us, unless the application does: then we end it as it says."""
    said = framing(closes=True).head(204, [], b"", last=True)
    frame = framing()
    told = frame.head(204, [(b"Connection", b"Close")], b"", last=True)
    assert said == b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    assert told == b"HTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n"
    assert frame.closes


@pytest.mark.parametrize(
    "header",
    [
        (b"a", b"b\r\nset-cookie: c"),
        (b"a", b"b\nc"),
        (b"a", b"b\rc"),
        (b"a", b"b\0"),
        (b"a\r\nb", b"c"),
        (b"a", b"b\r\n\r\nHTTP/1.1 200 OK"),
    ],
)
def test_a_header_cannot_begin_another_line(header: tuple[bytes, bytes]) -> None:
    """What an application took from a client is not always clean."""
    with pytest.raises(ValueError, match="end of a line"):
        framing().head(200, [header], b"", last=True)


def test_an_answer_is_as_long_as_it_says() -> None:
    """Else the client would take the rest for the next answer, or wait for it."""
    with pytest.raises(ValueError, match="content-length"):
        framing().head(200, LENGTH_2, b"too long", last=False)
    with pytest.raises(ValueError, match="content-length"):
        framing().head(200, LENGTH_2, b"", last=True)
    frame = framing()
    frame.head(200, LENGTH_2, b"o", last=False)
    with pytest.raises(ValueError, match="content-length"):
        frame.body(b"kk", last=True)
