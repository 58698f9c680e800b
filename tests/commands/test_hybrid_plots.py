"""The pictures of the hybrid network: every file is there, says what it is worth, and shows its numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.colors as mcolors
import matplotlib.dates as mdates
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import hybrid_filter
from experiments.drawing import STYLE, save
from experiments.hybrid import run_day, run_fixed
from experiments.hybrid_filter import run_filter
from experiments.hybrid_fleet import run_constellation
from experiments.hybrid_map import Drawn, Projection, great_circle, map_figure
from experiments.hybrid_plots import COLOURS, day_figure, fixed_figure, kinds_figure
from experiments.hybrid_setup import HybridOptions
from experiments.hybrid_trade_plots import constellation_figure, filter_figure
from quantum.repeaters.cities import City
from quantum.repeaters.constellation import FixedSatellite
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import Kind
from quantum.repeaters.routing import Path as BestPath
from tests.hybrid_cities import PAIR, Quiet, write_six

REPORT = {"label": LABEL, "weather": "SYNTHETIC weather", "router": "safe", "constellation": "one"}


@pytest.fixture(autouse=True)
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out once, for their SVG, and not painted: files are empty."""

    def savefig(figure: Figure, path: Path, **_: Any) -> None:
        if path.suffix == ".svg":
            figure.draw_without_rendering()
        path.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)


def options(tmp_path: Path, **more: Any) -> HybridOptions:
    return replace(
        HybridOptions(cities=write_six(tmp_path), out=tmp_path / "run", workers=1), **more
    )


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in {".png", ".svg"}}


def foot(figure: Figure) -> str:
    label = figure._supxlabel  # type: ignore[attr-defined]
    return str(label.get_text()).replace("\n", " ")


def test_fixed_and_its_map(tmp_path: Path) -> None:
    outcome = run_fixed(options(tmp_path), reporter=Quiet())
    assert files(outcome.folder) == {"fixed.png", "fixed.svg", "map.png", "map.svg"}
    figure = fixed_figure(outcome.tables["pairs"], outcome.report)
    assert LABEL in foot(figure)
    assert "SYNTHETIC" in foot(figure)
    scatter = figure.axes[0]
    drawn = sum(
        len(line.get_xdata())  # type: ignore[arg-type]
        for line in scatter.lines
        if line.get_linestyle() == "None"
    )
    assert drawn == 15 - outcome.report["routers"]["paper"]["fail"]


def test_the_same_tables_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_fixed(options(tmp_path, plots=False), reporter=Quiet())
    monkeypatch.undo()  # painted for once
    for name in ("a", "b"):
        with mpl.rc_context(STYLE):
            figure = fixed_figure(outcome.tables["pairs"], outcome.report)
            (tmp_path / name).mkdir()
            save(figure, tmp_path / name, "fixed")
    for name in ("fixed.svg", "fixed.png"):
        first = (tmp_path / "a" / name).read_bytes()
        assert len(first) > 10_000
        assert first == (tmp_path / "b" / name).read_bytes()


def test_day(tmp_path: Path) -> None:
    outcome = run_day(
        options(tmp_path, weather=("mid",)), "10/2", [PAIR], step_min=60, reporter=Quiet()
    )
    assert files(outcome.folder) == {"day.png", "day.svg", "day-kinds.png", "day-kinds.svg"}
    figure = day_figure(outcome.tables["minutes"], outcome.report)
    assert len(figure.axes) == 3
    assert LABEL in foot(figure)
    kinds = kinds_figure(outcome.tables, outcome.report)
    assert [tuple(mcolors.to_rgb(c.get_facecolor()[0])) for c in kinds.axes[0].collections] == [  # type: ignore[index]
        mcolors.to_rgb(colour) for colour in COLOURS.values()
    ]


def test_a_day_without_watched_pairs_or_key(tmp_path: Path) -> None:
    chosen = options(tmp_path, router="paper", changes=("source_werner=0.5",))
    outcome = run_day(chosen, "0", [], step_min=720, reporter=Quiet())
    assert files(outcome.folder) == {"day-kinds.png", "day-kinds.svg"}


