"""In which order the addresses of one peer are dialled."""

from __future__ import annotations

from punch.network import announced, dial_order, dialled_together, parse_address

PEER = "12D3KooWGYqKxZBhTRg1mKCkJhm8U3Rc6jUDdVyc7MJgAywKosw2"
TCP = "/ip4/192.0.2.1/tcp/1"
QUIC = "/ip4/192.0.2.1/udp/1/quic-v1"
OTHER = "/ip4/198.51.100.2/tcp/1"
RELAYED = f"/ip4/203.0.113.3/tcp/51820/p2p/{PEER}/p2p-circuit"


def rows(*texts: str) -> tuple[list[str], list[str], float]:
    """Both rows for these addresses, and the head start of the first one."""
    order = dial_order(parse_address(text, relayed=True) for text in texts)
    return (
        [str(each) for each in order.direct],
        [str(each) for each in order.relayed],
        (order.head_start),
    )


def test_a_relay_is_dialled_a_quarter_of_a_second_after_the_peer_itself() -> None:
    """Beside it and not after it: an address at home answers nothing for seconds."""
    assert rows(RELAYED, TCP) == ([TCP], [RELAYED], 0.25)


def test_a_relay_waits_for_nothing_where_it_is_the_only_way() -> None:
    """There is nothing to go before it."""
    assert rows(RELAYED) == ([], [RELAYED], 0.0)


def test_tcp_goes_before_quic_and_otherwise_the_peers_own_order_counts() -> None:
    """The peer knows its addresses best."""
    assert rows(QUIC, OTHER, TCP) == ([OTHER, TCP, QUIC], [], 0.25)


def test_where_each_try_is_a_turn_every_try_has_one_relay_beside_one_address() -> None:
    """A listener at home is met at the first try; one that names many holds no turn for longer."""
    second = RELAYED.replace("203.0.113.3", "203.0.113.4")
    assert dialled_together([TCP, RELAYED, second]) == ((TCP, RELAYED), (TCP, second))
    assert dialled_together([TCP, RELAYED, OTHER]) == ((TCP, RELAYED), (OTHER, RELAYED))
    assert dialled_together([RELAYED]) == ((RELAYED,),)
    assert dialled_together([TCP, OTHER]) == ((TCP,), (OTHER,))
    assert dialled_together([]) == ()


HOMES = [f"/ip4/10.0.{number}.7/tcp/51820" for number in range(12)]
LOOPS = ["/ip4/127.0.0.1/tcp/51820", "/ip6/::1/tcp/51820"]
CIRCUITS = [RELAYED.replace("203.0.113.3", f"203.0.113.{number}") for number in (8, 9, 10)]


def test_a_peer_with_many_addresses_names_the_relays_that_lead_to_it() -> None:
    """A machine with a dozen virtual networks is reached at home as any other is."""
    assert announced([*HOMES, *CIRCUITS], 8) == (*HOMES[:6], *CIRCUITS[:2])
    assert announced([*HOMES, CIRCUITS[0]], 8) == (*HOMES[:7], CIRCUITS[0])
    assert announced(HOMES, 8) == tuple(HOMES[:8])


def test_what_only_its_own_machine_can_dial_is_named_where_a_place_is_left() -> None:
    """Nobody is reached there who is not found without it."""
    assert announced([*LOOPS, *HOMES[:5], *CIRCUITS[:2]], 8) == (
        *(LOOPS[0], *HOMES[:5]),
        *CIRCUITS[:2],
    )
    few = [*LOOPS, HOMES[0], *CIRCUITS]
    assert announced(few, 8) == tuple(few)
    assert announced([*LOOPS, *HOMES[:8]], 8) == tuple(HOMES[:8])
    assert announced(CIRCUITS, 1) == (CIRCUITS[0],)
