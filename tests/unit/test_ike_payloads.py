"""IKE payloads: what is written is read back, and what the RFC forbids is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from gateways.ike.auth import identity
from gateways.ike.crypto import IKE_SUITES
from gateways.ike.numbers import IdType, Kind, Protocol
from gateways.ike.payloads import (
    Delete,
    Header,
    KeyExchange,
    Notify,
    Payload,
    Payloads,
    Proposal,
    Selector,
    Transform,
    Typed,
    UnknownPayload,
    pack_payloads,
    parse_header,
    parse_payloads,
    parse_sa,
    parse_selectors,
    sa_payload,
    selectors_payload,
)
from gateways.ike.ppk import key_id_of, ppk_identity
from gateways.ike.proposals import (
    accepted,
    child_choices,
    choose,
    ike_choices,
    narrowed,
    proposals,
    selectors_of,
)
from gateways.suites import SUITES
from topo.errors import ControlError


def test_header() -> None:
    header = Header(b"initiate", b"responds", 36, 0x28, 5, 46)
    packed = header.pack(46, 12) + bytes(12)
    assert parse_header(packed) == header
    assert header.is_response
    assert header.from_initiator
    for bad in (packed[:27], packed + b"x", packed[:17] + b"\x10" + packed[18:], bytes(28)):
        with pytest.raises(ControlError):
            parse_header(bad)


def test_sa_payload_as_the_rfc_draws_it() -> None:
    """RFC 7296 §3.3: one proposal of AES-128-CBC with HMAC-SHA2-256-128."""
    transforms = (Transform(1, 12, 128), Transform(3, 12), Transform(5, 0))
    proposal = Proposal(1, Protocol.ESP, b"\x11\x22\x33\x44", transforms)
    body = sa_payload([proposal]).body
    assert body.hex() == (
        "0000002801030403112233440300000c0100000c800e0080030000080300000c0000000805000000"
    )
    assert parse_sa(body) == (proposal,)


def test_several_proposals() -> None:
    choices = ike_choices(IKE_SUITES, (31, 19), ml_kem=True)
    offered = proposals(choices, Protocol.IKE, b"")
    assert len(offered) == 6
    assert parse_sa(sa_payload(offered).body) == tuple(offered)


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_can_be_chosen(suite) -> None:  # type: ignore[no-untyped-def]
    offered = proposals(child_choices(SUITES.values(), ()), Protocol.ESP, b"spi!")
    found = choose(offered, child_choices([suite], ()), Protocol.ESP, 4)
    assert found is not None
    answer = accepted(found[0], found[1], b"mine")
    assert choose([answer], child_choices([suite], ()), Protocol.ESP, 4) is not None
    assert suite.encryption == answer.transforms[0].id


def test_what_cannot_be_chosen() -> None:
    gcm = child_choices([SUITES["AES-128-GCM"]], ())
    esp, esn = Transform(1, 20, 128), Transform(5, 0)
    refused = [
        (Transform(1, 20, 256), esn),  # another key length
        (Transform(1, 20, -1), esn),  # an attribute nobody knows
        (esp, esn, Transform(3, 12)),  # an integrity algorithm with an AEAD
        (esp, Transform(5, 1)),  # extended sequence numbers only
        (esp, esn, Transform(4, 31)),  # a key exchange that was not wanted
    ]
    for transforms in refused:
        assert choose([Proposal(1, 3, b"spi!", transforms)], gcm, Protocol.ESP, 4) is None
    good = Proposal(1, 3, b"spi!", (esp, esn, Transform(5, 1), Transform(3, 0), Transform(4, 0)))
    assert choose([good], gcm, Protocol.ESP, 4) is not None
    assert choose([good], gcm, Protocol.IKE, 4) is None
    assert choose([good], gcm, Protocol.ESP, 8) is None


def test_selectors_of_both_versions() -> None:
    prefixes = [IPv4Network("10.1.0.0/24"), IPv6Network("2001:db8::/64")]
    payload = selectors_payload(Kind.TSI, selectors_of(prefixes))
    assert len(payload.body) == 4 + 16 + 40
    selectors = parse_selectors(payload.body)
    assert [(s.first, s.last) for s in selectors] == [
        (IPv4Address("10.1.0.0"), IPv4Address("10.1.0.255")),
        (IPv6Address("2001:db8::"), IPv6Address("2001:db8::ffff:ffff:ffff:ffff")),
    ]
    assert narrowed(selectors, prefixes) == tuple(prefixes)


def test_narrowing() -> None:
    own = [IPv4Network("10.1.0.0/24")]
    wide = Selector(IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255"))
    part = Selector(IPv4Address("10.1.0.128"), IPv4Address("10.2.0.0"))
    odd = Selector(IPv4Address("10.1.0.1"), IPv4Address("10.1.0.2"))
    assert narrowed([wide], own) == (IPv4Network("10.1.0.0/24"),)
    assert narrowed([part], own) == (IPv4Network("10.1.0.128/25"),)
    assert narrowed([odd], own) == (IPv4Network("10.1.0.1/32"), IPv4Network("10.1.0.2/32"))
    assert narrowed([Selector(wide.first, wide.last, 17)], own) == ()
    assert narrowed([Selector(wide.first, wide.last, 0, 53, 53)], own) == ()
    assert narrowed([Selector(IPv6Address(0), IPv6Address(1))], own) == ()


def test_small_payloads() -> None:
    assert KeyExchange.parse(KeyExchange(31, b"public").payload().body) == KeyExchange(
        31, b"public"
    )
    assert Typed.parse(Typed(2, b"name").body()) == Typed(2, b"name")
    rekey = Notify(16393, b"", 3, b"spi!")
    assert Notify.parse(rekey.payload().body) == rekey
    for delete in (Delete(1), Delete(3, (b"one!", b"two!"))):
        assert Delete.parse(delete.payload().body) == delete
    assert key_id_of(ppk_identity("0b5c-é")) == "0b5c-é"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("192.0.2.1", IdType.IPV4),
        ("2001:db8::1", IdType.IPV6),
        ("a@example.org", IdType.EMAIL),
        ("EG-U", IdType.FQDN),
    ],
)
def test_identities(name: str, kind: IdType) -> None:
    assert identity(name).type == kind


def test_critical_payloads() -> None:
    chain = bytes((0, 0, 0, 4))
    assert parse_payloads(200, chain) == []
    with pytest.raises(UnknownPayload, match="200"):
        parse_payloads(200, bytes((0, 0x80, 0, 4)))
    # The flag says nothing about payloads that are known (RFC 7296 §2.5).
    assert parse_payloads(Kind.NONCE, bytes((0, 0x80, 0, 4))) == [Payload(Kind.NONCE, b"")]


@pytest.mark.parametrize(
    ("first", "chain"),
    [
        (33, b""),
        (33, bytes((0, 0, 0))),
        (33, bytes((0, 0, 0, 3))),
        (33, bytes((0, 0, 0, 5))),
        (33, bytes((0, 0, 0, 4, 0))),
        (33, bytes((33, 0, 0, 4))),
        (0, b"x"),
        (33, bytes((33, 0, 0, 4)) * 100 + bytes((0, 0, 0, 4))),
    ],
)
def test_chains_that_do_not_add_up(first: int, chain: bytes) -> None:
    with pytest.raises(ControlError):
        parse_payloads(first, chain)


def test_missing_and_doubled_payloads() -> None:
    chain = pack_payloads([Payload(Kind.NONCE, bytes(16)), Payload(Kind.NONCE, bytes(16))])
    payloads = Payloads(parse_payloads(*chain))
    for kind in (Kind.NONCE, Kind.SA):
        with pytest.raises(ControlError, match="payloads"):
            payloads.one(kind)
    for octets in (15, 257):
        with pytest.raises(ControlError, match="nonce"):
            Payloads([Payload(Kind.NONCE, bytes(octets))]).nonce()
