"""`qntn passes`: the nights of the paper, what is said of bad input, and what is drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from experiments import cli, pass_plots
from experiments.passes import (
    PAPER_STATIONS,
    PassOptions,
    best_pass,
    list_passes,
    parse_clouds,
    parse_station,
)
from topo.errors import InputError
from topo.space.clouds import DEFAULT_PERSISTENCE, CloudModel
from topo.space.sky import NIGHT_SUN_DEG
from topo.space.stations import Station


def qntn(*arguments: str | Path) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["passes", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(qntn(*arguments, "--json"))["passes"]
    return found


def test_by_default_both_nights_of_the_paper_and_who_docks() -> None:
    """Beijing on 22 November 2024, Shanghai on the 29th (section 4); each time the other has to wait (section 5)."""
    text = qntn()
    assert "22:40:01  22:47:29  448    77.9°" in text
    assert "22:24:05  22:31:31  446    84.8°" in text
    by_night = {one["night"]: [] for one in listed() if one["dark"]}  # type: dict[str, list[dict[str, Any]]]
    for one in listed():
        if one["dark"]:
            by_night[one["night"]].append(one)
    for night, winner in (("2024-11-22", "Beijing"), ("2024-11-29", "Shanghai")):
        [granted] = [one for one in by_night[night] if one["granted"]]
        [refused] = [one for one in by_night[night] if not one["granted"]]
        assert granted["station"] == winner
        assert granted["rivals"] == [refused["station"]]
        assert refused["winners"] == [winner]


def test_the_defaults_of_the_command_are_those_of_the_models() -> None:
    report = json.loads(qntn("--night", "2024-11-22", "--clear-sky", "0.5", "--json"))
    assert report["sun_below_deg"] == NIGHT_SUN_DEG
    assert report["clouds"] == CloudModel(1, 0.5, DEFAULT_PERSISTENCE).describe()
    assert report["mask_deg"] == PassOptions().mask_deg


def test_a_night_is_that_of_each_station() -> None:
    nights = listed("--night", "2024-11-22", "--station", "W=20,-156", "--station", "E=40,116.5")
    assert {one["night"] for one in nights} == {"2024-11-22"}
    assert {one["station"] for one in nights} == {"W", "E"}
    assert any(one["aos"] > "2024-11-23T06" for one in nights if one["station"] == "W")


def test_daylight_is_counted_and_listed_only_if_asked_for() -> None:
    assert "5 in daylight are not listed" in qntn("--night", "2024-11-22")
    text = qntn("--night", "2024-11-22", "--daylight")
    assert "not listed" not in text
    assert text.count(" daylight ") == 5


def test_a_rule_and_a_cloud_decide_otherwise() -> None:
    def winner(*arguments: str) -> list[str]:
        night = listed("--night", "2024-11-22", *arguments)
        return [one["station"] for one in night if one["granted"]]

    assert winner() == ["Beijing"]
    order = ("--station", "Shanghai=31.1,121.5", "--station", "Beijing=40.1,116.5,44")
    assert winner(*order, "--rule", "order") == ["Shanghai"]
    assert winner("--clear-sky", "1", "--clear-sky", "Beijing=0") == ["Shanghai"]
    assert winner("--clear-sky", "0") == []
    assert "cloud is ASSUMED" in qntn("--night", "2024-11-22", "--clear-sky", "0.5")
    assert winner("--sun-deg", "-70") == ["Shanghai"]


def test_times_are_in_the_zone_asked_for_and_utc_for_machines() -> None:
    assert "14:40:01  14:47:29" in qntn("--night", "2024-11-22", "--utc-offset", "0")
    [beijing] = [one for one in listed("--night", "2024-11-22") if one["granted"]]
    assert beijing["aos"].startswith("2024-11-22T14:40:0")
    assert beijing["aos"].endswith("Z")
    begin = listed(
        "--from", "2024-11-22T22:43", "--days", "0.001", "--station", "Beijing=40.1,116.5"
    )
    assert [one["culmination"][:16] for one in begin] == ["2024-11-22T14:43"]


def test_several_satellites_compete_for_a_station_too() -> None:
    night = listed(
        "--night", "2024-11-22", "--tle", "jinan1-a", "--tle", "jinan1-b",
        "--station", "Beijing=40.1,116.5,44",
    )  # fmt: skip
    dark = [one for one in night if one["dark"]]
    assert [one["satellite"][:9] for one in dark] == ["JINAN-1 A", "JINAN-1 B"]
    assert [one["granted"] for one in dark] == [False, True]
    assert dark[0]["winners"] == ["JINAN-1 B (SYNTHETIC)"]


def shipped(name: str) -> str:
    return (Path(cli.__file__).parents[1] / "topo" / "orbits" / f"{name}.tle").read_text("ascii")


BAD = {
    "epoch": (("--from", "2025-11-22"), r"2024-11-22, and 2025-11-29 is 372 days from that.*allow"),
    "inside the Earth": (("--station", "X=40,116,-6378000"), "station X: altitude .* inside the E"),
    "latitude": (("--station", "X=95,116"), "station X: latitude 95: degrees from -90 to 90"),
    "station form": (("--station", "X=40"), "station 'X=40': a name, then degrees"),
    "two of a name": (("--station", "X=40,1", "--station", "X=41,1"), "two of the name X"),
    "same satellite twice": (("--tle", "jinan1-a", "--tle", "jinan1-a"), "two of the name JINAN"),
    "no such elements": (("--tle", "nothing.tle"), "nothing.tle: no such file, nor a shipped"),
    "night": (("--night", "22.11.2024"), "--night 22.11.2024: a date such as 2024-11-22"),
    "night and days": (("--night", "2024-11-22", "--days", "3"), "exclude each other"),
    "time": (("--from", "soon"), "time 'soon': a date or time"),
    "mask": (("--mask-deg", "90"), "elevation mask 90"),
    "share": (("--clear-sky", "often"), "clear-sky probability 'often'"),
    "share of a stranger": (("--clear-sky", "Rome=0.5"), "of Rome: the stations are Beijing, Sh"),
    "persistence": (("--persistence", "1"), "persistence of clouds 1: from 0 to below 1"),
    "no days": (("--days", "0"), "no time between"),
    "no such year": (("--from", "9999-12-31"), "year 9999: element sets are of 1957 to 2056"),
    "night of no year": (("--night", "0001-01-01"), "year 1: element sets are of 1957 to 2056"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        qntn(*arguments)
    assert "\n" not in str(error.value)


def test_a_wrong_checksum_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.tle"
    path.write_text(shipped("jinan1-a").replace("97.4437", "97.4438"), encoding="ascii")
    with pytest.raises(InputError, match=r"mine\.tle:6: checksum is 2, .* give 3"):
        qntn("--tle", path)


def test_plots_and_json_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    beijing = ("--station", "Beijing=40.1,116.5,44")
    text = qntn("--night", "2024-11-22", *beijing, "--out", folder)
    names = {"passes.json", "sky.png", "sky.svg", "ground-track.png", "ground-track.svg"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(str(folder / name) in text for name in names)
    for name in ("sky.png", "ground-track.png"):
        pixels = imread(folder / name)
        assert min(pixels.shape[:2]) > 500
        assert pixels[..., :3].min() < 0.2  # something is drawn
    assert len(json.loads((folder / "passes.json").read_text("utf-8"))["passes"]) == 3
    with pytest.raises(InputError, match="is not empty"):
        qntn("--night", "2024-11-22", "--out", folder)


def test_a_sky_plot_has_a_panel_a_pass_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pass_plots, "MOST_PASSES", 2)
    found = list_passes(PassOptions(days=2.0))
    usable = [one for one in found.passes if one.is_usable]
    assert len(usable) == 4
    figure = pass_plots.sky_figure(usable, found)
    assert len(figure.axes) == 2
    assert "usable passes above 10°, the first 2 of 4" in figure.get_suptitle()
    assert "granted over Shanghai" in figure.axes[1].get_title()


def test_nothing_to_plot_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        qntn("--from", "2024-11-22T14:30Z", "--days", "0.001", "--out", tmp_path / "x")


def test_the_best_pass_of_a_station_and_a_night() -> None:
    shanghai = PassOptions(stations=PAPER_STATIONS[1:], night=date(2024, 11, 25))
    found = best_pass(shanghai)
    assert found.culmination_deg == pytest.approx(31.2, abs=0.1)  # and not the one of 11.3 degrees
    overcast = PassOptions(
        stations=PAPER_STATIONS[1:], night=date(2024, 11, 25), clouds=CloudModel(1, 0.0)
    )
    with pytest.raises(InputError, match=r"Shanghai in the night of 2024-11-25: .*overcast"):
        best_pass(overcast)
    high = PassOptions(stations=PAPER_STATIONS[1:], night=date(2024, 11, 25), mask_deg=85)
    with pytest.raises(InputError, match="none rises above 85 degrees"):
        best_pass(high)


def test_stations_and_clouds_as_written() -> None:
    assert parse_station("Jinan = 36.65, 117.12 ,30") == Station("Jinan", 36.65, 117.12, 30.0)
    assert parse_clouds((), 0.4, 1) is None
    assert parse_clouds(("0.7", "A=0.2"), 0.3, 9) == CloudModel(9, 0.7, 0.3, {"A": 0.2})


def test_geometry_and_passes_load_neither_skyfield_nor_sgp4_nor_scipy() -> None:
    code = (
        "import sys, topo.space.geometry, topo.space.passes, topo.space.stations, topo.space.tle;"
        "print(sorted({'skyfield', 'sgp4', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
