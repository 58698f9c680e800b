"""Rekeys between two gateways in memory, 330 ms apart: no packet is lost to one, whatever the link does."""

from __future__ import annotations

from collections import deque

import pytest

from gateways.encapsulation import NON_ESP_MARKER
from gateways.ike.config import Keying
from gateways.ike.numbers import Exchange
from tests.ike_simulation import CONFIG, MS, Link, S, World, message_kind, up


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_first_key_and_rekeys_without_a_lost_packet(keying: Keying) -> None:
    world = up(config={"keying": keying})
    assert world.kms.issued == [*world.ends[0].key_ids] == [*world.ends[1].key_ids]
    world.traffic(20 * MS, 60)
    world.run(70)
    world.assert_nothing_lost()
    assert world.sent == world.received
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 10
    assert world.ends[0].retransmissions == 0
    assert (
        world.kms.issued == [*world.ends[0].key_ids] == [*world.ends[1].key_ids]
    )  # each used once
    assert world.failures == []
    world.assert_one_pair()


def test_ike_sa_is_replaced_under_the_child_sas() -> None:
    world = up(config={"ike_rekey_after_ns": 7 * S, "ml_kem": True, "child_groups": (31,)})
    world.traffic(20 * MS, 100)
    world.run(110)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 15
    assert world.failures == []
    keyed_children = set(world.ends[0].key_ids)
    assert len(world.kms.issued) - len(keyed_children) >= 10  # the other keys are in IKE SAs
    assert world.ikes[0].half_open == world.ikes[1].half_open == 0


def test_loss_copies_and_reordering() -> None:
    link = Link(control_loss=0.05, data_loss=0.05, copies=0.05, late=0.1)
    world = up(config={"rekey_after_ns": 2 * S}, link=link, seed=4)
    world.traffic(20 * MS, 60)
    world.run(65)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 15
    assert world.ends[0].retransmissions > 0
    assert world.refusals(0)["replays"] > 50  # the copies
    assert world.failures == []


@pytest.mark.long
def test_200_rekeys_under_load() -> None:
    """250 packets a second each way, 330 ms one way, 5 % loss, 10 % reordering."""
    link = Link(control_loss=0.05, data_loss=0.05, late=0.1)
    world = World(config={"rekey_after_ns": 2 * S}, link=link, seed=5).start().run(20)
    world.wire = deque(maxlen=1)  # nobody looks at so many
    while world.ends[0].rekeys < 200:
        world.traffic(4 * MS, 10)
        world.run(10)
    world.run(5)
    world.assert_nothing_lost()
    assert world.failures == []


def test_both_ends_rekey_at_the_same_time() -> None:
    """Lifetimes alike: the two ends collide again and again, and one pair of SAs remains (RFC 7296 §2.8.1)."""
    same = {"rekey_after_ns": 4 * S, "jitter": 0.02}
    world = up(config=same, responder=same, link=Link(data_loss=0.05, late=0.1))
    collisions, settled = [0], world.settle

    def watch(end: int) -> None:
        current = world.ikes[end].children.current
        collisions[0] += (
            current is not None and current.rival is not None and current.ike.task is not None
        )
        settled(end)

    world.settle = watch  # type: ignore[method-assign]
    world.traffic(20 * MS, 100)
    world.run(111)
    world.assert_nothing_lost()
    assert collisions[0] > 10
    assert world.ends[0].rekeys == world.ends[1].rekeys >= 15
    assert world.ends[0].key_ids == world.ends[1].key_ids
    world.assert_one_pair()


