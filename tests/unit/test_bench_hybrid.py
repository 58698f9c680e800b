"""The benchmark of the hybrid network: it runs, and the plain way finds what ours finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.bench import hybrid as bench
from experiments.hybrid_setup import HybridOptions, network
from tests.hybrid_cities import Quiet, write_six
from topo.errors import MeasurementError


def test_the_plain_way_agrees_with_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("networkx")
    monkeypatch.setattr(bench, "OWN_MINUTES", 2)  # of the whole network
    net = network(HybridOptions(cities=write_six(tmp_path)))
    found = bench._peer(net, 1440, 25, 2, Quiet())
    assert found["pairs_that_differ"] == 0
    assert found["day_s"] == pytest.approx(720 * found["seconds"])
    assert found["ratio"] > 0


def test_without_networkx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(bench, "import_module", missing)
    net = network(HybridOptions(cities=write_six(tmp_path)))
    assert "pip install networkx" in bench._peer(net, 1440, 25, 1, Quiet())["missing"]


def test_a_day_in_a_process_of_its_own() -> None:
    found = bench._own_process(2, 3, 1, "safe")
    assert found["router"] == "safe"
    assert found["seconds"] > 0
    assert found["peak_MiB"] > 10


def test_a_process_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MeasurementError, match="the benchmark's process: status 1"):
        bench._own_process(2, 3, 1, "safe")
