"""IKE under any schedule: loss, copies, reordering, refusals, rekeys by both ends, restarts of neither.

The invariant is make before break: once the tunnel is up, whatever SA an end sends on, the other end has installed,
with the same key. It is checked after every step, with packets too.
"""

from __future__ import annotations

import hashlib
import struct
from ipaddress import IPv4Address, IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateways.encapsulation import NON_ESP_MARKER
from gateways.events import FetchKey, FetchKeyById, SendControl
from gateways.ike.auth import Psk
from gateways.ike.config import IkeConfig
from gateways.ike.endpoint import IkeEndpoint
from gateways.selectors import TrafficSelectors
from gateways.tunnel import Tunnel

S = 10**9
NETS = IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")
ADDRESSES = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
NAMES = "EG-U", "EG-N"


def config(end: int) -> IkeConfig:
    """Neither end gives the other up, nor an SA: what is tested is that none has to."""
    return IkeConfig(
        own_id=NAMES[end],
        peer_id=NAMES[1 - end],
        credentials=Psk(bytes(32)),
        begins=end == 0,
        local=(NETS[end],),
        remote=(NETS[1 - end],),
        own_address=ADDRESSES[end],
        peer_address=ADDRESSES[1 - end],
        rekey_after_ns=20 * S,
        ike_rekey_after_ns=70 * S,
        hard_after_ns=10**6 * S,
        half_open_ns=10**6 * S,
        grace_ns=5 * S,
        retransmit_ns=S,
        attempts=10**6,
    )


def inner(end: int) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, 17, 0)
    return head + NETS[end][1].packed + NETS[1 - end][1].packed


class Agreement(RuleBasedStateMachine):
    """Two tunnels, the messages between them, and the requests at their KMSs."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.keys = 0
        self.tokens = 0
        self.flying: list[tuple[int, bytes]] = []
        self.asked: list[tuple[int, FetchKey | FetchKeyById]] = []
        self.ends: list[Tunnel] = []
        for end in (0, 1):
            endpoint = IkeEndpoint(config(end), self.token)
            self.ends.append(Tunnel(endpoint, TrafficSelectors([NETS[end]], [NETS[1 - end]])))
        self.ends[0].start(0)
        self.settle()

    def token(self, octets: int) -> bytes:
        self.tokens += 1
        return hashlib.sha256(self.tokens.to_bytes(8)).digest()[:octets]

    def settle(self) -> None:
        for end, tunnel in enumerate(self.ends):
            for event in tunnel.events():
                if isinstance(event, SendControl):
                    self.flying.append((1 - end, NON_ESP_MARKER + event.message))
                elif isinstance(event, FetchKey | FetchKeyById):
                    self.asked.append((end, event))
        self.flying = self.flying[-20:]

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool) -> None:
        """Any message in flight, in any order, perhaps leaving a copy behind."""
        index = data.draw(st.integers(0, len(self.flying) - 1))
        end, datagram = self.flying[index] if keep else self.flying.pop(index)
        assert self.ends[end].from_outside(datagram, self.now) is None
        self.settle()

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))

    @precondition(lambda self: self.asked)
    @rule(refuse=st.sampled_from([False, False, False, True]))
    def kms_answers(self, refuse: bool) -> None:
        end, request = self.asked.pop(0)
        if refuse:
            self.ends[end].key_refused(request.exchange, "no", self.now)
        else:
            self.keys += 1
            key_id = request.key_id if isinstance(request, FetchKeyById) else f"key-{self.keys}"
            key = hashlib.sha256(key_id.encode()).digest()
            self.ends[end].key_fetched(request.exchange, key_id, key, self.now)
        self.settle()

    @rule(steps=st.integers(1, 6))
    def all_goes_well(self, steps: int) -> None:
        """For a while: KMSs answer, messages arrive in order."""
        for _ in range(steps):
            if self.asked:
                self.kms_answers(refuse=False)
            elif self.flying:
                end, datagram = self.flying.pop(0)
                self.ends[end].from_outside(datagram, self.now)
                self.settle()

    @rule(ns=st.sampled_from([1, S // 2, S, 3 * S, 10 * S]))
    def time_passes(self, ns: int) -> None:
        self.now += ns
        for tunnel in self.ends:
            tunnel.tick(self.now)
        self.settle()

    @rule(end=st.sampled_from([0, 1]))
    def packet(self, end: int) -> None:
        """A packet passes at once, whatever state the agreement is in."""
        datagram = self.ends[end].from_inside(inner(end), self.now)
        if datagram is not None and self.ends[0].usable:
            assert self.ends[1 - end].from_outside(datagram, self.now) == inner(end)
        self.settle()

    @invariant()
    def what_one_sends_on_the_other_has(self) -> None:
        if not self.ends[0].usable:
            return  # the responder has answered IKE_AUTH, the answer is on its way
        installed = [
            {
                (record.direction, record.spi, record.key_id)
                for record in tunnel.records
                if record.state == "installed"
            }
            for tunnel in self.ends
        ]
        for end in (0, 1):
            for direction, spi, key_id in installed[end]:
                if direction == "out":
                    assert ("in", spi, key_id) in installed[1 - end]

    @invariant()
    def one_outbound_and_few_inbound(self) -> None:
        for tunnel in self.ends:
            states = [r.direction for r in tunnel.records if r.state == "installed"]
            assert states.count("out") <= 1

    @invariant()
    def time_never_stands_still(self) -> None:
        """No deadline lies in the past once `tick` was called: the shell cannot spin."""
        for tunnel in self.ends:
            deadline = tunnel.next_deadline_ns()
            if deadline is not None and deadline <= self.now:
                tunnel.tick(self.now)
                self.settle()
                again = tunnel.next_deadline_ns()
                assert again is None or again > self.now


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