def test_both_ends_replace_the_ike_sa_at_the_same_time() -> None:
    same = {"ike_rekey_after_ns": 6 * S, "rekey_after_ns": 40 * S, "jitter": 0.0}
    world = up(config=same, responder=same | {"ike_rekey_after_ns": 24 * S // 5})
    world.traffic(50 * MS, 60)
    world.run(70)
    world.assert_nothing_lost()
    assert len(world.kms.issued) > 8
    assert world.failures == []


@pytest.mark.parametrize("seed", range(4))
def test_control_messages_mostly_lost_or_very_late(seed: int) -> None:
    link = Link(control_loss=0.5, copies=0.2, late=0.5, control_lateness_ns=10 * S)
    patient = {"half_open_ns": 300 * S, "hard_after_ns": 300 * S}
    world = World(config=patient, link=link, seed=seed).start()
    while not world.ends[0].usable:
        world.run(1)
    world.traffic(50 * MS, 120)
    world.run(140)
    world.assert_nothing_lost("no_outbound_sa")
    assert world.ends[0].rekeys >= 1
    assert world.ends[0].retransmissions > 10


def test_rekey_of_an_idle_tunnel_retires_the_old_pair() -> None:
    world = up().run(30)
    assert world.ends[1].rekeys >= 4
    for end in (0, 1):
        installed = [sa for sa in world.status(end)["sas"] if sa["state"] == "installed"]
        assert len(installed) <= 4  # the pair in use and, within its grace, the one before
    world.run(CONFIG["grace_ns"] / S)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_responder_switches_on_data_when_every_delete_is_lost() -> None:
    world = up()
    lose_deletes(world, 1000)
    world.traffic(100 * MS, 5)
    world.run(6)
    assert world.ends[1].rekeys == 1
    world.assert_nothing_lost()


def test_old_pair_lives_until_the_responder_has_switched() -> None:
    """Only the responder sends, and the delete comes later than the grace period is long."""
    world = up()
    lose_deletes(world, 3)
    world.traffic(50 * MS, 20, ends=(1,))
    world.run(25)
    assert world.received[1] == world.sent[1]
    assert world.ends[0].retransmissions >= 3
    assert world.ends[1].rekeys >= 1


def test_request_that_comes_when_its_pair_is_gone_is_no_failure() -> None:
    """The responder's rekey is lost again and again, until the initiator's has long been done (RFC 7296 §2.25.1)."""
    world = up()
    transmit, until = world.transmit, world.now + 6 * S

    def held_up(end: int, datagram: bytes, packet: bytes | None = None) -> None:
        request = message_kind(datagram) == (Exchange.CREATE_CHILD_SA, False)
        if not (request and end == 1 and world.now < until):
            transmit(end, datagram, packet)

    world.transmit = held_up  # type: ignore[method-assign]
    world.ikes[1].rekey(world.now)
    world.traffic(20 * MS, 12)
    world.run(15)
    assert world.ends[1].retransmissions >= 3
    world.assert_nothing_lost()
    world.assert_one_pair()
    assert world.failures == []


def lose_deletes(world: World, number: int) -> None:
    transmit, left = world.transmit, [number]

    def selective(end: int, datagram: bytes, packet: bytes | None = None) -> None:
        delete = message_kind(datagram) == (Exchange.INFORMATIONAL, False)
        left[0] -= delete
        if not delete or left[0] < 0:
            transmit(end, datagram, packet)

    world.transmit = selective  # type: ignore[method-assign]


def test_slow_kms_is_asked_once_and_waited_for() -> None:
    world = World()
    world.kms.delay_ns = 4 * S
    world.start().run(15)
    world.traffic(50 * MS, 60)
    world.run(65)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 3
    assert world.ends[0].retransmissions > 0  # while the responder's KMS is thinking
    assert world.seen["FetchKeyById"] <= len(world.kms.issued)
    assert world.failures == []


def test_new_ike_sa_before_the_old_one_ends() -> None:
    """For a peer without RFC 9867: each IKE SA has a PPK of its own, and no packet is lost between them."""
    world = up(config={"reauth_after_ns": 6 * S, "rekey_after_ns": 50 * S})
    world.traffic(20 * MS, 30)
    world.run(40)
    world.assert_nothing_lost()
    assert world.sent == world.received
    assert world.ends[0].key_ids == world.ends[1].key_ids
    assert len(set(world.ends[0].key_ids)) >= 4
    assert world.seen["RetireOutbound"] == 0
    assert world.failures == []


def test_no_key_and_iv_pair_ever_repeats() -> None:
    link = Link(control_loss=0.2, data_loss=0.1)
    world = World(config={"rekey_after_ns": 2 * S}, link=link, seed=9).start().run(10)
    world.traffic(20 * MS, 60)
    world.run(65)
    sealed = [(end, d[:16]) for end, d in world.wire if d[:4] != NON_ESP_MARKER]
    assert len(sealed) == len(set(sealed)) > 4000
    assert len({header[:4] for _, header in sealed}) >= 40
