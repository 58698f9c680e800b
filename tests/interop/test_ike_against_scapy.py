"""scapy's IKEv2 layers read what we write, and we read what they write."""

from __future__ import annotations

import pytest
from scapy.contrib import ikev2

from gateways.ike.config import Keying
from gateways.ike.numbers import Kind
from gateways.ike.payloads import (
    KeyExchange,
    Payloads,
    Transform,
    parse_header,
    parse_payloads,
    parse_sa,
    parse_selectors,
)
from tests.interop.ike_conversation import Conversation

pytestmark = pytest.mark.interop


def test_scapy_reads_ike_sa_init() -> None:
    conversation = Conversation(keying=Keying.PPK)
    request, response = (ikev2.IKEv2(message) for _, message in conversation.messages[:2])
    for packet in (request, response):
        assert packet.exch_type == 34
        assert packet.length == len(bytes(packet))
        exchange = packet[ikev2.IKEv2_KE]
        assert (exchange.group, len(exchange.ke)) == (31, 32)
        assert len(packet[ikev2.IKEv2_Nonce].nonce) == 32
    proposal = response[ikev2.IKEv2_Proposal]
    assert (proposal.proposal, proposal.proto, proposal.trans_nb) == (1, 1, 3)
    kinds, layer = [], request
    while layer:
        if isinstance(layer, ikev2.IKEv2_Notify):
            kinds.append(layer.type)
        layer = layer.payload
    assert kinds == [16388, 16389, 16431, 16435, 16445, 16438]


def test_we_read_scapy() -> None:
    transforms = (
        ikev2.IKEv2_Transform(
            next_payload=3, length=12, transform_type=1, transform_id=20, key_length=128
        )
        / ikev2.IKEv2_Transform(next_payload=3, transform_type=2, transform_id=5)
        / ikev2.IKEv2_Transform(transform_type=4, transform_id=31)
    )
    packet = (
        ikev2.IKEv2(init_SPI=b"initiate", next_payload=33, exch_type=34, flags=8, id=0)
        / ikev2.IKEv2_SA(
            next_payload=34,
            prop=ikev2.IKEv2_Proposal(proposal=1, proto=1, trans_nb=3, trans=transforms),
        )
        / ikev2.IKEv2_KE(next_payload=40, group=31, ke=bytes(32))
        / ikev2.IKEv2_Nonce(next_payload=44, nonce=b"n" * 20)
        / ikev2.IKEv2_TSi(
            next_payload=0,
            traffic_selector=[
                ikev2.IPv4TrafficSelector(
                    starting_address_v4="10.0.0.0", ending_address_v4="10.0.0.255"
                )
            ],
        )
    )
    datagram = bytes(packet)
    header = parse_header(datagram)
    assert (header.spi_i, header.exchange, header.is_response) == (b"initiate", 34, False)
    payloads = Payloads(parse_payloads(header.first, datagram[28:]))
    (proposal,) = parse_sa(payloads.one(Kind.SA))
    assert proposal.transforms == (Transform(1, 20, 128), Transform(2, 5), Transform(4, 31))
    assert KeyExchange.parse(payloads.one(Kind.KE)) == KeyExchange(31, bytes(32))
    assert payloads.nonce() == b"n" * 20
    (selector,) = parse_selectors(payloads.one(Kind.TSI))
    assert (str(selector.first), str(selector.last)) == ("10.0.0.0", "10.0.0.255")
