"""Anything at all into the IKE parser and into an endpoint: no crash, no reply to garbage, bounded state."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from gateways.events import Event, FetchKey, FetchKeyById, SendControl
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig
from gateways.ike.endpoint import IkeEndpoint
from gateways.ike.numbers import Exchange, Flag, Kind
from gateways.ike.payloads import (
    Delete,
    Header,
    KeyExchange,
    Payloads,
    Typed,
    parse_header,
    parse_payloads,
    parse_sa,
    parse_selectors,
)
from gateways.ike.ppk import parse_identity_key
from gateways.ike.sa import IkeSa
from topo.errors import ControlError

NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
INIT = bytes((Exchange.IKE_SA_INIT,))


def pair(rng: random.Random) -> tuple[list[IkeEndpoint], list[bytes], list[tuple[int, bytes]]]:
    """Two endpoints with an SA, their datagrams, and what was inside those that were encrypted."""
    ends = [
        IkeEndpoint(
            IkeConfig(
                own_id="un"[end],
                peer_id="nu"[end],
                credentials=Psk(bytes(32)),
                begins=end == 0,
                local=(NETS[end],),
                remote=(NETS[1 - end],),
                own_address=IPv4Address(1 + end),
                peer_address=IPv4Address(2 - end),
                ml_kem=True,
                child_groups=(31,),
            ),
            rng.randbytes,
        )
        for end in (0, 1)
    ]
    wire: list[bytes] = []
    inside: list[tuple[int, bytes]] = []
    accept = IkeSa._accept

    def noting(sa: IkeSa, *arguments: Any) -> Any:
        message = accept(sa, *arguments)
        inside.append((message.first, message.inner))
        return message

    IkeSa._accept = noting  # type: ignore[method-assign]
    try:
        ends[0].start(0)
        carry(ends, wire)
        for act in (ends[0].rekey, ends[1].rekey_ike, ends[1].rekey):
            act(0)
            for end in ends:
                end.tick(10**9)
            carry(ends, wire)
    finally:
        IkeSa._accept = accept  # type: ignore[method-assign]
    assert ends[0].children.current
    assert ends[1].children.current
    return ends, wire, inside


def carry(ends: list[IkeEndpoint], wire: list[bytes]) -> None:
    while todo := [(end, event) for end in (0, 1) for event in ends[end].events()]:
        for end, event in todo:
            match event:
                case SendControl(message):
                    wire.append(message)
                    ends[1 - end].receive(message, 0)
                case FetchKey(exchange):
                    ends[end].key_fetched(exchange, f"key-{len(wire)}", bytes(32), 0)
                case FetchKeyById(exchange, key_id):
                    ends[end].key_fetched(exchange, key_id, bytes(32), 0)


def mangle(rng: random.Random, source: bytes) -> bytes:
    """Octets changed, cut out, doubled, or lengths that lie."""
    octets = bytearray(source)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(octets)) if octets else 0
        match rng.randrange(5):
            case 0 if octets:
                octets[at] ^= 1 << rng.randrange(8)
            case 1 if octets:
                octets[at] = rng.choice((0, 1, 4, 127, 128, 255))
            case 2:
                del octets[at : at + rng.randint(1, 12)]
            case 3:
                octets[at:at] = octets[at : at + rng.randint(1, 12)]
            case _:
                octets[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(octets)


def parse_all(first: int, chain: bytes) -> None:
    """Every parser there is, as the exchanges use them."""
    payloads = Payloads(parse_payloads(first, chain))
    parsers = {
        Kind.SA: parse_sa,
        Kind.KE: KeyExchange.parse,
        Kind.IDI: Typed.parse,
        Kind.AUTH: Typed.parse,
        Kind.DELETE: Delete.parse,
        Kind.TSI: parse_selectors,
        Kind.TSR: parse_selectors,
    }
    for payload in payloads.all:
        parser = parsers.get(Kind(payload.kind))
        if parser is not None:
            parser(payload.body)
    parse_identity_key(payloads)


def fuzz_parsers(number: int, seed: int) -> None:
    rng = random.Random(seed)
    _, wire, inside = pair(rng)
    chains = [*inside, *((datagram[16], datagram[28:]) for datagram in wire)]
    refused = 0
    for _ in range(number):
        first, chain = rng.choice(chains)
        chain = rng.randbytes(rng.randrange(80)) if rng.random() < 0.1 else mangle(rng, chain)
        try:
            parse_all(first if rng.random() < 0.9 else rng.randrange(256), chain)
        except ControlError:
            refused += 1
    assert number // 2 < refused < number


def fuzz_endpoints(number: int, seed: int) -> None:
    rng = random.Random(seed)
    ends, wire, _ = pair(rng)
    real = set(wire)
    before = [sorted(end._sas) for end in ends]
    answered = 0
    for index in range(number):
        datagram = rng.randbytes(rng.randrange(200))
        if rng.random() < 0.9:
            datagram = mangle(rng, rng.choice(wire))
            if rng.random() < 0.7 and len(datagram) >= 28:  # past the first check
                datagram = datagram[:24] + len(datagram).to_bytes(4) + datagram[28:]
        if datagram in real:
            continue
        for end in ends:
            with suppress(ControlError):
                end.receive(datagram, 0)
            events: list[Event] = end.events()
            if datagram[18:19] == INIT:
                # The one thing a stranger may begin. It leaves half-open state, within its limit.
                assert all(isinstance(event, SendControl) for event in events)
                answered += bool(events)
                assert end.half_open <= end.config.half_open_limit
            else:
                assert events == [], index
    for end, spis in zip(ends, before, strict=True):
        end.tick(40 * 10**9)
        assert end.half_open == 0
        assert set(end._sas) <= set(spis)
    if number > 1000:
        assert 0 < answered < number // 4


def fuzz_insider(number: int, seed: int) -> None:
    """A peer that has the keys and says anything: its messages are genuine, what is in them is not sane."""
    rng = random.Random(seed)
    done = 0
    while done < number:
        ends, _, inside = pair(rng)
        for _ in range(min(50, number - done)):
            done += 1
            current = ends[0].children.current
            assert current is not None
            sender = current.ike
            receiver = ends[1]._sas[sender.spi_r if sender.began else sender.spi_i]
            if receiver.closed:
                break
            first, inner = rng.choice(inside)
            inner = mangle(rng, inner)
            exchange = rng.choice((35, 36, 36, 36, 37, 43, rng.randrange(256)))
            if exchange == Exchange.IKE_SA_INIT:
                continue
            assert sender._seal is not None
            flags = Flag.INITIATOR if sender.began else 0
            header = Header(sender.spi_i, sender.spi_r, exchange, flags, sender._next_id)
            sender._next_id += 1
            ends[1].receive(sender._seal.seal(header, first, inner), 0)
            answers = 0
            for _ in range(3):
                for event in ends[1].events():
                    answers += isinstance(event, SendControl)
                    if isinstance(event, FetchKeyById):
                        ends[1].key_refused(event.exchange, "no", 0)
            assert answers >= 1  # every genuine request is answered
            deadline = ends[1].next_deadline_ns()
            assert deadline is not None


def test_insider() -> None:
    fuzz_insider(2000, 6)


def test_parsers() -> None:
    fuzz_parsers(10_000, 1)


def test_endpoints() -> None:
    fuzz_endpoints(10_000, 2)


@pytest.mark.long
def test_a_million() -> None:
    fuzz_parsers(500_000, 3)
    fuzz_endpoints(500_000, 4)
    fuzz_insider(50_000, 7)


def test_header_of_any_octets() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        with pytest.raises(ControlError):
            parse_header(rng.randbytes(rng.randrange(120)))
