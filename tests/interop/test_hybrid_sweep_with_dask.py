"""A sweep by Dask itself: its own local cluster, one given by address, and one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import hybrid_sweep
from experiments.hybrid_setup import HybridOptions
from experiments.hybrid_sweep import Grid, run_sweep
from tests.hybrid_cities import Quiet, write_six
from topo.errors import InputError, MeasurementError

pytestmark = pytest.mark.interop

distributed = pytest.importorskip("distributed")

GRID = Grid(("mid:1", "mid:2"), ("10/2",), step_min=240)


def options(tmp_path: Path, name: str) -> HybridOptions:
    return HybridOptions(cities=write_six(tmp_path), out=tmp_path / name, router="safe", workers=2)


def test_local_and_given_clusters_find_the_same(tmp_path: Path) -> None:
    own = run_sweep(options(tmp_path, "own"), GRID, reporter=Quiet())
    assert own.report["computed"] == 2
    assert {path.name for path in own.folder.iterdir()} == {
        *("points", "report.json", "sweep.csv", "sweep.png", "sweep.svg"),
    }
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=40
    ) as cluster:
        given = run_sweep(
            options(tmp_path, "given"), GRID, scheduler=cluster.scheduler_address, reporter=Quiet()
        )
    assert given.report["computed"] == 2
    assert given.tables["sweep"].equals(own.tables["sweep"])
    assert run_sweep(options(tmp_path, "own"), GRID, reporter=Quiet()).report["computed"] == 0


def test_a_point_that_fails_is_named_and_the_others_stay(tmp_path: Path) -> None:
    # Elements of November 2024 are too old for 2034: only the worker sees that.
    grid = Grid(("clear",), ("tle:jinan1-a",), dates=("2034-01-01",), step_min=720)
    with pytest.raises((InputError, MeasurementError), match="point clear, tle:jinan1-a: "):
        run_sweep(options(tmp_path, "failing"), grid, reporter=Quiet())


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_sweep, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        run_sweep(options(tmp_path, "none"), GRID, scheduler="tcp://127.0.0.1:1", reporter=Quiet())
