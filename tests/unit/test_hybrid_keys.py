"""From a path of the hybrid network to keys at both key management sites."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from experiments import key_supply
from experiments.folder import RunFolder
from experiments.hybrid import run_day, run_fixed
from experiments.hybrid_filter import run_filter
from experiments.hybrid_keys import collect_pairs, find_pairs
from experiments.hybrid_setup import HybridOptions
from experiments.key_supply import PAIRS_BLOCK_NUMBER, Relayed, Supply, provide_for
from kms.ledger import Ledger
from kms.relay import encrypt_relay
from quantum.bb84.session import PassKey
from quantum.repeaters.parameters import LABEL
from tests.hybrid_cities import PAIR, Quiet, write_six
from topo.errors import InputError, NoKeyFromPass, ScenarioError
from topo.scenario import SHIPPED, EntangledPairs, Scenario, find, load

NOW = datetime(2024, 1, 1, tzinfo=UTC)
GIVEN = EntangledPairs(cities=("Madrid", "Berlin"), pair_rate_hz=1e6, werner=0.95, max_pairs=60_000)


def scenario(*changes: str) -> Scenario:
    return load(find("hybrid"), ["keys.hybrid.max_pairs = 60000", *changes])


def test_key_of_given_pairs() -> None:
    key = collect_pairs(GIVEN, 7)
    assert key.key_alice == key.key_bob
    report = key.report
    assert report["title"] == "entangled pairs (Madrid–Berlin)"
    assert report["label"] == LABEL
    # SKR times duration: 10^6 pairs a second at the secret fraction of W = 0.95 and f = 1.16.
    entropy = -0.025 * np.log2(0.025) - 0.975 * np.log2(0.975)
    assert report["model_bits"] == pytest.approx(1e6 * (1 - 2.16 * entropy))
    assert report["model_bits_of_simulated"] == pytest.approx(0.06 * report["model_bits"])
    assert 0 < report["secret_bits"] < report["model_bits_of_simulated"]


def test_pairs_of_the_fixed_satellite_are_those_of_its_experiment(tmp_path: Path) -> None:
    run_fixed(HybridOptions(out=tmp_path / "run", plots=False, router="safe"), reporter=Quiet())
    cities = ("berlin", "Madrid")
    alone = find_pairs(EntangledPairs(cities=cities)).source
    of_run = find_pairs(EntangledPairs(cities=cities, run=str(tmp_path / "run"))).source
    assert of_run.pair_rate_hz == pytest.approx(alone.pair_rate_hz, rel=1e-6)
    assert of_run.werner == pytest.approx(alone.werner, rel=1e-6)


def test_pairs_of_a_day_give_the_day_s_key(tmp_path: Path) -> None:
    options = HybridOptions(
        cities=write_six(tmp_path), out=tmp_path / "day", plots=False, router="safe", workers=1
    )
    report = run_day(options, "10/2", [PAIR], step_min=30, reporter=Quiet()).report
    watched = report["watched"][0]
    found = find_pairs(EntangledPairs(cities=("Warsaw", "Madrid"), run=str(tmp_path / "day")))
    assert found.source.pair_rate_hz == watched["pair_rate_hz"]
    # W hardly varies, so the mean rate at the mean W is the key of the day.
    key = collect_pairs(
        EntangledPairs(cities=("Warsaw", "Madrid"), run=str(tmp_path / "day"), max_pairs=60_000), 1
    )
    assert key.report["model_skr_bit_s"] * 86_400 == pytest.approx(watched["key_bits"], rel=0.01)
    with pytest.raises(InputError, match=r"not watched .*--pair Paris-Milan"):
        find_pairs(EntangledPairs(cities=("Paris", "Milan"), run=str(tmp_path / "day")))


def test_runs_that_cannot_be_used(tmp_path: Path) -> None:
    cities = ("Madrid", "Berlin")
    with pytest.raises(InputError, match="no report of a hybrid run"):
        find_pairs(EntangledPairs(cities=cities, run=str(tmp_path)))
    run_filter(HybridOptions(out=tmp_path / "filter", plots=False), reporter=Quiet())
    with pytest.raises(InputError, match="is a filter run"):
        find_pairs(EntangledPairs(cities=cities, run=str(tmp_path / "filter")))
    six = HybridOptions(cities=write_six(tmp_path), out=tmp_path / "six", plots=False)
    run_fixed(six, satellite="0", reporter=Quiet())
    plain = EntangledPairs(cities=("Zurich", "milan"), run=str(tmp_path / "six"))
    assert find_pairs(plain).source.pair_rate_hz > 0  # by names without accents, as anywhere
    with pytest.raises(InputError, match="has no pair Madrid and Berlin"):
        find_pairs(EntangledPairs(cities=cities, run=str(tmp_path / "six")))
    with pytest.raises(NoKeyFromPass, match="no path between Madrid and Warsaw has any"):
        find_pairs(EntangledPairs(cities=("Madrid", "Warsaw"), run=str(tmp_path / "six")))
    with pytest.raises(InputError, match="two different cities"):
        find_pairs(EntangledPairs(cities=("Madrid", "madrid")))
    with pytest.raises(InputError, match="city 'Atlantis'"):
        find_pairs(EntangledPairs(cities=("Madrid", "Atlantis")))


def test_both_sites_hold_the_pairs_key_and_hand_it_out(tmp_path: Path) -> None:
    folder = RunFolder.create("test", tmp_path / "run")
    reporter = Quiet()
    supply = provide_for(scenario(), ("plain", "encrypted"), folder, reporter, NOW)
    assert supply is not None
    assert supply.relayed is None
    assert supply.relayed_bits == 0
    (report,) = supply.reports(scenario()).values()
    assert any(LABEL in note for note in reporter.notes)
    with Ledger(folder.ledger("KMS-U")) as user, Ledger(folder.ledger("KMS-N")) as core:
        assert user.has_block(PAIRS_BLOCK_NUMBER)
        total = user.level("own").total_bytes + user.level("peer").total_bytes
        assert 8 * (total + 32) == report["secret_bits"]  # less what names the keys
        taken = user.take("EG-U", "EG-N", 256, 2, NOW)
        assert core.fetch("EG-U", "EG-N", [key_id for key_id, _ in taken], NOW) == taken


def test_pairs_beside_the_relayed_key(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    k1, k2 = rng.bytes(2000), rng.bytes(2500)
    message = encrypt_relay(k1, k2, key_supply.BLOCK_NUMBER, "K1 by relay")
    paper = load(
        SHIPPED / "paper.toml",
        ['keys.source = "both"', 'keys.hybrid.cities = ["Madrid", "Berlin"]'],
    )
    passes = paper.keys.passes
    assert passes is not None
    relayed = Relayed(passes, PassKey(k1, k1, {}), PassKey(k2, k2, {}), message)
    pairs = rng.bytes(1000)
    supply = Supply(relayed, PassKey(pairs, pairs, {"title": "entangled pairs (A–B)"}))
    folder = RunFolder.create("test", tmp_path / "run")
    key_supply._fill_ledgers(paper, supply, folder)
    assert list(supply.reports(paper)) == [
        *("K1 (Beijing, 2024-11-22)", "K2 (Shanghai, 2024-11-29)", "entangled pairs (A–B)"),
    ]
    with Ledger(folder.ledger("KMS-U")) as user, Ledger(folder.ledger("KMS-N")) as core:
        for ledger in (user, core):
            assert ledger.counts().blocks == 2
            levels = ledger.level("own").total_bytes + ledger.level("peer").total_bytes
            assert 8 * levels == supply.relayed_bits + 8 * len(pairs) - 2 * 256
        # The first pool gives until it is empty, then the other.
        count = user.stored_key_count(256)
        taken = user.take("EG-U", "EG-N", 256, count, NOW)
        assert core.fetch("EG-U", "EG-N", [key_id for key_id, _ in taken], NOW) == taken
        assert user.stored_key_count(256) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (['keys.source = "both"'], "keys: first: is missing"),
        (['keys.source = "passes"'], "keys: first: is missing"),
        (["keys.hybrid.werner = 0.9"], "keys.hybrid: pair_rate_hz and werner go together"),
        (
            ["keys.hybrid.werner = 0.9", "keys.hybrid.pair_rate_hz = 1.0", 'keys.hybrid.run = "x"'],
            "keys.hybrid: run says pair_rate_hz and werner too",
        ),
        (['keys.hybrid.cities = ["Madrid"]'], "keys.hybrid.cities"),
        (["keys.hybrid.duration_s = 0.0"], "keys.hybrid.duration_s"),
    ],
)
def test_scenarios_that_cannot_be(changes: list[str], why: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(why)):
        scenario(*changes)


def test_a_source_without_its_table() -> None:
    with pytest.raises(ScenarioError, match="keys: hybrid: is missing"):
        load(SHIPPED / "paper.toml", ['keys.source = "hybrid"'])


def test_reports_are_json(tmp_path: Path) -> None:
    json.dumps(collect_pairs(GIVEN, 1).report, allow_nan=False)
