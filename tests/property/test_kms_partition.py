"""Two sites that hear of each other now and then: no bit twice, and in the end they agree.

Summaries are lost, late, out of order and doubled; sites restart in between. Every byte is modelled:
who has been given it, and whether it may still be given.
"""

from __future__ import annotations

from datetime import timedelta
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from kms.places import KeyNotFound, PoolExhausted
from kms.ranges import RangeState
from kms.reconcile import Summary, disagreements, reconcile, summarise
from tests.kms_two_ledgers import NOW, TwoLedgers, sides
from topo.errors import ProtocolError

LATER = NOW + timedelta(days=1)
BLOCKS, LENGTH = 3, 600


class Partition(TwoLedgers):
    """`waiting[i]`: key_IDs taken at site i, not fetched at 1 - i, with (key, size, slaves)."""

    @initialize()
    def start(self) -> None:
        for number in range(BLOCKS):
            for ledger in self.sites:
                ends = LATER if number == 1 else None
                ledger.add_block(number, Random(number).randbytes(LENGTH), "", NOW, ends)
        self.on_the_way: list[list[str]] = [[], []]
        self.waiting: list[dict[str, tuple[bytes, set[str]]]] = [{}, {}]
        self.given: list[set[str]] = [set(), set()]

    @rule(side=sides, size=st.integers(8, 40), slaves=st.sets(st.sampled_from("xyz"), min_size=1))
    def take(self, side: int, size: int, slaves: set[str]) -> None:
        try:
            [(name, key)] = self.sites[side].take("m", sorted(slaves), 8 * size, 1, NOW)
        except PoolExhausted:
            return
        assert name not in self.given[side]
        self.given[side].add(name)
        self.waiting[side][name] = (key, set(slaves))

    @rule(side=sides, slave=st.sampled_from("xyz"), data=st.data())
    def fetch(self, side: int, slave: str, data: st.DataObject) -> None:
        if not self.waiting[side]:
            return
        name = data.draw(st.sampled_from(sorted(self.waiting[side])))
        key, slaves = self.waiting[side][name]
        try:
            got = self.sites[1 - side].fetch("m", slave, [name], NOW, others="xyz")
        except KeyNotFound:
            assert slave not in slaves or name.startswith("0001")  # that block may have expired
        else:
            assert got == [(name, key)]
            slaves.remove(slave)  # KeyError: it had been given to this slave before

    @rule(side=sides)
    def send(self, side: int) -> None:
        self.on_the_way[side].append(summarise(self.sites[side]).model_dump_json())

    @rule(side=sides, data=st.data(), stays=st.booleans())
    def receive(self, side: int, data: st.DataObject, stays: bool) -> None:
        """Any summary sent so far, perhaps not for the last time."""
        if not self.on_the_way[side]:
            return
        text = data.draw(st.sampled_from(self.on_the_way[side]))
        if not stays:
            self.on_the_way[side].remove(text)
        try:
            result = reconcile(self.sites[1 - side], Summary.parse(text), NOW)
        except ProtocolError as error:
            assert "a replay" in str(error)
        else:
            assert result.alarms == ()

    @precondition(lambda self: self.sites[0].level("own").destroyed_bytes < LENGTH)
    @rule(side=sides)
    def expire(self, side: int) -> None:
        self.sites[side].expire(LATER)

    @rule(side=sides)
    def restart(self, side: int) -> None:
        self.reopen(side)

    @rule()
    def heal(self) -> None:
        """Two rounds without traffic, and both know the same."""
        for _ in range(2):
            for side in (0, 1):
                result = reconcile(self.sites[1 - side], summarise(self.sites[side]), NOW)
                assert result.alarms == ()
        one, other = (summarise(ledger) for ledger in self.sites)
        assert disagreements(one, other) == []
        for side in (0, 1):  # what was given out and can still be had is just what is RESERVED
            reserved = self.sites[1 - side].level("peer").reserved_bytes
            assert reserved == self.sites[side].level("own").delivered_bytes
            assert not self.sites[side].level("peer").delivered_bytes
            assert RangeState.RESERVED not in {
                run.state
                for block in self.sites[side].stock.blocks.values()
                for run in block.own.runs()
            }


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
