"""Two ledgers under random requests: no bit twice, both sites agree, refusals cost nothing."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from kms.key_id import NAMING_AREA_BYTES, parse_key_id
from kms.places import KeyNotFound, PoolExhausted
from tests.kms_two_ledgers import NOW, TwoLedgers, sides


class TwoSites(TwoLedgers):
    """`delivered`: the bytes of every key_ID issued; `pending[i]`: those to be fetched at 1 - i."""

    @initialize()
    def start(self) -> None:
        self.blocks: dict[int, bytes] = {}
        self.delivered: dict[str, bytes] = {}
        self.pending: list[list[str]] = [[], []]

    @rule(number=st.integers(0, 65535), length=st.integers(96, 600))
    def add_block(self, number: int, length: int) -> None:
        if number not in self.blocks:
            self.blocks[number] = Random(number).randbytes(length)
            for ledger in self.sites:
                ledger.add_block(number, self.blocks[number], "", NOW)

    @rule(side=sides, size_bytes=st.integers(1, 80), count=st.integers(1, 6))
    def take(self, side: int, size_bytes: int, count: int) -> None:
        ledger = self.sites[side]
        stored, before = ledger.stored_key_count(8 * size_bytes), ledger.counts()
        try:
            keys = ledger.take(f"m{side}", f"s{side}", 8 * size_bytes, count, NOW)
        except PoolExhausted:
            assert stored < count
            assert ledger.counts() == before
            return
        assert stored - count == ledger.stored_key_count(8 * size_bytes)
        for name, key in keys:
            assert name not in self.delivered
            assert len(key) == size_bytes
            self.delivered[name] = key
            self.pending[side].append(name)

    @rule(side=sides, data=st.data())
    def fetch(self, side: int, data: st.DataObject) -> None:
        if not self.pending[side]:
            return
        names = data.draw(st.lists(st.sampled_from(self.pending[side]), min_size=1, unique=True))
        keys = self.sites[1 - side].fetch(f"m{side}", f"s{side}", names, NOW)
        assert keys == [(name, self.delivered[name]) for name in names]
        self.pending[side] = [name for name in self.pending[side] if name not in names]

    @rule(side=sides, at_site=sides, data=st.data())
    def fetch_what_must_not_be_had(self, side: int, at_site: int, data: st.DataObject) -> None:
        """Fetched before, at its own site, or for another pair; a good one beside it stays."""
        if not self.delivered:
            return
        name = data.draw(st.sampled_from(sorted(self.delivered)))
        pair = (f"m{side}", f"s{side}")
        good = at_site == 1 - side and name in self.pending[side]
        if not good:
            before = self.sites[at_site].counts()
            try:
                self.sites[at_site].fetch(*pair, [*self.pending[1 - at_site][:2], name], NOW)
            except KeyNotFound:
                assert self.sites[at_site].counts() == before
            else:
                raise AssertionError(f"{name} delivered where it must not be")

    @rule(side=sides)
    def restart(self, side: int) -> None:
        counts = self.sites[side].counts()
        self.reopen(side)
        assert self.sites[side].counts() == counts

    @invariant()
    def no_bit_is_in_two_keys(self) -> None:
        used: dict[int, set[int]] = {}
        for name, key in self.delivered.items():
            at = parse_key_id(name).location
            place = range(at.offset_bytes, at.offset_bytes + at.size_bytes)
            block = self.blocks[at.block_number]
            assert NAMING_AREA_BYTES <= place.start < place.stop <= len(block)
            assert block[place.start : place.stop] == key
            seen = used.setdefault(at.block_number, set())
            assert seen.isdisjoint(place)
            seen.update(place)


TestTwoSites = TwoSites.TestCase
TestTwoSites.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
