"""The figures show what the samples and the summary hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from experiments import plots, published
from experiments.looks import LOOKS, looks
from experiments.plots import (
    CAPTIONS,
    FIGURES,
    comparison_figure,
    ecdf_figure,
    jitter_figure,
    rtt_figure,
    write_figures,
)
from experiments.statistics import rtt_statistics
from experiments.summary import Arm, Prediction, RttFigures, Summary

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RTTS = {
    "satellite": [570.0, 580.0, 575.0, 572.0],
    "plain": [600.0, np.nan, 700.0, 650.0],
    "encrypted": [620.0, 640.0, 660.0, 680.0],
    "encrypted_same_radio": [600.4, 680.4, 700.4, 650.4],
}


def table(rtts: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        (arm, seq, seq * 10**9, pd.NA if np.isnan(rtt) else round(rtt * 1e6))
        for arm, values in rtts.items()
        for seq, rtt in enumerate(values)
    ]
    samples = pd.DataFrame(rows, columns=["arm", "seq", "sent_ns", "rtt_ns"])
    return samples.astype({"rtt_ns": "Int64"})


def summary(rtts: dict[str, list[float]]) -> Summary:
    sd = RttFigures(min_ms=3, mean_ms=3, max_ms=20, jitter_ms=3)
    predicted = Prediction(min_ms=601, mean_ms=661, max_ms=761, jitter_ms=37.5, sd=sd)
    return Summary(
        arms={
            arm: Arm(
                **rtt_statistics(values).model_dump(),
                published=published.ARMS[arm].rtt if arm in published.ARMS else None,
                predicted=predicted,
            )
            for arm, values in rtts.items()
        }
    )


def bar_heights(axis: Axes) -> list[float]:
    return [patch.get_height() for patch in axis.patches if patch.get_height() > 0]


def test_figure_12_has_a_labelled_panel_an_arm() -> None:
    figure = rtt_figure(table(RTTS), summary(RTTS))
    assert len(figure.axes) == len(RTTS)
    for axis, letter, (arm, rtts) in zip(figure.axes, "abcd", RTTS.items(), strict=True):
        assert axis.get_title(loc="left").startswith(f"({letter}) {LOOKS[arm].name}")
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("probe", "RTT (ms)")
        np.testing.assert_allclose(np.asarray(axis.lines[0].get_ydata()), rtts)
        labels = {text.get_text() for text in axis.texts}
        answered = [rtt for rtt in rtts if not np.isnan(rtt)]
        assert {f"min {min(answered):.1f}", f"max {max(answered):.1f}"} < labels
        assert f"mean {np.mean(answered):.1f}" in labels


def test_lost_probes_are_counted_and_marked() -> None:
    figure = rtt_figure(table(RTTS), summary(RTTS))
    assert "1 of 4 lost" in figure.axes[1].get_title(loc="left")
    assert "lost" not in figure.axes[0].get_title(loc="left")
    crosses = [line for line in figure.axes[1].lines if line.get_marker() == "x"]
    assert [list(np.asarray(line.get_xdata())) for line in crosses] == [[1]]


def test_published_range_is_shown_only_where_there_is_one() -> None:
    figure = rtt_figure(table(RTTS), summary(RTTS))
    assert [len(axis.patches) for axis in figure.axes] == [1, 1, 1, 0]


def test_bars_are_predicted_emulated_published() -> None:
    found = summary(RTTS)
    means = bar_heights(comparison_figure(table(RTTS), found).axes[1])
    assert means == pytest.approx(
        [661, 574.25, 576, 661, 650, 660, 661, 650, 665, 661, np.mean(RTTS["encrypted_same_radio"])]
    )
    jitters = bar_heights(jitter_figure(table(RTTS), found).axes[1])
    expected = [37.5, 6, 6, 37.5, 50, 38, 37.5, 20, 19, 37.5, 50]
    assert jitters[:1] + jitters[2:10] == pytest.approx(expected[:1] + expected[2:10])
    assert jitters[1] == pytest.approx((10 + 5 + 3) / 3)


def test_jitter_lines_start_at_the_second_probe() -> None:
    lines = jitter_figure(table(RTTS), summary(RTTS)).axes[0].lines
    np.testing.assert_allclose(np.asarray(lines[0].get_xdata()), [1, 2, 3])
    np.testing.assert_allclose(np.asarray(lines[0].get_ydata()), [10, 5, 3])
    np.testing.assert_allclose(np.asarray(lines[1].get_ydata()), [np.nan, np.nan, 50])


def test_distribution_counts_lost_probes_as_never_answered() -> None:
    axis = ecdf_figure(table(RTTS), summary(RTTS)).axes[0]
    share = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines}
    np.testing.assert_allclose(share[LOOKS["plain"].title], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(share[LOOKS["satellite"].title], [0, 0.25, 0.5, 0.75, 1])


def test_arms_of_other_experiments_get_their_own_look() -> None:
    found = looks(["plain", "leo", "cloudy_week"])
    assert found["plain"] is LOOKS["plain"]
    assert found["cloudy_week"].title == "cloudy week"
    assert len({look.colour for look in found.values()}) == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rtts",
    [
        RTTS,
        {"plain": [np.nan] * 4, "encrypted": [600.0] * 4},
        {"only": [544.584001] * 4},
        {"a": [1.0], "b": [np.nan]},
    ],
    ids=["paper", "one-arm-silent", "constant", "single-probe"],
)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_find_their_layout_whatever_the_samples(
    name: str, rtts: dict[str, list[float]]
) -> None:
    FIGURES[name](table(rtts), summary(rtts)).draw_without_rendering()


def test_the_same_run_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(CAPTIONS) == set(FIGURES)
    monkeypatch.setattr(plots, "FIGURES", {"distribution": ecdf_figure})
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        assert write_figures(folder, table(RTTS), summary(RTTS)) == [folder / "distribution.png"]
    assert {path.name for path in folders[0].iterdir()} == {"distribution.png", "distribution.svg"}
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
    png = (folders[0] / "distribution.png").read_bytes()
    assert png.startswith(PNG_SIGNATURE)
    # The pHYs chunk holds pixels a metre: 150 dots an inch.
    (pixels_per_metre,) = struct.unpack_from("!I", png, png.index(b"pHYs") + 4)
    assert pixels_per_metre == round(150 / 0.0254)
