"""A conversation between two of our IKE endpoints, kept for other people's dissectors."""

from __future__ import annotations

import hashlib
import secrets
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from gateways.events import FetchKey, FetchKeyById, SendControl
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig
from gateways.ike.crypto import SessionKeys
from gateways.ike.endpoint import IkeEndpoint

S = 10**9
ADDRESSES = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
NAMES = "EG-U", "EG-N"


class Conversation:
    """Both ends, and every message with the end that sent it."""

    def __init__(self, **changes: Any) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.now = 0
        self.known: dict[tuple[bytes, bytes], SessionKeys] = {}
        """Keys of every IKE SA there was, by its SPIs."""
        self.ends = [
            IkeEndpoint(
                IkeConfig(
                    own_id=NAMES[end],
                    peer_id=NAMES[1 - end],
                    credentials=Psk(bytes(range(32))),
                    begins=end == 0,
                    local=(NETS[end],),
                    remote=(NETS[1 - end],),
                    own_address=ADDRESSES[end],
                    peer_address=ADDRESSES[1 - end],
                    **changes,
                ),
                secrets.token_bytes,
            )
            for end in (0, 1)
        ]
        self.ends[0].start(0)
        self.carry()

    def carry(self) -> None:
        """Let everything arrive."""
        while todo := [(end, event) for end in (0, 1) for event in self.ends[end].events()]:
            for end, event in todo:
                match event:
                    case SendControl(message):
                        self.messages.append((end, message))
                        self.note_keys()
                        self.ends[1 - end].receive(message, self.now)
                    case FetchKey(exchange):
                        self.give(end, exchange, f"key-{len(self.messages)}")
                    case FetchKeyById(exchange, key_id):
                        self.give(end, exchange, key_id)

    def give(self, end: int, exchange: bytes, key_id: str) -> None:
        key = hashlib.sha256(key_id.encode()).digest()
        self.ends[end].key_fetched(exchange, key_id, key, self.now)

    def tick(self) -> None:
        """Let a second pass."""
        self.now += S
        for end in (0, 1):
            self.ends[end].tick(self.now)
            self.carry()

    def note_keys(self) -> None:
        for end in self.ends:
            for sa in end._sas.values():
                if sa.keys is not None:
                    self.known[sa.spi_i, sa.spi_r] = sa.keys


def whole(**changes: Any) -> Conversation:
    """Establish, rekey the child, rekey the IKE SA, probe, say farewell."""
    conversation = Conversation(**changes)
    end = conversation.ends[0]
    end.rekey(conversation.now)
    conversation.tick()
    end.rekey_ike(conversation.now)
    conversation.tick()
    conversation.ends[1].rekey(conversation.now)
    conversation.tick()
    end.stop(conversation.now)
    conversation.carry()
    return conversation
