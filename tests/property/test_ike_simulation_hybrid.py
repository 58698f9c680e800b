"""Policy `hybrid`: each time that it goes on without a key is counted where it happens, and no key is named."""

from __future__ import annotations

from typing import Any

import pytest

from gateways.events import Policy
from gateways.ike.config import Keying
from tests.ike_simulation import S, World, up

HYBRID: dict[str, Any] = {"policy": Policy.HYBRID, "child_groups": (31,), "jitter": 0.0}


def assert_each_use_counted(world: World, end: int, *, with_key: int) -> None:
    """`with_key` of the pairs in use have a key; each of the others was a use of the policy."""
    status = world.status(end)
    key_ids = status["key_ids"]
    assert "" not in key_ids[:with_key]
    assert set(key_ids[with_key:]) == {""}
    assert len(key_ids) == status["rekeys"] + 1 >= 5
    assert status["policies_used"] == {"hybrid": len(key_ids) - with_key}


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_kms_that_fails_later_is_noted_at_both_ends(keying: Keying) -> None:
    world = up(config=HYBRID | {"keying": keying})
    world.kms.down = True
    world.run(22)
    for end in (0, 1):
        assert_each_use_counted(world, end, with_key=1)


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
def test_key_that_only_the_responder_lacks_is_noted_at_both_ends(keying: Keying) -> None:
    world = up(config=HYBRID | {"keying": keying})
    answer = world.answer

    def lacking(end: int, exchange: bytes, key_id: str | None) -> None:
        if end == 1:
            world.ends[1].key_refused(exchange, "never heard of it", world.now)
            world.settle(1)
        else:
            answer(end, exchange, key_id)

    world.answer = lacking  # type: ignore[method-assign]
    world.run(22)
    for end in (0, 1):
        assert_each_use_counted(world, end, with_key=1)


@pytest.mark.parametrize("keying", [Keying.PPK, Keying.DIRECT])
@pytest.mark.parametrize("end", [0, 1])
def test_peer_that_uses_no_keys_at_all_is_noted(end: int, keying: Keying) -> None:
    other = {"keying": Keying.NONE}
    config = HYBRID | ({"keying": keying} if end == 0 else other)
    responder = other if end == 0 else {"keying": keying}
    world = World(config=config, responder=responder).start().run(22)
    assert_each_use_counted(world, end, with_key=0)
    assert world.status(1 - end)["policies_used"] == {}


def test_ike_rekey_without_a_key_is_noted_at_both_ends() -> None:
    lasting = {"rekey_after_ns": 500 * S, "hard_after_ns": 900 * S, "ike_rekey_after_ns": 5 * S}
    world = up(config=HYBRID | lasting)
    world.kms.down = True
    world.run(22)
    used = [world.status(end)["policies_used"] for end in (0, 1)]
    assert used[0] == used[1] == {"hybrid": 4}
    assert world.status(0)["key_ids"] == world.kms.issued
