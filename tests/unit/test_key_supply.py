"""What goes into the ledgers of a run: key, and nothing that looks like none."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from experiments.folder import RunFolder
from experiments.key_supply import BLOCK_NUMBER, Relayed, Supply, _fill_ledgers
from kms.ledger import Ledger
from kms.relay import encrypt_relay
from quantum.bb84.session import PassKey
from topo.errors import KeySupplyError
from topo.scenario import SHIPPED, load


@pytest.mark.parametrize("source", ["relay", "pairs"])
def test_a_stuck_source_fills_no_ledger(tmp_path: Path, source: str) -> None:
    scenario = load(SHIPPED / "paper.toml")
    assert scenario.keys.passes is not None
    stuck, good = PassKey(bytes(2000), bytes(2000), {}), Random(1).randbytes(2500)
    message = encrypt_relay(stuck.key_alice, good, BLOCK_NUMBER, "K1 by relay")
    relayed = Relayed(scenario.keys.passes, stuck, PassKey(good, good, {}), message)
    pairs = PassKey(stuck.key_alice, stuck.key_bob, {"title": "entangled pairs"})
    supply = Supply(relayed, None) if source == "relay" else Supply(None, pairs)
    folder = RunFolder.create("test", tmp_path / "run")
    with pytest.raises(KeySupplyError, match="fails its health test: repetition count"):
        _fill_ledgers(scenario, supply, folder)
    for kms in ("KMS-U", "KMS-N"):
        with Ledger(folder.ledger(kms)) as ledger:
            assert ledger.counts().blocks == 0
