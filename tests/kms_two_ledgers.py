"""The ledgers of two sites as a state machine for hypothesis; its rules are the tests'."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from kms.ledger import Ledger

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
sides = st.sampled_from((0, 1))


class TwoLedgers(RuleBasedStateMachine):
    """`sites` are those of U and N."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.sites = [
            Ledger.create(self.folder / "u", "U"),
            Ledger.create(self.folder / "n", "N"),
        ]

    def teardown(self) -> None:
        for ledger in self.sites:
            ledger.close()
        shutil.rmtree(self.folder)

    def reopen(self, side: int) -> None:
        """What a restart of a site is to its ledger."""
        path = self.sites[side].path
        self.sites[side].close()
        self.sites[side] = Ledger(path)