@pytest.mark.filterwarnings("error")
def test_nothing_to_draw_is_drawn_on_its_own_axes(tmp_path: Path) -> None:
    no_key = options(tmp_path, changes=("source_werner=0.5",))
    run_fixed(replace(no_key, out=tmp_path / "fixed"), reporter=Quiet())
    outcome = run_day(no_key, "1", [PAIR], days=1, step_min=1440, reporter=Quiet())  # one instant
    figure = day_figure(outcome.tables["minutes"], outcome.report)
    begin, end = (mdates.num2date(day) for day in figure.axes[0].get_xlim())  # type: ignore[no-untyped-call]
    assert begin < datetime(2024, 1, 1, tzinfo=UTC) < end
    assert (end - begin).total_seconds() == pytest.approx(3600)
    dark = run_filter(replace(no_key, out=tmp_path / "dark"), reporter=Quiet())
    key = filter_figure(dark.tables["filter"], dark.report).axes[3]
    assert key.get_xlim() == pytest.approx((2.0, 200.0))
    assert key.get_ylim() == pytest.approx((0.2, 4.0))


def test_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_filter, "POINTINGS_URAD", np.array([0.3, 3.0]))
    outcome = run_filter(HybridOptions(out=tmp_path / "f", plots=False), reporter=Quiet())
    figure = filter_figure(outcome.tables["filter"], outcome.report)
    assert LABEL in foot(figure)
    blinding = run_filter(
        HybridOptions(out=tmp_path / "g", plots=False, changes=("memory_werner=0.5",)),
        reporter=Quiet(),
    )
    assert blinding.report["best"] is None
    filter_figure(blinding.tables["filter"], blinding.report).draw_without_rendering()


def test_constellation(tmp_path: Path) -> None:
    outcome = run_constellation(
        options(tmp_path, router="safe"), (0, 12), (1, 2), step_min=120, reporter=Quiet()
    )
    assert files(outcome.folder) == {"constellation.png", "constellation.svg"}
    figure = constellation_figure(outcome.tables["constellation"], outcome.report)
    assert LABEL in foot(figure)
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["1 plane", "2 planes"]


def test_projection_against_snyder() -> None:
    """USGS Professional Paper 1395, numerical example of the spherical Lambert azimuthal equal-area."""
    x, y = Projection(40.0, -100.0)(-20.0, 100.0)
    assert 3 / 6371 * float(x) == pytest.approx(-4.2339303, abs=1e-6)
    assert 3 / 6371 * float(y) == pytest.approx(4.0257775, abs=1e-6)


def test_projection_keeps_areas() -> None:
    project = Projection(50.0, 10.0)

    def area(latitude: float, longitude: float) -> float:
        lat = np.array([latitude, latitude, latitude + 0.1, latitude + 0.1])
        lon = np.array([longitude, longitude + 0.1, longitude + 0.1, longitude])
        x, y = project(lat, lon)
        return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)

    assert area(60, 30) / area(60, 10) == pytest.approx(1, abs=1e-4)
    sine = np.sin(np.radians([60.1, 60, 40.1, 40]))
    assert area(60, 10) / area(40, 10) == pytest.approx(
        (sine[0] - sine[1]) / (sine[2] - sine[3]), abs=1e-4
    )


def test_great_circle_is_shortest_and_ends_where_it_should() -> None:
    a, b = City("a", "", 40.0, -3.0), City("b", "", 60.0, 25.0)
    latitude, longitude = great_circle(a, b, 101)
    assert (latitude[0], longitude[0]) == pytest.approx((40.0, -3.0))
    assert (latitude[-1], longitude[-1]) == pytest.approx((60.0, 25.0))
    assert latitude[50] > 50  # it bends polewards
    again, _ = great_circle(a, a, 5)
    assert np.allclose(again, 40.0)


def test_a_map_with_hybrid_failed_and_no_paths() -> None:
    cities = [
        City(name, "", lat, lon) for name, lat, lon in (("A", 50, 0), ("B", 52, 8), ("C", 48, 16))
    ]
    net = Network(cities, Parameters())

    def path(
        nodes: tuple[int, ...], by_space: tuple[bool, ...], kind: Kind, skr: float
    ) -> BestPath:
        return BestPath("safe", nodes, by_space, 0.1, 0.9, 0.9, skr / 10e9, skr, kind)

    hybrid = path((0, 1, 2), (False, True), Kind.HYBRID, 1e6)
    none = path((), (), Kind.FAIL, 0.0)
    figure = map_figure(Drawn(net, FixedSatellite(), [hybrid, none], [hybrid]), REPORT)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert "A–C: hybrid, 1 Mbit/s" in labels
    assert not any("no key" in label for label in labels)
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"A", "B", "C"} <= names
    map_figure(Drawn(net, FixedSatellite(), [], []), REPORT).draw_without_rendering()
