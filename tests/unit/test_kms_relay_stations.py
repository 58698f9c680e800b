"""Two stations and a satellite over days: wrong blocks are dropped with an alarm, pools stay equal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from kms.alarms import Alarm, AlarmKind, AlarmLog
from kms.ledger import Ledger
from kms.relay import RelayMessage, RelayReceipt, encrypt_relay
from kms.relay_stations import RelayOrigin, RelayReceiver
from topo.errors import KeySupplyError

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
BLOCKS = 5
K1S = [Random(seed).randbytes(400) for seed in range(BLOCKS)]
K2S = [Random(100 + seed).randbytes(440) for seed in range(BLOCKS)]
BLOCK_BYTES = 400 - 32


class Stations:
    """Beijing holds K1s, Shanghai K2s; the satellite has sent one message for each."""

    def __init__(self, folder: Path) -> None:
        self.alarms = AlarmLog()
        self.ledgers = Ledger.create(folder / "b", "N"), Ledger.create(folder / "s", "U")
        self.beijing = RelayOrigin(self.ledgers[0], self.alarms, "Beijing")
        self.shanghai = RelayReceiver(self.ledgers[1], self.alarms, "Shanghai")
        self.messages: list[RelayMessage] = []
        for number, (k1, k2) in enumerate(zip(K1S, K2S, strict=True)):
            assert self.shanghai.hold(k2, NOW) == number
            message = encrypt_relay(k1, k2, number + 10, f"pass {number}", number)
            assert (
                self.beijing.hold(number + 10, k1, message.block_bytes, message.label, NOW) is None
            )
            self.messages.append(message)

    def deliver(self, message: RelayMessage) -> Alarm | None:
        """Over to Shanghai and back to Beijing."""
        answer = self.shanghai.receive(message, NOW)
        if isinstance(answer, Alarm):
            return answer
        return self.beijing.confirm(answer, NOW)

    def pools(self) -> tuple[list[bytes], list[bytes]]:
        """What each station's ledger gives out, by taking it at one and fetching it at the other."""
        taken: tuple[list[bytes], list[bytes]] = ([], [])
        for here, there in ((0, 1), (1, 0)):
            count = self.ledgers[here].stored_key_count(128)
            if count:
                keys = self.ledgers[here].take("m", "s", 128, count, NOW)
                names = [name for name, _ in keys]
                assert self.ledgers[there].fetch("m", "s", names, NOW) == keys
            taken[here].extend(key for _, key in keys) if count else None
        return taken


@pytest.fixture
def stations(tmp_path: Path) -> Iterator[Stations]:
    made = Stations(tmp_path)
    yield made
    for ledger in made.ledgers:
        ledger.close()


def blocks(stations: Stations) -> tuple[int, int]:
    return stations.ledgers[0].counts().blocks, stations.ledgers[1].counts().blocks


