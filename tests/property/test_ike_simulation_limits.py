"""What an SA may carry, and that no number of it is ever used twice, whatever limits, losses and lateness do."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from gateways.esp import EspRefused
from gateways.events import Event, InstallOutbound, Policy
from gateways.ike.config import RESPONDER_PATIENCE
from gateways.ike.endpoint import IkeEndpoint
from gateways.selectors import TrafficSelectors
from gateways.tunnel import Tunnel
from tests.ike_simulation import MS, NETS, Link, S, World, ike_config, inner, up

NEVER: dict[str, Any] = {
    "rekey_after_ns": 10**6 * S,
    "hard_after_ns": 2 * 10**6 * S,
    "dpd_after_ns": 10**6 * S,
}
"""Lifetimes by time that no test lives to see."""
SHORT, LONG = range(24), range(24, 400)


def random_world(seed: int) -> World:
    """Limits by time, packets and octets, IKE lost up to 30 % and late by seconds, both ends alike or not."""
    rng = random.Random(seed)
    rekey_s = rng.choice((2, 3, 5, 10))
    config: dict[str, Any] = {
        "rekey_after_ns": rekey_s * S,
        "hard_after_ns": round(rekey_s * rng.choice((1.2, 1.5, 2, 12)) * S),
        "grace_ns": rng.choice((1, 2, 5)) * S,
        "policy": rng.choice(tuple(Policy)),
        "jitter": rng.choice((0.0, 0.1, 0.5)),
    }
    if rng.random() < 0.5:
        config["soft_packets"] = rng.randrange(20, 400)
    if rng.random() < 0.5:
        config["soft_bytes"] = rng.randrange(1000, 10000)
        config["hard_bytes"] = round(config["soft_bytes"] * rng.choice((1.01, 1.3, 2, 4)))
    if rng.random() < 0.3:
        config["ike_rekey_after_ns"] = rng.randrange(4, 12) * S
    link = Link(
        control_loss=rng.uniform(0, 0.3),
        data_loss=rng.choice((0.0, 0.05)),
        copies=rng.choice((0.0, 0.05)),
        late=rng.uniform(0, 0.3),
        control_lateness_ns=rng.choice((MS, 200 * MS, 3 * S)),
    )
    responder = {"rekey_after_ns": rekey_s * S} if rng.random() < 0.5 else {}
    limit = rng.choice((100, 2**32 - 1))
    return World(config, responder, link, seed=seed, sequence_limit=limit)


@pytest.mark.parametrize(
    "seed", [*SHORT, *(pytest.param(seed, marks=pytest.mark.long) for seed in LONG)]
)
def test_no_sequence_number_is_used_twice_in_any_world(seed: int) -> None:
    world = random_world(seed).start().run(3)
    world.wire = deque(maxlen=1)  # nobody looks at it
    used: tuple[list[int], list[int]] = [], []
    settle = world.settle

    def watch(end: int) -> None:
        current = world.ikes[end].children.current
        if current is not None and current.generation not in used[end][-1:]:
            used[end].append(current.generation)
        settle(end)

    world.settle = watch  # type: ignore[method-assign]
    world.kms.down = seed % 4 == 3
    world.traffic(40 * MS, 40)
    world.at(20 * S, lambda: setattr(world.kms, "down", False))
    world.run(45)  # `World` looks at each number that is sealed with
    for generations in used:
        assert len(generations) == len(set(generations)), "a pair was gone back to"
    for end in (0, 1):
        outbound = [sa["spi"] for sa in world.status(end)["sas"] if sa["direction"] == "out"]
        assert len(outbound) == len(set(outbound))


def test_a_tunnel_of_long_life_never_goes_back_through_outages_of_ike() -> None:
    """ESP flows on while IKE is away around the end of a lifetime: what comes late must not bring old SAs back."""
    for seed in (11, 19, 27, 35):
        config = {"rekey_after_ns": 20 * S, "hard_after_ns": 30 * S}
        world = World(config, seed=seed).start().run(3)
        world.traffic(50 * MS, 100)
        world.run(16 + seed % 8 * 0.25)
        world.link.control_loss = 1.0
        world.run(10 + seed // 8 * 0.5)
        world.link.control_loss = 0.0
        world.run(80)
        assert world.ends[0].rekeys >= 2


class TwiceInstalled(IkeEndpoint):
    """An endpoint with a fault: it has each outbound SA installed twice over."""

    def events(self) -> list[Event]:
        return [
            event
            for event in super().events()
            for _ in range(1 + isinstance(event, InstallOutbound))
        ]


def test_an_sa_that_is_installed_again_does_not_begin_again() -> None:
    world = World()
    selectors = TrafficSelectors([NETS[0]], [NETS[1]])
    world.ends[0] = Tunnel(
        TwiceInstalled(ike_config(0, {}), world.rng.randbytes), selectors, sequence_limit=50
    )
    world.start().run(3)
    world.traffic(10 * MS, 1)
    world.run(3)
    sealed = [sa["packets"] for sa in world.status(0)["sas"] if sa["direction"] == "out"]
    assert sealed == [50]


def test_an_erased_sa_seals_no_more_whatever_its_limit() -> None:
    world = up(config=NEVER)
    sa = world.ends[0].outbound
    assert sa is not None
    sa.seal(inner(0, 1))
    sa.erase()
    sa.limit = 1000
    with pytest.raises(EspRefused):
        sa.seal(inner(0, 2))
    assert sa.seal_batch([inner(0, 2)]) == []


def rekeyed() -> World:
    """A world whose ends have just replaced their pair; the old inbound SAs are in their grace."""
    config = NEVER | {"soft_bytes": 28000, "hard_bytes": 40000}
    world = up(config=config)
    world.ikes[0].rekey(world.now)
    world.ends[0].tick(world.now)
    world.settle(0)
    return world.run(1)


@pytest.mark.parametrize("octets", [30000, 50000])
@pytest.mark.parametrize("end", [0, 1])
def test_late_packet_on_an_old_sa_is_no_matter_of_the_new_pair(end: int, octets: int) -> None:
    world = rekeyed()
    world.traffic(10 * MS, 0.1)
    world.run(1)
    tunnel, children = world.ends[end], world.ikes[end].children
    current = children.current
    old = next(child for child in children.installed.values() if child is not current)
    sa = tunnel.inbound(old.spi_in)
    assert current is not None
    assert sa is not None
    soft_ns, failures = current.soft_ns, len(world.failures)
    sa.counters.bytes = octets
    tunnel.opened(sa, world.now)
    world.settle(end)
    assert children.current is current
    assert (current.soft_ns, current.worn, current.leaving) == (soft_ns, False, False)
    assert len(world.failures) == failures
    assert tunnel.usable


def test_packets_and_octets_have_jitter_and_the_responder_more_patience() -> None:
    limits = NEVER | {"soft_packets": 1000, "soft_bytes": 10**6, "jitter": 0.5}
    shares: tuple[set[int], set[int]] = set(), set()
    for seed in range(8):
        world = up(config=limits, seed=seed)
        for end in (0, 1):
            child = world.ikes[end].children.current
            assert child is not None
            lifetime = child.outbound.lifetime
            inbound = world.ends[end].inbound(child.spi_in)
            assert inbound is not None
            assert inbound.lifetime == lifetime
            assert abs(lifetime.soft_bytes - 1000 * lifetime.soft_packets) <= 1000
            shares[end].add(lifetime.soft_packets)
    assert len(shares[0]) > 4
    assert len(shares[1]) > 4
    assert 500 <= min(shares[0]) < max(shares[0]) <= 1000
    assert 500 * RESPONDER_PATIENCE <= min(shares[1]) < max(shares[1]) <= 1000 * RESPONDER_PATIENCE


@pytest.mark.parametrize("senders", [(0,), (1,), (0, 1)])
def test_one_key_for_each_rekey_by_packets_whoever_sends(senders: tuple[int, ...]) -> None:
    world = up(config=NEVER | {"soft_packets": 500})
    world.traffic(4 * MS, 20, ends=senders)
    world.run(25)
    assert all(world.received[end] == world.sent[end] for end in senders)
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 6
    assert len(world.kms.issued) == world.ends[0].keys
    assert world.seen["Worn"] >= world.ends[0].rekeys
    assert world.failures == []


@pytest.mark.parametrize("policy", [Policy.FAIL_CLOSED, Policy.HOLD])
@pytest.mark.parametrize("sender", [0, 1])
def test_end_of_the_sequence_numbers_is_the_end_of_the_sa(policy: Policy, sender: int) -> None:
    world = up(config=NEVER | {"policy": policy, "soft_packets": 200}, sequence_limit=300)
    world.kms.down = True
    world.traffic(10 * MS, 4, ends=(sender,))
    world.run(6)
    assert world.received[sender].total() == 300
    assert "an SA has used up its sequence numbers" in world.failures
    for end in (0, 1):
        assert not world.ends[end].usable
        used = world.status(end)["policies_used"]
        assert used == ({"fail-closed": 1} if policy is Policy.FAIL_CLOSED else {})
    assert world.seen["RetireOutbound"] == 2
    assert world.refusals(sender)["no_outbound_sa"] == 100
    world.kms.down = False
    world.run(65)  # also where the initiator had only been told
    assert world.ends[0].usable
    assert world.ends[1].usable


def test_answer_that_comes_after_the_hard_lifetime_is_not_begun_with() -> None:
    world = up(config={"rekey_after_ns": 5 * S, "hard_after_ns": 7 * S, "jitter": 0.0})
    transmit, until = world.transmit, world.now + 9 * S

    def held_up(end: int, datagram: bytes, packet: bytes | None = None) -> None:
        if packet is None and end == 1 and world.now < until:
            world.link.control_loss = 1.0
        transmit(end, datagram, packet)
        world.link.control_loss = 0.0

    world.transmit = held_up  # type: ignore[method-assign]
    world.traffic(50 * MS, 30)
    world.run(32)
    assert any("hard lifetime" in reason for reason in world.failures)
    assert world.ends[0].usable
    assert world.ends[1].usable
    for end in (0, 1):
        for record in world.status(end)["sas"]:
            assert record["direction"] == "in" or record["packets"] > 0
