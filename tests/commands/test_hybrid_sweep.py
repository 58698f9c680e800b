"""Sweeps: which points there are, what makes a point another one, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import hybrid_sweep
from experiments.hybrid_setup import HybridOptions
from experiments.hybrid_sweep import Grid, Point, compute, run_sweep
from quantum.repeaters.parameters import LABEL
from tests.hybrid_cities import Quiet, write_six
from topo.errors import FeatureMissing, InputError

GRID = Grid(("mid:1", "mid:2"), ("10/2",), ("receiver_m=0.8,1.0",), step_min=240)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """Points computed, one after the other in this process instead of by Dask."""
    points: list[Point] = []

    @contextmanager
    def no_client(scheduler: str | None, workers: int | None) -> Iterator[None]:
        yield

    def results(client: None, missing: Sequence[Point]) -> Iterator[tuple[Point, dict[str, Any]]]:
        for point in missing:
            points.append(point)
            yield point, compute(point)

    monkeypatch.setattr(hybrid_sweep, "_client", no_client)
    monkeypatch.setattr(hybrid_sweep, "_results", results)
    return points


def options(tmp_path: Path) -> HybridOptions:
    return HybridOptions(
        cities=write_six(tmp_path), out=tmp_path / "sweep", plots=False, router="safe"
    )


def test_a_sweep_goes_on_where_it_was(tmp_path: Path, computed: list[Point]) -> None:
    first = run_sweep(options(tmp_path), GRID, reporter=Quiet())
    assert len(computed) == first.report["computed"] == 4
    reporter = Quiet()
    again = run_sweep(options(tmp_path), GRID, reporter=reporter)
    assert again.report["computed"] == 0
    assert reporter.notes == ["4 of 4 points are there already"]
    assert again.tables["sweep"].equals(first.tables["sweep"])
    # One point lost, and a larger grid.
    next((tmp_path / "sweep" / "points").iterdir()).unlink()
    larger = replace(GRID, vary=("receiver_m=0.8,1.0,1.2",))
    assert run_sweep(options(tmp_path), larger, reporter=Quiet()).report["computed"] == 3


def test_what_a_sweep_says(tmp_path: Path, computed: list[Point]) -> None:
    outcome = run_sweep(options(tmp_path), GRID, reporter=Quiet())
    table = outcome.tables["sweep"]
    assert table["weather"].tolist() == ["mid:1", "mid:1", "mid:2", "mid:2"]
    assert table["receiver_m"].tolist() == ["0.8", "1.0", "0.8", "1.0"]
    assert (table["key_bits"].diff()[[1, 3]] > 0).all()  # a larger telescope, more key
    assert outcome.report["label"] == LABEL
    assert "SYNTHETIC" in outcome.report["weather"]
    assert LABEL in (outcome.folder / "sweep.csv").read_text().splitlines()[0]
    for file in (outcome.folder / "points").iterdir():
        assert json.loads(file.read_text())["label"] == LABEL


def test_a_point_is_known_by_all_that_its_result_depends_on(
    tmp_path: Path, computed: list[Point]
) -> None:
    run_sweep(options(tmp_path), Grid(("mid:1",), ("5",), step_min=720), reporter=Quiet())
    point = computed[0]
    others = [
        replace(point, seed=2),
        replace(point, weather=("winter",)),
        replace(point, constellation="6"),
        replace(point, changes=("receiver_m=2",)),
        replace(point, date="2024-01-02"),
        replace(point, days=2.0),
        replace(point, step_min=60.0),
        replace(point, router="paper"),
        replace(point, contents=("another list of cities",)),
    ]
    assert len({one.key for one in [point, *others]}) == 10
    assert replace(point, cities="/elsewhere/six.csv").key == point.key


def test_a_point_s_file_that_is_none(tmp_path: Path, computed: list[Point]) -> None:
    grid = Grid(("clear",), ("5",), step_min=720)
    run_sweep(options(tmp_path), grid, reporter=Quiet())
    (file,) = (tmp_path / "sweep" / "points").iterdir()
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file.name}.*remove it"):
        run_sweep(options(tmp_path), grid, reporter=Quiet())


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        (Grid(()), "needs a --weather"),
        (Grid(vary=("receiver_m",)), "--vary receiver_m: a parameter with its values"),
        (Grid(vary=("receiver_m=0.8,",)), "--vary receiver_m=0.8,"),
        (Grid(vary=("nothing=1",)), "repeater parameter 'nothing'"),
        (Grid(("rain",)), "no such file, and no climate"),
        (Grid(constellations=("x",)), "constellation 'x'"),
        (Grid(dates=("x",)), "--date x"),
        (Grid(step_min=0), "in steps of 0 min"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(
    tmp_path: Path, computed: list[Point], grid: Grid, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        run_sweep(options(tmp_path), grid, reporter=Quiet())
    assert not computed
    assert not (tmp_path / "sweep").exists()


def test_another_run_s_folder_is_left_alone(tmp_path: Path, computed: list[Point]) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "report.json").write_text("{}")
    with pytest.raises(InputError, match="is not empty; choose another folder with --out"):
        run_sweep(options(tmp_path), GRID, reporter=Quiet())
    assert (tmp_path / "sweep" / "report.json").read_text() == "{}"


def test_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(hybrid_sweep, "import_module", missing)
    with pytest.raises(FeatureMissing, match=r"Dask.*pip install"):
        run_sweep(options(tmp_path), GRID, reporter=Quiet())
