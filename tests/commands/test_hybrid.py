"""The experiments on the hybrid network: published anchors of the reconstruction, labels, repeatability, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import hybrid_setup as setup
from experiments.hybrid import Outcome, run_day, run_fixed
from experiments.hybrid_filter import run_filter, slant_range_km
from experiments.hybrid_fleet import reaches, run_constellation, with_costs
from experiments.hybrid_setup import HybridOptions
from quantum.repeaters.constellation import ElementSets, FixedSatellite, Walker
from quantum.repeaters.parameters import LABEL
from tests.hybrid_cities import PAIR, Quiet, write_six
from topo.errors import InputError


def fixed(out: Path, *changes: str) -> Outcome:
    return run_fixed(HybridOptions(changes=changes, out=out, plots=False), reporter=Quiet())


def day(out: Path, cities: Path, **more: object) -> Outcome:
    options = {"cities": cities, "out": out, "plots": False, "weather": ("mid",), "workers": 1}
    return run_day(
        HybridOptions(**{**options, **more}),  # type: ignore[arg-type]
        "10/2",
        [PAIR],
        step_min=20,
        reporter=Quiet(),
    )


def test_fixed_satellite_gives_the_reconstruction_s_threshold_and_counts(tmp_path: Path) -> None:
    report = fixed(tmp_path / "a").report
    of_paper = report["routers"]["paper"]
    assert of_paper["threshold"]["distance_km"] == pytest.approx(424, abs=15)
    assert [of_paper[kind] for kind in ("fail", "ground", "space", "hybrid")] == [12, 476, 5507, 0]
    assert report["split_distance_km"]["found"] == pytest.approx(155, abs=1)
    assert report["comparison"]["worse"] == 0
    better = fixed(tmp_path / "b", "source_werner=0.995", "memory_werner=0.995").report
    assert better["routers"]["paper"]["threshold"]["distance_km"] == pytest.approx(489, abs=15)
    assert better["split_distance_km"]["found"] == pytest.approx(150, abs=1)


def test_every_file_says_what_its_numbers_are_worth(tmp_path: Path) -> None:
    outcome = day(tmp_path / "day", write_six(tmp_path))
    assert outcome.report["label"] == LABEL
    assert "SYNTHETIC" in outcome.report["weather"]
    written = json.loads((outcome.folder / "report.json").read_text())
    assert written == json.loads(json.dumps(outcome.report))
    for path in outcome.folder.glob("*.csv"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("#")
        assert LABEL in first
        assert "SYNTHETIC" in first
    assert sorted(path.name for path in outcome.folder.iterdir()) == [
        *("kinds.csv", "minutes.csv", "pairs.csv", "report.json"),
    ]


def test_same_seed_same_day(tmp_path: Path) -> None:
    cities = write_six(tmp_path)
    first = day(tmp_path / "a", cities, seed=3)
    again = day(tmp_path / "b", cities, seed=3)
    other = day(tmp_path / "c", cities, seed=4)
    for name in ("pairs.csv", "minutes.csv", "kinds.csv", "report.json"):
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert (first.folder / "minutes.csv").read_bytes() != (
        other.folder / "minutes.csv"
    ).read_bytes()


def test_day_adds_up(tmp_path: Path) -> None:
    outcome = day(tmp_path / "day", write_six(tmp_path), router="safe")
    pairs, minutes, kinds = (outcome.tables[name] for name in ("pairs", "minutes", "kinds"))
    safe = outcome.report["routers"]["safe"]
    by_kind = ["key_bits_ground", "key_bits_space", "key_bits_hybrid"]
    assert pairs[by_kind].to_numpy().sum() == pytest.approx(safe["key_bits"])
    assert sum(safe["share_of_time"].values()) == pytest.approx(1)
    steps = [f"steps_{kind}" for kind in ("ground", "space", "hybrid", "fail")]
    assert (pairs[steps].sum(axis=1) == 72).all()
    assert (kinds[["ground", "space", "hybrid", "fail"]].sum(axis=1) == 15).all()
    # The watched pair, from its own series and from the table of all pairs.
    watched = outcome.report["watched"][0]
    assert watched["pair"] == "Madrid–Warsaw"
    row = pairs[(pairs["a"] == "Madrid") & (pairs["b"] == "Warsaw")].iloc[0]
    assert watched["key_bits"] == pytest.approx(row[by_kind].sum())
    assert watched["key_bits"] == pytest.approx(minutes["skp"].sum() * 10e9 * 1200)
    # The files tell instants apart.
    for name in ("minutes", "kinds"):
        written = pd.read_csv(outcome.folder / f"{name}.csv", comment="#")
        assert written["unix_s"].tolist() == outcome.tables[name]["unix_s"].tolist()
    in_sight = minutes["satellite"] >= 0
    assert minutes["weather_loss_dB"].notna().equals(in_sight)
    assert 0 < in_sight.mean() < 1


def test_a_leap_year_day_by_day(tmp_path: Path) -> None:
    options = HybridOptions(
        cities=write_six(tmp_path),
        out=tmp_path / "year",
        weather=("winter",),
        plots=False,
        workers=1,
    )
    outcome = run_day(options, "5", [], days=366, step_min=1440, reporter=Quiet())
    assert len(outcome.tables["kinds"]) == 366
    assert outcome.tables["kinds"]["unix_s"].iloc[-1] == setup.start_s("2024-12-31")


def test_no_satellites_is_the_fibre_network(tmp_path: Path) -> None:
    options = HybridOptions(
        cities=write_six(tmp_path), out=tmp_path / "none", plots=False, workers=1
    )
    outcome = run_day(options, "0", [PAIR], step_min=240, reporter=Quiet())
    found = outcome.report["routers"]["safe"]
    assert outcome.report["satellites"] == 0
    assert found["key_bits_by_kind"]["space"] == found["key_bits_by_kind"]["hybrid"] == 0
    assert found["key_bits"] > 0
    assert found["threshold"]["distance_km"] is None
    assert found["threshold"]["reason"]


def test_cities_on_top_of_each_other_are_named(tmp_path: Path) -> None:
    path = tmp_path / "close.csv"
    path.write_text(
        "name,country,lat,lon,population\nA,DE,50,10,1\nB,DE,50.005,10,1\nC,DE,52,10,1\n"
    )
    with pytest.raises(InputError, match=r"close\.csv: A and B are 0\.556 km apart.*at least 1 km"):
        setup.network(HybridOptions(cities=path))


def open_meteo(hours: int, **columns: Sequence[float]) -> dict[str, object]:
    units = {"cloud_cover": "%", "visibility": "m", "diffuse_radiation": "W/m²"}
    return {
        "latitude": 48.85,
        "longitude": 2.35,
        "utc_offset_seconds": 0,
        "hourly_units": {"time": "iso8601", **{name: units[name] for name in columns}},
        "hourly": {
            "time": [f"2024-01-{1 + hour // 24:02d}T{hour % 24:02d}:00" for hour in range(hours)],
            **columns,
        },
    }


def test_weather_without_visibility_is_used_and_said(tmp_path: Path) -> None:
    cities = tmp_path / "two.csv"
    cities.write_text(
        "name,country,lat,lon,population\nParis,FR,48.85,2.35,1\nVersailles,FR,48.8,2.1,1\n"
    )
    file = tmp_path / "weather.json"
    file.write_text(json.dumps(open_meteo(25, cloud_cover=[40.0] * 25)))
    options = HybridOptions(
        cities=cities, weather=(str(file),), out=tmp_path / "day", plots=False, workers=1
    )
    report = run_day(options, "5", step_min=60, reporter=Quiet()).report
    assert "SYNTHETIC" not in report["weather"]
    assert any("visibility" in note for note in report["notes"])
    file.write_text(json.dumps(open_meteo(25, visibility=[1e4] * 25)))
    with pytest.raises(InputError, match=r"weather\.json.*cloud"):
        run_day(options, "5", step_min=60, reporter=Quiet())


def test_filter_trades_signal_for_stray_light(tmp_path: Path) -> None:
    outcome = run_filter(HybridOptions(out=tmp_path / "f", plots=False), reporter=Quiet())
    table, report = outcome.tables["filter"], outcome.report
    by_day = table[(table["irradiance_W_m2"] == 100) & (table["pointing_urad"] == 1)]
    assert by_day["field_of_view_urad"].is_monotonic_increasing
    assert by_day["signal_efficiency"].is_monotonic_increasing
    assert by_day["stray_rate_hz"].is_monotonic_increasing
    assert by_day["bsm_fidelity"].is_monotonic_decreasing
    # A wider field quadruples the sky: the same sky, twice the angle.
    ratio = by_day["stray_rate_hz"] / by_day["field_of_view_urad"] ** 2
    assert np.allclose(ratio, ratio.iloc[0])
    as_set, best = report["as_set"], report["best_at_own_pointing"]
    # The reconstruction's vector: 100 W/m2 at 50 urad is 5.096746e6 photons a second.
    assert as_set["stray_rate_hz"] == pytest.approx(5.096746e6, rel=1e-6)
    assert best["field_of_view_urad"] < as_set["field_of_view_urad"]
    assert best["skp"] > as_set["skp"]
    night = table[(table["irradiance_W_m2"] == 0)]
    assert (night["bsm_fidelity"] == 1).all()


def test_slant_range_overhead_and_at_the_horizon() -> None:
    assert slant_range_km(700.0, 90.0) == pytest.approx(700.0)
    assert slant_range_km(700.0, 1e-9) == pytest.approx((7071**2 - 6371**2) ** 0.5, rel=1e-6)


def test_fleets_of_a_small_network(tmp_path: Path) -> None:
    options = HybridOptions(
        cities=write_six(tmp_path), out=tmp_path / "c", plots=False, router="safe", workers=1
    )
    outcome = run_constellation(
        options,
        (0, 2, 12),
        (1,),
        step_min=60,
        cost_per_satellite=5,
        cost_fixed=10,
        reporter=Quiet(),
    )
    table = outcome.tables["constellation"]
    assert table["satellites"].tolist() == [0, 2, 12]
    assert table["cost"].tolist() == [0, 20, 70]
    assert table["key_bits_by_satellites"].iloc[0] == 0
    assert table["key_bits"].is_monotonic_increasing
    assert outcome.report["rows"][0]["cost_per_Tbit"] is None


def test_costs_by_hand() -> None:
    table = pd.DataFrame(
        {
            "planes": [1, 1, 1, 5],
            "satellites": [4, 1, 2, 2],
            "threshold_km": [450.0, 500.0, 510.0, 480.0],
            "key_bits": [9e12, 5e12, 7e12, 7e12],
            "key_bits_by_satellites": [8e12, 4e12, 6e12, 6e12],
        }
    )
    found = with_costs(table, per_satellite=3.0, fixed=2.0)
    assert found["cost"].tolist() == [5, 8, 14, 8]
    assert found["cost_per_Tbit"].tolist() == [5 / 4, 8 / 6, 14 / 8, 8 / 6]
    assert found["cost_per_extra_Tbit"].iloc[1:3].tolist() == [3 / 2, 6 / 2]
    assert found["cost_per_km"].iloc[2] == 6 / 60
    # The first of its planes has nothing to be compared with; a threshold that rose is no gain.
    assert found["cost_per_km"].isna().tolist() == [True, True, False, True]


def test_from_how_many_satellites_on_they_do_as_well_as_one_at_rest() -> None:
    assert reaches([5, 10, 20, 30], [500, 440, 445, 430], 424.0) == 10
    assert reaches([5, 10, 20, 30], [500, 440, 455, 430], 424.0) == 30
    assert reaches([5, 10], [500, 460], 424.0) is None
    assert reaches([5, 10], [None, None], 424.0) is None
    assert reaches([5], [400], None) is None


def test_constellations_in_words() -> None:
    assert setup.constellation("fixed") == FixedSatellite()
    assert setup.constellation("fixed:50,10,500") == FixedSatellite(50, 10, 500)
    assert setup.constellation("25/5") == Walker(25, 5)
    assert setup.constellation("8@550,53") == Walker(8, 1, 550, 53)
    assert setup.constellation("delta:24/3@1200,53") == Walker(24, 3, 1200, 53, "delta")
    assert isinstance(setup.constellation("tle:jinan1-a"), ElementSets)
    for text in ("", "x", "25/", "25/x", "wheel:25", "fixed:1,2", "25@a", "25@1,2,3"):
        with pytest.raises(InputError, match="constellation"):
            setup.constellation(text)


def test_changes_of_parameters_keep_their_kind() -> None:
    changed = setup.parameters(
        [
            "receiver_m=0.8",
            "spatial_filter=true",
            "ground_powers=1,1,1",
            "max_segments=7",
            "car_model=one_sided",
        ]
    )
    assert (changed.receiver_m, changed.spatial_filter, changed.max_segments) == (0.8, True, 7)
    assert (changed.ground_powers, changed.car_model) == ((1, 1, 1), "one_sided")
    for bad in (
        "receiver_m",
        "receiver_m=x",
        "spatial_filter=2",
        "max_segments=1.5",
        "nothing=1",
        "car_model=x",
    ):
        with pytest.raises(InputError):
            setup.parameters([bad])


def test_pairs_in_words() -> None:
    net = setup.network(HybridOptions())

    def ends(text: str) -> set[str]:
        number = setup.pair(net, text)
        return {net.cities[net.first[number]].name, net.cities[net.second[number]].name}

    assert ends("Madrid-Warsaw") == ends("warsaw - MADRID") == {"Madrid", "Warsaw"}
    assert ends("Zürich-Cluj-Napoca") == ends("Cluj-Napoca-Zürich") == {"Zürich", "Cluj-Napoca"}
    assert ends("zurich-Koln") == ends("Zürich-Köln") == {"Zürich", "Köln"}
    for text in ("Madrid", "Madrid-", "Madrid-Atlantis", "Madrid-Madrid"):
        with pytest.raises(InputError):
            setup.pair(net, text)


def test_amounts_of_bits_for_people() -> None:
    assert [setup.bits(n) for n in (0.0, 999.0, 1e3, 51.5e6, 3.72e16)] == [
        *("0 bit", "999 bit", "1 kbit", "51.5 Mbit", "37.2 Pbit"),
    ]
