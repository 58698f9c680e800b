"""The two ends of a relay as they run day after day: what comes wrong is dropped with an alarm.

`RelayReceiver` is the station with the K2s, `RelayOrigin` the one with the K1s. Neither has a socket
or a clock. A relayed block is at both stations in the end if each of them, after a restart, is given
again the keys that it had not used (`hold`):

* the receiver stores a block and its receipt in one transaction; it has the receipt to send again for
  as long as it has the ledger;
* the origin keeps its K1s in memory alone. **Whoever makes K1 must keep it until `confirm` has said
  that the block is stored.** If K1 is lost before, the block is at the receiver only: its keys can be
  taken there and are never found at the origin, until it is withdrawn (`Ledger.destroy_block`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from kms.alarms import Alarm, AlarmKind, AlarmLog
from kms.health import complaint
from kms.ledger import Ledger
from kms.relay import (
    MAC_KEY_BYTES,
    RelayMessage,
    RelayReceipt,
    confirmed_block,
    decrypt_relay,
    make_receipt,
)
from topo.errors import KeySupplyError, ProtocolError

_RECEIPT = "relay_receipt"
"""Of the audit trail: what was sent for a block. The tag is no secret."""


@dataclass
class RelayReceiver:
    """Holds its K2s in the order of their passes, each for one message.

    A message is taken only under the K2 whose turn it is: one that comes again, or before its turn,
    is dropped. The K2 of a message that fails stays, for the genuine one is still to come. `first_pad`
    is the number of the first K2 to be held: after a restart, of the first one not known to be spent.
    """

    ledger: Ledger
    alarms: AlarmLog
    name: str = "relay receiver"
    first_pad: int = 0
    _pads: deque[bytes] = field(default_factory=deque, repr=False)
    _receipts: dict[int, RelayReceipt] = field(default_factory=dict)

    @property
    def pads(self) -> range:
        """The numbers of the K2s not spent yet; the first is the one whose turn it is."""
        return range(self.first_pad, self.first_pad + len(self._pads))

    def hold(self, k2: bytes, now: datetime) -> int | Alarm:
        """Keep the K2 of a pass and return its number, or the alarm if it fails its health test."""
        if (why := complaint(k2)) is not None:
            return self.alarms.sound(AlarmKind.UNHEALTHY_KEY, self.name, f"K2: {why}", now)
        self._pads.append(k2)
        return self.pads[-1]

    def receive(self, message: RelayMessage, now: datetime) -> RelayReceipt | Alarm:
        """The receipt for a block that is in the ledger now, or the alarm with which it was dropped.

        A dropped message changes nothing, except that an authentic one has spent its K2. One whose
        block is stored already, by a receiver that was restarted since, gives the same receipt again.
        """
        number, turn = message.block_number, self.pads.start
        what = f"block {number} under K2 number {message.pad_number}"
        if message.pad_number < turn:
            return self._drop(AlarmKind.REPLAYED, f"{what}, which is spent", now)
        if message.pad_number > turn or not self._pads:
            return self._drop(AlarmKind.OUT_OF_ORDER, f"{what}, but next is {turn}", now)
        try:
            k1 = decrypt_relay(message, self._pads[0])
        except (ProtocolError, KeySupplyError) as error:
            return self._drop(AlarmKind.CORRUPTED, str(error), now)
        answer = self._store(message, k1, what, now)
        self._spend_pad()
        return answer

    def _store(
        self, message: RelayMessage, k1: bytes, what: str, now: datetime
    ) -> RelayReceipt | Alarm:
        """What `receive` does with an authentic message."""
        number = message.block_number
        receipt = make_receipt(number, k1)
        if self.ledger.has_block(number):
            if self.receipt(number) == receipt:
                return receipt
            return self._drop(AlarmKind.REPLAYED, f"{what}: that block is stored already", now)
        if (why := complaint(k1)) is not None:
            return self._drop(AlarmKind.UNHEALTHY_KEY, f"{what}: {why}", now)
        with self.ledger.batch():
            self.ledger.add_block(number, k1[: message.block_bytes], message.label, now)
            self.ledger.stock.audit(now, _RECEIPT, block=number, tag=receipt.tag.hex())
        self._receipts[number] = receipt
        return receipt

    def receipt(self, block_number: int) -> RelayReceipt | None:
        """The receipt of a block received before, ever: the first one may have been lost."""
        if block_number not in self._receipts:
            for entry in self.ledger.audit_trail():
                if entry.event == _RECEIPT and entry.detail["block"] == block_number:
                    tag = bytes.fromhex(str(entry.detail["tag"]))
                    self._receipts[block_number] = RelayReceipt(block_number=block_number, tag=tag)
        return self._receipts.get(block_number)

    def _spend_pad(self) -> None:
        self._pads.popleft()
        self.first_pad += 1

    def _drop(self, kind: AlarmKind, detail: str, now: datetime) -> Alarm:
        return self.alarms.sound(kind, self.name, detail, now)


@dataclass
class RelayOrigin:
    """The station whose pass gave K1: keeps it out of its own pool until the other one confirms it."""

    ledger: Ledger
    alarms: AlarmLog
    name: str = "relay origin"
    _waiting: dict[int, tuple[bytes, str]] = field(default_factory=dict, repr=False)

    @property
    def waiting(self) -> frozenset[int]:
        """The numbers of the blocks that no receipt has come for."""
        return frozenset(self._waiting)

    def hold(
        self, block_number: int, k1: bytes, block_bytes: int, label: str, now: datetime
    ) -> Alarm | None:
        """Keep the part of K1 that K′ carries; None, or the alarm if it fails its health test.

        `KeySupplyError` if K1 is shorter than the `block_bytes` of K′ say, or the number is taken.
        """
        used_bytes = block_bytes + MAC_KEY_BYTES
        if len(k1) < used_bytes:
            raise KeySupplyError(f"K1 has {len(k1)} bytes, too few for {used_bytes} of K′")
        if block_number in self._waiting or self.ledger.has_block(block_number):
            raise KeySupplyError(f"block number {block_number} is taken")
        if (why := complaint(k1[:used_bytes])) is not None:
            return self._drop(AlarmKind.UNHEALTHY_KEY, f"K1 of block {block_number}: {why}", now)
        self._waiting[block_number] = k1[:used_bytes], label
        return None

    def confirm(self, receipt: RelayReceipt, now: datetime) -> Alarm | None:
        """Put the block that the receipt confirms into the pool; or the alarm with which it was dropped."""
        number = receipt.block_number
        if number not in self._waiting:
            known = self.ledger.has_block(number)
            kind = AlarmKind.REPLAYED if known else AlarmKind.OUT_OF_ORDER
            return self._drop(kind, f"receipt for block {number}, which does not wait for one", now)
        k1, label = self._waiting[number]
        try:
            block = confirmed_block(receipt, k1)
        except ProtocolError as error:
            return self._drop(AlarmKind.CORRUPTED, str(error), now)
        self.ledger.add_block(number, block, label, now)
        del self._waiting[number]
        return None

    def _drop(self, kind: AlarmKind, detail: str, now: datetime) -> Alarm:
        return self.alarms.sound(kind, self.name, detail, now)
