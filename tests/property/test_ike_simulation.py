"""Two gateways in memory: what they agree on, what they refuse, what strangers get from them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateways.encapsulation import KEEPALIVE, NON_ESP_MARKER
from gateways.ike.numbers import Exchange, Flag, Notice
from gateways.ike.payloads import (
    HEADER_OCTETS,
    Header,
    Notify,
    Payloads,
    pack_payloads,
    parse_header,
    parse_payloads,
)
from gateways.suites import SUITES, Suite
from tests.ike_simulation import MS, NETS, World, inner, message_kind, up


def test_replayed_conversation_changes_nothing() -> None:
    world = up()
    world.traffic(100 * MS, 30)
    world.run(33)
    keys, received = list(world.kms.issued), world.received[0].total()
    fetches, installed = world.seen["FetchKeyById"], world.seen["InstallInbound"]
    for end, datagram in list(world.wire):
        world.arrive(1 - end, datagram)
    assert world.seen["FetchKeyById"] == fetches
    assert world.seen["InstallInbound"] == installed
    assert world.kms.issued == keys
    assert world.received[0].total() == received
    assert world.refusals(1)["control_refused"] > 0
    assert world.ikes[1].half_open <= 1  # a replayed IKE_SA_INIT request begins anew,
    world.run(31)
    assert world.ikes[1].half_open == 0  # and leads nowhere


def test_stray_datagrams_are_dropped_in_silence() -> None:
    world = up()
    wire = len(world.wire)
    strays = [b"", b"\xff", b"\0", bytes(4), bytes(300), b"\0\0\x10\x01" + bytes(60), b"x" * 2000]
    for end in (0, 1):
        for stray in strays:
            world.arrive(end, stray)
        assert world.ends[end].drops["keepalives"] == 1
        assert world.ends[end].drops["control_refused"] == 2
        assert world.ends[end].drops["unknown_spi"] == 4
    assert KEEPALIVE in strays
    assert len(world.wire) == wire


def test_no_half_open_state_outlives_its_time_and_cookies_stop_a_flood() -> None:
    world = up()
    request = next(d for end, d in world.wire if message_kind(d) == (Exchange.IKE_SA_INIT, False))
    sent = len(world.wire)
    for number in range(1000):
        world.arrive(1, request[:4] + number.to_bytes(8, "little") + request[12:])
    answers = [datagram for end, datagram in world.wire[sent:]]
    assert world.ikes[1].half_open == world.ikes[1].config.cookies_from
    assert all(len(answer) < 80 for answer in answers[10:])  # a cookie is all there is
    world.run(31)
    assert world.ikes[1].half_open == 0
    assert world.ends[0].usable


@pytest.mark.parametrize("strangers", [65, 200])
def test_who_sees_the_cookies_cannot_keep_the_peer_out(strangers: int) -> None:
    """Someone on the path returns cookie after cookie, until there is no room for more half-open IKE SAs."""
    world = World().start().run(0.05)
    _, request = world.wire[0]
    for number in range(strangers):
        world.arrive(1, request[:4] + number.to_bytes(8, "little") + request[12:])
    parsed = parse_header(request[4:])
    payloads = parse_payloads(parsed.first, request[4 + HEADER_OCTETS :])
    for end, answer in list(world.wire):
        header = parse_header(answer[4:])
        answered = Payloads(parse_payloads(header.first, answer[4 + HEADER_OCTETS :]))
        cookie = answered.notify(Notice.COOKIE)
        if end == 1 and cookie is not None:
            first, chain = pack_payloads([Notify(Notice.COOKIE, cookie.data).payload(), *payloads])
            again = Header(header.spi_i, bytes(8), header.exchange, Flag.INITIATOR, 0)
            world.arrive(1, NON_ESP_MARKER + again.pack(first, len(chain)) + chain)
    assert world.ikes[1].half_open == world.ikes[1].config.half_open_limit
    world.run(15)
    assert world.ends[0].usable
    assert world.ends[1].usable
    assert world.ikes[1].half_open <= world.ikes[1].config.half_open_limit
    world.run(31)
    assert world.ikes[1].half_open == 0


def test_cookie_is_returned() -> None:
    world = up(responder={"cookies_from": 0})
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_other_key_exchange_method_is_taken_up() -> None:
    up(responder={"groups": (19,)})


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite(suite: Suite) -> None:
    world = up(config={"suites": (suite,)})
    world.traffic(100 * MS, 10)
    world.run(12)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 1


def test_the_responder_chooses_and_nothing_in_common_is_refused() -> None:
    both = tuple(SUITES.values())
    world = up(config={"suites": both}, responder={"suites": both[2:]})
    assert world.ends[0].usable
    world = World(config={"suites": both[:1]}, responder={"suites": both[1:]}).start().run(20)
    assert not world.ends[0].usable
    assert any("NO_PROPOSAL_CHOSEN" in reason for reason in world.failures)


def test_narrowed_selectors_bind_both_ends() -> None:
    half = next(iter(NETS[1].subnets()))
    world = up(responder={"local": (half,)})
    world.ends[0].from_inside(inner(0, 1), world.now)
    outside = inner(0, 1)[:16] + NETS[1][200].packed + inner(0, 1)[20:]
    assert world.ends[0].from_inside(outside, world.now) is None
    assert world.refusals(0) == {"outside_selectors": 1}


def test_outside_the_selectors_nothing_is_sealed() -> None:
    world = up()
    strangers = [
        inner(1, 1),
        b"\x60" + bytes(60),
        inner(0, 1)[:12] + IPv4Address("10.9.9.9").packed + inner(0, 1)[16:],
    ]
    for packet in strangers:
        assert world.ends[0].from_inside(packet, world.now) is None
    assert world.refusals(0) == {"outside_selectors": 3}