def test_all_goes_well(stations: Stations) -> None:
    for message in stations.messages:
        assert stations.deliver(message) is None
    assert blocks(stations) == (BLOCKS, BLOCKS)
    assert not any(stations.alarms.counts.values())
    assert not stations.shanghai.pads  # every K2 is spent
    assert not stations.beijing.waiting
    both = stations.pools()
    assert len(both[0]) == len(both[1]) == BLOCKS * ((BLOCK_BYTES - 32) // 2 // 16)
    assert stations.deliver(stations.messages[0]).kind is AlarmKind.REPLAYED  # type: ignore[union-attr]


def test_no_k1_is_usable_before_the_receipt(stations: Stations) -> None:
    assert stations.beijing.waiting == set(range(10, 10 + BLOCKS))
    assert blocks(stations) == (0, 0)
    receipt = stations.shanghai.receive(stations.messages[0], NOW)
    assert isinstance(receipt, RelayReceipt)
    assert blocks(stations) == (0, 1)
    assert stations.beijing.confirm(receipt, NOW) is None
    assert blocks(stations) == (1, 1)


@pytest.mark.parametrize("where", ["ciphertext", "tag", "label", "block_number"])
def test_a_changed_block(stations: Stations, where: str) -> None:
    first = stations.messages[0]
    new: dict[str, object] = {
        "ciphertext": bytes([first.ciphertext[0] ^ 0x10]) + first.ciphertext[1:],
        "tag": first.tag[:-1] + bytes([first.tag[-1] ^ 1]),
        "label": "pass 9",
        "block_number": 11,
    }
    alarm = stations.deliver(first.model_copy(update={where: new[where]}))
    assert alarm is not None
    assert (alarm.kind, alarm.where) == (AlarmKind.CORRUPTED, "Shanghai")
    assert blocks(stations) == (0, 0)
    assert stations.deliver(first) is None  # K2 was kept for the genuine one
    assert blocks(stations) == (1, 1)


def test_a_longer_block_than_k2_pads(stations: Stations) -> None:
    longer = stations.messages[0].model_copy(update={"ciphertext": bytes(1000)})
    assert stations.deliver(longer).kind is AlarmKind.CORRUPTED  # type: ignore[union-attr]
    empty = stations.messages[0].model_copy(update={"ciphertext": b""})
    assert stations.deliver(empty).kind is AlarmKind.CORRUPTED  # type: ignore[union-attr]


def test_a_replayed_block_of_an_old_pass(stations: Stations) -> None:
    for message in stations.messages[:3]:
        assert stations.deliver(message) is None
    for message in stations.messages[:3]:
        alarm = stations.deliver(message)
        assert alarm is not None
        assert alarm.kind is AlarmKind.REPLAYED
        # An old pass under a new number is no better.
        renamed = message.model_copy(update={"pad_number": 3})
        assert stations.deliver(renamed).kind is AlarmKind.CORRUPTED  # type: ignore[union-attr]
    assert blocks(stations) == (3, 3)
    assert stations.alarms.counts[AlarmKind.REPLAYED] == 3


def test_swapped_blocks(stations: Stations) -> None:
    """The one too early is dropped; sent again in its turn it is taken."""
    first, second, *_ = stations.messages
    assert stations.deliver(second).kind is AlarmKind.OUT_OF_ORDER  # type: ignore[union-attr]
    assert blocks(stations) == (0, 0)
    assert stations.deliver(first) is None
    assert stations.deliver(second) is None
    assert blocks(stations) == (2, 2)
    assert stations.alarms.counts[AlarmKind.OUT_OF_ORDER] == 1


def test_a_lost_or_forged_receipt(stations: Stations) -> None:
    assert isinstance(stations.shanghai.receive(stations.messages[0], NOW), RelayReceipt)
    forged = RelayReceipt(block_number=10, tag=bytes(16))
    assert stations.beijing.confirm(forged, NOW).kind is AlarmKind.CORRUPTED  # type: ignore[union-attr]
    assert blocks(stations) == (0, 1)
    again = stations.shanghai.receipt(10)
    assert again is not None
    assert stations.beijing.confirm(again, NOW) is None
    assert blocks(stations) == (1, 1)
    assert stations.beijing.confirm(again, NOW).kind is AlarmKind.REPLAYED  # type: ignore[union-attr]
    stranger = RelayReceipt(block_number=99, tag=bytes(16))
    assert stations.beijing.confirm(stranger, NOW).kind is AlarmKind.OUT_OF_ORDER  # type: ignore[union-attr]
    assert stations.shanghai.receipt(11) is None


def test_a_block_number_used_before(stations: Stations) -> None:
    """Genuine, but the satellite has made a mistake: its K2 is spent all the same."""
    assert stations.deliver(stations.messages[0]) is None
    again = encrypt_relay(K1S[1], K2S[1], 10, "", 1)
    assert stations.deliver(again).kind is AlarmKind.REPLAYED  # type: ignore[union-attr]
    assert stations.shanghai.pads.start == 2
    assert blocks(stations) == (1, 1)


def test_stuck_and_biased_key_is_refused_at_both_ends(stations: Stations) -> None:
    for stuck in (bytes(400), b"\xaa" * 400, bytes(Random(1).choices((0, 1, 2, 4), k=400))):
        for alarm in (
            stations.shanghai.hold(stuck, NOW),
            stations.beijing.hold(50, stuck, BLOCK_BYTES, "", NOW),
            stations.shanghai.receive(
                encrypt_relay(
                    stuck, K2S[stations.shanghai.pads.start], 50, "", stations.shanghai.pads.start
                ),
                NOW,
            ),
        ):
            assert isinstance(alarm, Alarm)
            assert alarm.kind is AlarmKind.UNHEALTHY_KEY
    assert len(stations.shanghai.pads) == BLOCKS - 3
    assert blocks(stations) == (0, 0)


def test_the_origin_wants_enough_k1_and_a_new_number(stations: Stations) -> None:
    with pytest.raises(KeySupplyError, match="K1 has 400 bytes, too few for 401"):
        stations.beijing.hold(60, K1S[0], 369, "", NOW)
    with pytest.raises(KeySupplyError, match="number 10 is taken"):
        stations.beijing.hold(10, K1S[0], BLOCK_BYTES, "", NOW)


def test_alarms_are_logged_and_hold_no_key(
    stations: Stations, caplog: pytest.LogCaptureFixture
) -> None:
    broken = stations.messages[0].model_copy(update={"tag": bytes(16)})
    stations.deliver(broken)
    (alarm,) = stations.alarms.latest
    assert alarm == Alarm(AlarmKind.CORRUPTED, NOW, "Shanghai", "relayed block 10 is not authentic")
    assert caplog.messages == ["corrupted at Shanghai: relayed block 10 is not authentic"]
    for key in (K1S[0], K2S[0]):
        assert key.hex() not in repr(stations.shanghai) + repr(stations.beijing)
        assert repr(key) not in repr(stations.shanghai) + repr(stations.beijing)


def test_a_receiver_restarted_before_its_receipt_arrived(stations: Stations) -> None:
    """Its ledger has the receipt; the message, sent again, gives the same one."""
    first, second, *_ = stations.messages
    receipt = stations.shanghai.receive(first, NOW)
    assert isinstance(receipt, RelayReceipt)
    stations.ledgers[1].close()
    ledger = Ledger(stations.ledgers[1].path)
    stations.ledgers = stations.ledgers[0], ledger
    again = RelayReceiver(ledger, stations.alarms, "Shanghai")
    for k2 in K2S:
        again.hold(k2, NOW)
    stations.shanghai = again
    assert again.receipt(10) == receipt
    assert again.receipt(11) is None
    assert again.receive(first, NOW) == receipt
    assert again.pads == range(1, BLOCKS)
    assert stations.beijing.confirm(receipt, NOW) is None
    assert stations.deliver(second) is None
    assert not any(stations.alarms.counts.values())
    assert blocks(stations) == (2, 2)

    later = RelayReceiver(ledger, stations.alarms, "Shanghai", first_pad=2)
    assert later.hold(K2S[2], NOW) == 2
    assert isinstance(later.receive(stations.messages[2], NOW), RelayReceipt)


def test_an_origin_restarted_before_the_receipt_came(stations: Stations) -> None:
    """It must be given the K1 again; without, the receipt confirms nothing."""
    receipt = stations.shanghai.receive(stations.messages[0], NOW)
    assert isinstance(receipt, RelayReceipt)
    stations.beijing = RelayOrigin(stations.ledgers[0], stations.alarms, "Beijing")
    assert stations.beijing.confirm(receipt, NOW).kind is AlarmKind.OUT_OF_ORDER  # type: ignore[union-attr]
    stations.beijing.hold(10, K1S[0], stations.messages[0].block_bytes, "", NOW)
    assert stations.beijing.confirm(receipt, NOW) is None
    assert stations.pools()[0]
