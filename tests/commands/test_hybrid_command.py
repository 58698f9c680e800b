"""`qntn hybrid`: options, JSON, tables, and one line with status 2 for what cannot be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from experiments import hybrid_filter
from experiments.cli_hybrid import app
from quantum.repeaters import weather_fetch
from quantum.repeaters.parameters import LABEL
from tests.command_line import command_line
from tests.hybrid_cities import PAIR, write_six


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("fixed", "--pair", PAIR),
        ("day", "--constellation", "10/2", "--step-min", "240", "--pair", PAIR, "--workers", "1"),
        (
            "constellation",
            "--satellites",
            "0,4-5",
            "--planes",
            "1",
            "--step-min",
            "480",
            "--workers",
            "1",
        ),
    ],
    ids=lambda arguments: arguments[0],
)
def test_tables_and_json_carry_the_label(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    common = [*arguments, "--cities", str(write_six(tmp_path)), "--no-plots"]
    table = run(*common, "--out", str(tmp_path / "a"))
    assert table.exit_code == 0, table.output
    assert LABEL in table.stdout
    assert "SYNTHETIC" in table.stdout
    machine = run(*common, "--out", str(tmp_path / "b"), "--json")
    assert machine.exit_code == 0, machine.output
    found = json.loads(machine.stdout)
    assert found["label"] == LABEL
    assert found["experiment"] == arguments[0]
    assert Path(found["folder"]) == tmp_path / "b"


def test_links_without_key_are_a_result(tmp_path: Path) -> None:
    bad = ("fixed", "--set", "source_werner=0.5", "--cities", str(write_six(tmp_path)))
    result = run(*bad, "--out", str(tmp_path / "bad"))
    assert result.exit_code == 0, result.output
    assert "no pair's fibre is cut in two; closed form never" in result.stdout
    report = json.loads((tmp_path / "bad" / "report.json").read_text(encoding="utf-8"))
    assert report["split_distance_km"] == {"closed_form": None, "found": None}
    assert report["routers"]["safe"]["fail"] == 15


def test_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_filter, "POINTINGS_URAD", np.array([0.3, 3.0]))
    result = run("filter", "--irradiance", "0", "--no-plots", "--out", str(tmp_path / "f"))
    assert result.exit_code == 0, result.output
    assert LABEL in result.stdout
    assert "best field of view" in result.stdout


def test_numbers_of_satellites(tmp_path: Path) -> None:
    result = run(
        *(
            "constellation",
            "--cities",
            str(write_six(tmp_path)),
            "--satellites",
            "1,3-5",
            "--planes",
            "2",
        ),
        *(
            "--step-min",
            "720",
            "--no-plots",
            "--json",
            "--out",
            str(tmp_path / "c"),
            "--workers",
            "1",
        ),
    )
    assert [row["satellites"] for row in json.loads(result.stdout)["rows"]] == [1, 3, 4, 5]


def test_fetched_weather_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cities = tmp_path / "two.csv"
    cities.write_text("name,country,lat,lon,population\nA,FR,48.8,2.3,1\nB,FR,48.8,4.3,1\n")

    def answer(url: str) -> io.BytesIO:
        assert "start_date=2024-03-01&end_date=2024-03-02" in url
        hours = [f"2024-03-{1 + h // 24:02d}T{h % 24:02d}:00" for h in range(48)]
        place = {
            "utc_offset_seconds": 0,
            "hourly_units": {"cloud_cover": "%", "visibility": "m", "diffuse_radiation": "W/m²"},
            "hourly": {
                "time": hours,
                "cloud_cover": [30] * 48,
                "visibility": [20_000] * 48,
                "diffuse_radiation": [0] * 48,
            },
        }
        places = [{"latitude": 48.8, "longitude": lon, **place} for lon in (2.3, 4.3)]
        return io.BytesIO(json.dumps(places).encode())

    monkeypatch.setattr(weather_fetch, "_open", answer)
    file = tmp_path / "weather.json"
    fetched = run("fetch-weather", str(file), "--first", "2024-03-01", "--cities", str(cities))
    assert fetched.exit_code == 0, fetched.output
    assert "weather of 2 places" in fetched.stdout
    day = run(
        *("day", "--weather", str(file), "--date", "2024-03-01", "--cities", str(cities), "--json"),
        *("--step-min", "60", "--constellation", "5", "--no-plots", "--out", str(tmp_path / "day")),
        *("--workers", "1"),
    )
    assert day.exit_code == 0, day.output
    assert "SYNTHETIC" not in json.loads(day.stdout)["weather"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fixed", "--pair", "Madrid-Atlantis"], "city 'Atlantis'"),
        (["fixed", "--set", "receiver_m=x"], "--set receiver_m=x: must be like 1.0"),
        (["fixed", "--weather", "no.json"], "no such file, and no climate"),
        (["fixed", "--weather", "mid", "--weather", "no.json"], "a climate stands alone"),
        (["day", "--date", "soon"], "--date soon: a date"),
        (["day", "--step-min", "0"], "at least one step"),
        (["day", "--days", "inf"], "at least one step"),
        (["day", "--constellation", "-1"], "-1 satellites: 0 or more"),
        (["constellation", "--satellites", "few"], "--satellites few: whole numbers"),
        (["constellation", "--cost-per-satellite", "-1"], "must be 0 or more"),
        (["constellation", "--cost-fixed", "inf"], "must be 0 or more"),
        (["filter", "--elevation-deg", "0"], "--elevation-deg 0"),
        (["filter", "--irradiance", "inf"], "--irradiance must be"),
        (["sweep", "--vary", "receiver_m"], "--vary receiver_m"),
        (["fetch-weather", "w.json", "--first", "soon"], "--first soon: a date"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = command_line(monkeypatch, capsys, "hybrid")(*arguments)
    assert code == 2
    assert error.startswith("qntn: ")
    assert error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())
