"""The figures of a quantum pass: that they are drawn, and what their points are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import qkd_plots
from experiments.qkd_plots import (
    OVERVIEW,
    PANELS,
    overview_figure,
    panel_figure,
    qber_points,
    write_figures,
)

SLOTS = 120


def table(baseline: bool = False, unused: int = 10) -> pd.DataFrame:
    t_s = np.arange(SLOTS) - SLOTS / 2
    shape = np.exp(-((t_s / 30) ** 2))
    used = (np.arange(SLOTS) >= unused).astype(int)
    columns = {
        "t_s": t_s,
        "elevation_deg": 10 + 60 * shape,
        "range_km": 1700 - 1100 * shape,
        "loss_dB": 45 - 8 * shape,
        "loss_diffraction_dB": 41.0 - 8 * shape,
        "loss_atmosphere_dB": 3.0 + 0 * shape,
        "loss_fog_dB": 1.0 + 0 * shape,
        "used": used,
        "sifted": 10_000 * shape * used,
        "errors": 100 * shape * used,
        "known": 0 * shape,
        "expected_sifted": 10_000 * shape,
        "expected_errors": 100 * shape,
        "expected_key_bits": np.cumsum(shape) * 1e3,
    }
    for k in (1, 2, 3):
        columns[f"clicks_{k}"] = columns[f"expected_clicks_{k}"] = 10.0 ** (5 - k) * shape
    if baseline:
        columns["baseline_key_bits"] = columns["expected_key_bits"] / 2
    return pd.DataFrame(columns)


def report(**changes: Any) -> dict[str, Any]:
    return {
        "title": "a pass",
        "pass": {"slot_s": 1.0},
        "parameters": {"intensities": [0.8, 0.1, 0.0], "max_qber": 0.11},
        "qber": 0.01,
        "secret_bits": 48_000,
        "optimum": None,
        **changes,
    }


def test_every_figure_is_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two panels suffice: the others are drawn below."""
    monkeypatch.setattr(qkd_plots, "PANELS", {name: PANELS[name] for name in ("loss", "key")})
    written = write_figures(tmp_path, table(), report())
    stems = [OVERVIEW, "loss", "key"]
    assert [path.name for path in written] == [f"{stem}.png" for stem in stems]
    for stem in stems:
        assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{stem}.svg").read_text()


@pytest.mark.parametrize("name", PANELS)
def test_every_axis_says_its_quantity_and_unit(name: str) -> None:
    [axis] = panel_figure(name, table(), report()).axes
    assert axis.get_xlabel() == "time from culmination (s)"
    assert axis.get_ylabel() in {
        "elevation (°)",
        "loss (dB)",
        "clicks per second",
        "QBER (%)",
        "secret key (kbit)",
    }


def legend(name: str, *of: Any) -> list[str]:
    [axis] = panel_figure(name, *of).axes
    found = axis.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def test_the_legends_tell_what_happened() -> None:
    assert legend("loss", table(), report()) == [
        "fog",
        "atmosphere",
        "diffraction",
        "sum",
        "not used",
    ]
    assert "vacuum, μ = 0" in legend("counts", table(), report())
    assert "distilled: 48.0 kbit" in legend("key", table(), report())
    assert "no key was distilled" in legend("key", table(), report(secret_bits=0))
    optimised = legend("key", table(baseline=True), report(optimum={"gain": 2.25}))
    assert "before optimising (gain 2.25 ×)" in optimised
    assert "not used" not in legend("counts", table(unused=0), report())


def test_the_limit_shows_where_the_qber_comes_near_it() -> None:
    assert "limit 11 %" not in legend("qber", table(), report())
    bad = table()
    bad["errors"] *= 10
    assert "limit 11 %" in legend("qber", bad, report(qber=0.1))


def test_one_decoy_and_no_clicks_at_all_are_drawn() -> None:
    two = report(parameters={"intensities": [0.6, 0.2], "max_qber": 0.11})
    overview_figure(table(), two)
    silent = table()
    silent[["sifted", "errors", "clicks_1", "clicks_2", "clicks_3"]] = 0
    overview_figure(silent, report(qber=None, secret_bits=0))


def test_qber_points_rest_on_equal_shares_of_all_used_bits() -> None:
    of = table()
    t_s, qber, error = qber_points(of)
    assert len(t_s) == len(qber) == len(error) > 10
    assert (np.diff(t_s) > 0).all()
    assert qber == pytest.approx(0.01)
    assert error == pytest.approx(np.sqrt(0.01 * 0.99 / (of["sifted"].sum() / len(t_s))), rel=0.5)
