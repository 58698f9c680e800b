"""Wrong keys, no keys, limits, dead and restarted peers: what two gateways in memory do when things go wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateways.events import Policy
from gateways.ike.auth import Psk
from gateways.ike.children import Child
from gateways.ike.config import Keying
from gateways.selectors import TrafficSelectors
from gateways.tunnel import Tunnel
from tests.ike_simulation import MS, NETS, Link, S, World, up


def test_wrong_ppk_is_noticed_before_anything_is_established() -> None:
    world = World()
    world.kms.wrong = True
    world.start().run(20)
    assert not world.ends[0].usable
    assert not world.ends[1].usable
    assert any("is not the peer's" in reason for reason in world.failures)
    assert any("AUTHENTICATION_FAILED" in reason for reason in world.failures)
    assert world.seen["InstallInbound"] == world.seen["InstallOutbound"] == 0


def test_wrong_ppk_at_a_rekey_is_noticed_and_the_old_pair_goes_on() -> None:
    world = up()
    world.kms.wrong = True
    world.traffic(50 * MS, 20)
    world.run(25)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys == 0
    assert any("NO_PROPOSAL_CHOSEN" in reason for reason in world.failures)
    world.kms.wrong = False
    world.run(65)
    assert world.ends[0].rekeys >= 1


def test_wrong_key_in_direct_mode_lets_nothing_pass() -> None:
    world = World(config={"keying": Keying.DIRECT})
    world.kms.wrong = True
    world.start().run(3)
    world.traffic(50 * MS, 20)
    world.run(25)
    for end in (0, 1):
        assert world.received[end].total() == 0
        assert world.refusals(1 - end)["icv_failures"] == world.carried[end].total() > 350


def test_wrong_psk_is_refused() -> None:
    world = World()
    world.ikes[1].config = replace(world.ikes[1].config, credentials=Psk(bytes(32)))
    world.start().run(60)
    assert any("pre-shared key" in reason for reason in world.failures)
    assert world.seen["InstallInbound"] == 0
    world.link.control_loss = 1.0
    world.run(31)
    assert world.ikes[1].half_open == 0


def test_sequence_limit_stops_the_sa() -> None:
    world = up(config={"rekey_after_ns": 50 * S}, sequence_limit=100)
    world.traffic(10 * MS, 2, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 100
    assert world.refusals(0)["no_outbound_sa"] == 100
    assert "an SA has used up its sequence numbers" in world.failures
    assert world.status(0)["policies_used"] == {"fail-closed": 1}
    world.run(50)
    world.traffic(10 * MS, 0.5, ends=(0,))
    world.run(5)
    assert world.received[0].total() == 150


@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize("limit", [{"soft_packets": 100}, {"soft_bytes": 2800}])
def test_soft_limits_rekey_before_the_sequence_limit(sender: int, limit: dict[str, int]) -> None:
    world = up(config={"rekey_after_ns": 50 * S} | limit, sequence_limit=400)
    world.traffic(10 * MS, 20, ends=(sender,))
    world.run(25)
    assert world.received[sender] == world.sent[sender]
    assert world.received[sender].total() == 2000
    assert world.ends[0].rekeys >= 8


def test_hard_limit_of_octets_ends_the_sa() -> None:
    world = up(config={"soft_bytes": 2800, "hard_bytes": 5600, "rekey_after_ns": 50 * S})
    world.kms.down = True
    world.traffic(10 * MS, 4, ends=(0,))
    world.run(6)
    assert world.received[0].total() == 200
    assert "an SA has carried all it may" in world.failures
    world.kms.down = False
    world.run(62)
    assert world.ends[0].usable


def test_fail_closed_ends_the_sa_and_recovers() -> None:
    world = up(config={"hard_after_ns": 10 * S})
    world.kms.down = True
    world.run(30)
    assert not world.ends[0].usable
    assert not world.ends[1].usable
    assert world.seen["RetireOutbound"] == 2
    used = [world.status(end)["policies_used"].get("fail-closed", 0) for end in (0, 1)]
    assert sum(used) == world.seen["PolicyUsed"] >= 1  # one end may have told the other in time
    assert any("no keys" in reason for reason in world.failures)
    assert "hard lifetime reached without a new key" in world.failures
    world.traffic(100 * MS, 1)
    world.run(2)
    assert world.received[0].total() == world.received[1].total() == 0
    assert world.refusals(0)["no_outbound_sa"] == world.refusals(1)["no_outbound_sa"] == 10
    world.kms.down = False
    world.run(65)
    assert world.ends[0].usable
    assert world.ends[1].usable


def test_hold_keeps_the_sa_and_counts_it() -> None:
    world = up(config={"hard_after_ns": 10 * S, "policy": Policy.HOLD})
    world.kms.down = True
    world.run(100)
    assert (world.ends[0].held, world.ends[1].held) == (1, 1)
    for end in (0, 1):
        assert world.status(end)["policy"] == "hold"
        assert world.status(end)["policies_used"] == {"hold": 1}
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()
    world.kms.down = False
    world.run(65)
    assert world.ends[0].rekeys >= 1
    assert len([sa for sa in world.status(1)["sas"] if sa["state"] == "installed"]) <= 4


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_hybrid_goes_on_without_keys_and_counts_it(keying: Keying) -> None:
    world = World(config={"policy": Policy.HYBRID, "keying": keying, "child_groups": (31,)})
    world.kms.down = True
    world.start().run(5)
    world.traffic(20 * MS, 20)
    world.run(25)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 3
    assert set(world.ends[0].key_ids) == {""}
    used = world.status(0)["policies_used"]["hybrid"]
    assert used == world.ikes[0].used[Policy.HYBRID]
    assert used - world.ends[0].rekeys in (1, 2)  # the first, and perhaps one under way
    world.kms.down = False
    world.traffic(20 * MS, 10)
    world.run(15)
    world.assert_nothing_lost()
    assert "" != world.ends[1].key_ids[-1] in world.ends[0].key_ids


def test_responder_without_the_key_refuses_and_a_later_key_is_taken() -> None:
    world = World()
    answer = world.answer
    refused: list[str | None] = []

    def first_refused(end: int, exchange: bytes, key_id: str | None) -> None:
        if end == 1 and not refused:
            refused.append(key_id)
            world.ends[1].key_refused(exchange, "never heard of it", world.now)
            world.settle(1)
        else:
            answer(end, exchange, key_id)

    world.answer = first_refused  # type: ignore[method-assign]
    world.start().run(15)
    assert "never heard of it" in world.failures[0]
    assert "AUTHENTICATION_FAILED" in world.failures[1]
    assert world.ends[0].usable
    assert world.ends[0].key_ids[0] != refused[0]


def test_restarted_initiator_is_taken_on() -> None:
    world = up(config={"rekey_after_ns": 50 * S})
    old = list(world.wire)
    world.ends[0] = Tunnel(world.endpoint(0), TrafficSelectors([NETS[0]], [NETS[1]]))
    world.ends[0].start(world.now)
    world.settle(0)
    world.run(3)
    world.traffic(100 * MS, 1)
    world.run(3)
    world.assert_nothing_lost()
    fetches = world.seen["FetchKeyById"]
    installed = world.seen["InstallInbound"]
    for end, datagram in old:  # the first session, replayed whole
        world.arrive(1 - end, datagram)
    world.run(5)
    assert world.seen["FetchKeyById"] == fetches == 2
    assert world.seen["InstallInbound"] == installed
    assert world.failures == []


def test_dead_peer_is_given_up_and_taken_on_again() -> None:
    world = up(config={"dpd_after_ns": 3 * S, "attempts": 3})
    world.link.control_loss = world.link.data_loss = 1.0
    world.run(30)
    for end in (0, 1):
        assert not world.ends[end].usable
    assert sum("no answer to 3 transmissions" in reason for reason in world.failures) >= 2
    world.link.control_loss = world.link.data_loss = 0.0
    world.run(130)
    world.traffic(100 * MS, 1)
    world.run(2)
    world.assert_nothing_lost()


def test_ike_sa_that_cannot_be_replaced_is_kept_and_tried_again_ever_more_rarely() -> None:
    world = up(
        config={"ike_rekey_after_ns": 5 * S, "rekey_after_ns": 500 * S, "hard_after_ns": 999 * S}
    )
    world.kms.down = True
    world.run(300)
    assert 3 <= sum("rekey IKE" in reason for reason in world.failures) <= 30
    world.kms.down = False
    world.traffic(100 * MS, 70)
    world.run(75)
    world.assert_nothing_lost()
    assert len(world.kms.issued) >= 2


def test_farewell_ends_the_tunnel_at_once() -> None:
    world = up()
    world.ends[0].stop(world.now)
    world.settle(0)
    world.run(1)
    assert not world.ends[1].usable
    assert "the peer ended the IKE SA" in world.failures


@pytest.mark.parametrize("policy", [Policy.FAIL_CLOSED, Policy.HOLD])
def test_key_refused_at_a_reauthentication_leaves_the_tunnel_as_it_was(policy: Policy) -> None:
    config = {"keying": Keying.DIRECT, "policy": policy, "reauth_after_ns": 100 * S}
    world = up(config=config | {"rekey_after_ns": 40 * S})
    answer = world.answer
    refused: list[str | None] = []

    def refuse_one(end: int, exchange: bytes, key_id: str | None) -> None:
        if end == 1 and world.now > 95 * S and len(world.ikes[1]._sas) > 1 and not refused:
            refused.append(key_id)
            world.ends[1].key_refused(exchange, "key not found", world.now)
            world.settle(1)
        else:
            answer(end, exchange, key_id)

    world.answer = refuse_one  # type: ignore[method-assign]
    world.traffic(S, 380)
    world.run(390)
    assert len(refused) == 1
    assert world.failures == ["establish: the peer answered NO_PROPOSAL_CHOSEN"]
    assert [counts.total() for counts in world.received] == [
        counts.total() for counts in world.sent
    ]


def test_hold_recovers_when_the_peer_has_erased_a_pair_that_was_never_used() -> None:
    config = {
        "policy": Policy.HOLD,
        "rekey_after_ns": 12 * S,
        "hard_after_ns": 18 * S,
        "jitter": 0.0,
    }
    world = up(config=config)
    install = world.ikes[1].children.install
    began: list[int] = []

    def installed(child: Child, now_ns: int) -> None:
        install(child, now_ns)
        if not began:  # its answer is under way: from now on only ESP gets through
            began.append(now_ns)
            world.link = Link(control_loss=1.0)
            world.at(30 * S, lambda: setattr(world, "link", Link()))

    world.ikes[1].children.install = installed  # type: ignore[method-assign]
    world.traffic(200 * MS, 300)
    world.run(100)
    before = [counts.total() for counts in world.received]
    world.run(90)
    assert began
    assert all(end.usable for end in world.ends)
    assert [counts.total() - b for counts, b in zip(world.received, before, strict=True)] == [
        450,
        450,
    ]


@pytest.mark.parametrize("after_ms", range(1000, 4000, 50))
def test_a_rekey_of_the_peer_beside_a_reauthentication_loses_nothing(after_ms: int) -> None:
    """The IKE SA that goes takes the peer's new pair with it, and both ends are on that of the new IKE SA."""
    lives = {"rekey_after_ns": 100 * S, "hard_after_ns": 200 * S, "reauth_after_ns": 12 * S}
    world = World({**lives, "jitter": 0}).start().run(3)
    begins_ns = 12 * S - world.now
    world.traffic(20 * MS, 20)

    def rekey() -> None:
        world.ikes[1].rekey(world.now)
        world.settle(1)

    world.at(begins_ns + after_ms * MS, rekey)
    world.run(30)
    world.assert_nothing_lost()
    assert world.ends[0].rekeys >= 1
    assert all(end.usable for end in world.ends)
