"""Files of weather services: what is read, what is forgiven, what is refused and how. No network."""

from __future__ import annotations

import json
from datetime import date
from email.message import Message
from http.client import IncompleteRead
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from quantum.repeaters.cities import City, read_cities
from quantum.repeaters.weather_fetch import fetch, main, request_url
from quantum.repeaters.weather_files import read_weather
from topo.errors import FeatureMissing, InputError

BERLIN = City("Berlin", "DE", 52.52437, 13.41053)
PARIS = City("Paris", "FR", 48.85341, 2.3488)
NEW_YEAR_S = 1_704_067_200.0


def open_meteo(city: City = BERLIN, hours: int = 24, **hourly: Any) -> dict[str, Any]:
    """An answer in the form that the service gives, 1 January 2024; a value of None leaves a field out."""
    times = [f"2024-01-{1 + h // 24:02}T{h % 24:02}:00" for h in range(hours)]
    columns: dict[str, Any] = {
        "time": times,
        "cloud_cover": [(7 * h) % 101 for h in range(hours)],
        "visibility": [1000.0 * (h + 1) for h in range(hours)],
        "diffuse_radiation": [float(max(0, 80 - 10 * abs(h - 12))) for h in range(hours)],
    }
    columns = {name: column for name, column in (columns | hourly).items() if column is not None}
    return {
        "latitude": round(city.latitude_deg, 1),
        "longitude": round(city.longitude_deg, 1),
        "generationtime_ms": 0.1,
        "utc_offset_seconds": 0,
        "timezone": "GMT",
        "timezone_abbreviation": "GMT",
        "elevation": 38.0,
        "hourly_units": {"time": "iso8601", "cloud_cover": "%", "visibility": "m"},
        "hourly": columns,
    }


def visual_crossing(city: City = BERLIN) -> dict[str, Any]:
    hours = [
        {
            "datetime": f"{h:02}:00:00",
            "datetimeEpoch": int(NEW_YEAR_S) - 3600 + 3600 * h,
            "cloudcover": 4.0 * h,
            "visibility": 10.0,
            "solarradiation": 5.0,
        }
        for h in range(24)
    ]
    return {
        "latitude": city.latitude_deg,
        "longitude": city.longitude_deg,
        "tzoffset": 1.0,
        "days": [{"datetime": "2024-01-01", "hours": hours}],
    }


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: Any, name: str = "weather.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_one_place_of_open_meteo(written: Any) -> None:
    weather = read_weather(written(open_meteo()), [BERLIN])
    assert weather.unix_s[0] == NEW_YEAR_S
    assert weather.cloud[:3, 0] == pytest.approx([0, 0.07, 0.14])
    assert weather.visibility_km[:3, 0] == pytest.approx([1, 2, 3])
    assert weather.notes == ()
    assert "weather.json" in weather.description
    assert "SYNTHETIC" not in weather.description
    # Radiation is the mean of the hour before: 80 W/m2 at half past eleven.
    assert weather.at(np.array([NEW_YEAR_S + 11.5 * 3600])).irradiance_W_m2 == pytest.approx(80)


def test_several_places_of_open_meteo_go_to_their_cities(written: Any) -> None:
    paris = open_meteo(PARIS, cloud_cover=[100] * 24) | {"location_id": 1}
    path = written([open_meteo(), paris])
    weather = read_weather(path, [PARIS, BERLIN])
    assert weather.cloud[1] == pytest.approx([1.0, 0.07])
    assert weather.cities == (PARIS, BERLIN)
    two_files = [written(open_meteo(), "a.json"), written(paris, "b.json")]
    assert np.array_equal(read_weather(two_files, [PARIS, BERLIN]).cloud, weather.cloud)


def test_the_old_spelling_and_local_times(written: Any) -> None:
    content = open_meteo(cloud_cover=None, cloudcover=[50] * 24) | {"utc_offset_seconds": 3600}
    weather = read_weather(written(content), [BERLIN])
    assert np.all(weather.cloud == 0.5)
    assert weather.unix_s[0] == NEW_YEAR_S - 3600


def test_unix_times_are_utc_in_any_zone(written: Any) -> None:
    content = open_meteo(time=[int(NEW_YEAR_S) + 3600 * h for h in range(24)])
    content |= {"utc_offset_seconds": 3600, "hourly_units": {"time": "unixtime"}}
    assert read_weather(written(content), [BERLIN]).unix_s[0] == NEW_YEAR_S


def test_a_reanalysis_without_visibility_is_taken_for_clear_air(written: Any) -> None:
    weather = read_weather(written(open_meteo(visibility=None)), [BERLIN])
    assert np.all(weather.visibility_km == 23)
    [note] = weather.notes
    assert "weather.json: visibility: missing; 23 km" in note
    hazy = read_weather(written(open_meteo(visibility=None)), [BERLIN], default_visibility_km=8.0)
    assert np.all(hazy.visibility_km == 8)


def test_nulls_are_interpolated_if_few(written: Any) -> None:
    cloud: list[float | None] = [10.0] * 24
    cloud[3:5] = [None, None]
    cloud[5] = 40.0
    weather = read_weather(written(open_meteo(cloud_cover=cloud)), [BERLIN])
    assert weather.cloud[2:6, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert "hourly.cloud_cover: 2 missing values interpolated" in weather.notes[0]


def test_a_visibility_of_nulls_is_as_good_as_none(written: Any) -> None:
    weather = read_weather(written(open_meteo(visibility=[None] * 24)), [BERLIN])
    assert np.all(weather.visibility_km == 23)
    assert "24 values missing in a row, none of it used" in weather.notes[0]


def test_visibilities_are_clipped(written: Any) -> None:
    weather = read_weather(written(open_meteo(visibility=[0.0] + [1e6] * 23)), [BERLIN])
    assert weather.visibility_km[:2, 0].tolist() == [0.05, 100]


def test_missing_radiation_is_modelled(written: Any) -> None:
    weather = read_weather(
        written(open_meteo(diffuse_radiation=None, cloud_cover=[0] * 24)), [BERLIN]
    )
    assert weather.irradiance_W_m2 is None
    assert "radiation: missing; modelled" in weather.notes[0]
    assert weather.at(NEW_YEAR_S + 3600.0 * np.array([0.0, 12.0])).irradiance_W_m2[1, 0] > 20
    total = open_meteo(diffuse_radiation=None, shortwave_radiation=[7.0] * 24)
    taken = read_weather(written(total), [BERLIN])
    assert taken.irradiance_W_m2 is not None
    assert "shortwave_radiation taken for it" in taken.notes[0]


def test_a_leap_day_is_a_day(written: Any) -> None:
    times = [f"2024-02-29T{h:02}:00" for h in range(24)]
    weather = read_weather(written(open_meteo(time=times)), [BERLIN])
    assert weather.unix_s[0] == NEW_YEAR_S + 59 * 86_400


def test_visual_crossing(written: Any) -> None:
    weather = read_weather(written(visual_crossing()), [BERLIN])
    assert weather.unix_s[0] == NEW_YEAR_S - 3600  # midnight in Berlin
    assert weather.cloud[:3, 0] == pytest.approx([0, 0.04, 0.08])
    assert np.all(weather.visibility_km == 10)
    without_epochs = visual_crossing()
    for hour in without_epochs["days"][0]["hours"]:
        del hour["datetimeEpoch"]
    same = read_weather(written(without_epochs), [BERLIN])
    assert np.array_equal(same.unix_s, weather.unix_s)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (open_meteo(cloud_cover=None), "hourly.cloud_cover: missing: fetch it again"),
        (open_meteo(time=None), "hourly.time: missing"),
        (open_meteo(cloud_cover=[None] * 24), "hourly.cloud_cover: 24 values missing in a row"),
        (open_meteo(cloud_cover=[1] * 23), "for each of the 24 hours"),
        (open_meteo(cloud_cover=["much"] * 24), "not only numbers"),
        (open_meteo(cloud_cover=[150] * 24), "from 0 to 100 per cent"),
        (open_meteo(time=["yesterday"] * 24), "as 2024-02-29T23:00"),
        (open_meteo(time=["2024-01-01T00:00"] * 24), "its hours must rise"),
        (open_meteo() | {"latitude": None}, "latitude: missing"),
        (open_meteo() | {"hourly_units": {"visibility": "miles"}}, "m, km or ft"),
        (open_meteo() | {"hourly_units": []}, "hourly_units"),
        (open_meteo() | {"hourly_units": {"visibility": ["m"]}}, "m, km or ft"),
        (open_meteo(cloud_cover=[[1]] * 24), "hourly.cloud_cover: not only numbers"),
        (open_meteo(cloud_cover=[10**400] * 24), "hourly.cloud_cover: not only numbers"),
        (open_meteo(visibility=[-5.0] * 24), "visibility: below 0"),
        (open_meteo(time=[f"2024-01-01T{h:02}:00+05:00" for h in range(24)]), "time zone"),
        (visual_crossing() | {"days": [{"hours": [7]}]}, "days[0].hours: not only objects"),
        (open_meteo() | {"utc_offset_seconds": "one"}, "utc_offset_seconds"),
        ({"error": True, "reason": "Daily limit exceeded"}, "Daily limit exceeded"),
        ({"latitude": 1, "longitude": 2}, "hourly: missing: ask Open-Meteo for"),
        ([open_meteo(), 7], "[1]: an object should be here"),
        ("sunny", "an object should be here"),
        ([], "no weather file"),
        (visual_crossing() | {"days": [{"datetime": "2024-01-01"}]}, "days[0].hours: missing"),
        (visual_crossing() | {"days": 3}, "days[0].hours: missing"),
        (open_meteo(PARIS), "km from the nearest weather: fetch it for 52.5244, 13.4105"),
        (open_meteo(PARIS), "Berlin is 87"),
    ],
)
def test_bad_files_are_one_clear_line(content: Any, message: str, written: Any) -> None:
    path = written(content)
    with pytest.raises(InputError) as refused:
        read_weather(path, [BERLIN])
    text = str(refused.value)
    assert message in text
    assert "\n" not in text
    assert str(path) in text or content == []


def test_visual_crossing_without_clouds_is_refused(written: Any) -> None:
    content = visual_crossing()
    for hour in content["days"][0]["hours"]:
        del hour["cloudcover"]
    with pytest.raises(InputError, match="cloudcover: missing: fetch it again with elements"):
        read_weather(written(content), [BERLIN])


def test_files_of_different_days_are_refused(written: Any) -> None:
    other = open_meteo(PARIS, time=[f"2024-01-02T{h:02}:00" for h in range(24)])
    with pytest.raises(InputError, match="other hours than"):
        read_weather(written([open_meteo(), other]), [BERLIN, PARIS])


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weather.json"
    with pytest.raises(InputError, match="cannot be read"):
        read_weather(path, [BERLIN])
    for content in (b"<html>", b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no JSON"):
            read_weather(path, [BERLIN])


def test_fetched_weather_is_what_can_be_read(tmp_path: Path) -> None:
    cities = read_cities()[:60]
    asked: list[str] = []

    def service(url: str) -> IO[bytes]:
        asked.append(url)
        query = parse_qs(urlsplit(url).query)
        places = zip(query["latitude"][0].split(","), query["longitude"][0].split(","), strict=True)
        answers = [open_meteo(City("", "", float(lat), float(lon)), 48) for lat, lon in places]
        return BytesIO(json.dumps(answers).encode())

    path = tmp_path / "weather.json"
    day = date(2024, 1, 1)
    assert fetch(cities, day, day, path, opener=service) == 60
    assert len(asked) == 2
    assert "start_date=2024-01-01&end_date=2024-01-02" in asked[0]
    assert "visibility" in asked[0]
    assert "timezone=GMT" in asked[0]
    weather = read_weather(path, cities)
    assert weather.at(NEW_YEAR_S + 60.0 * np.arange(1440)).cloud.shape == (1440, 60)


def test_one_city_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "weather.json"
    answer = json.dumps(open_meteo()).encode()
    day = date(2024, 1, 1)
    assert fetch([BERLIN], day, day, path, opener=lambda _: BytesIO(answer)) == 1
    assert read_weather(path, [BERLIN]).cities == (BERLIN,)
    assert request_url([BERLIN], day, day).count(",") == 8  # between fields only


def test_a_service_that_refuses_or_is_away_is_one_clear_line(tmp_path: Path) -> None:
    day = date(2024, 1, 1)
    path = tmp_path / "weather.json"

    def refuses(url: str) -> IO[bytes]:
        body = BytesIO(b'{"error": true, "reason": "end_date is in the future"}')
        raise HTTPError(url, 400, "Bad Request", Message(), body)

    def is_away(url: str) -> IO[bytes]:
        raise URLError("Name or service not known")

    with pytest.raises(InputError, match=r"400.*end_date is in the future"):
        fetch([BERLIN], day, day, path, opener=refuses)
    with pytest.raises(FeatureMissing, match=r"a way to .*Fetch where there is a network"):
        fetch([BERLIN], day, day, path, opener=is_away)

    def breaks_off(url: str) -> IO[bytes]:
        raise IncompleteRead(b"[{")

    def never_answers(url: str) -> IO[bytes]:
        raise TimeoutError("timed out")

    for broken in (breaks_off, never_answers):
        with pytest.raises(FeatureMissing, match=r"a way to .*Fetch where there is a network"):
            fetch([BERLIN], day, day, path, opener=broken)
    with pytest.raises(InputError, match="something else than JSON"):
        fetch([BERLIN], day, day, path, opener=lambda _: BytesIO(b"<html>"))
    with pytest.raises(InputError, match="2 places in the answer, 1 asked for"):
        fetch([BERLIN], day, day, path, opener=lambda _: BytesIO(b"[{}, {}]"))
    with pytest.raises(InputError, match="after the last"):
        fetch([BERLIN], day, date(2023, 1, 1), path, opener=is_away)
    with pytest.raises(InputError, match="no day after"):
        fetch([BERLIN], day, date.max, path, opener=is_away)
    with pytest.raises(InputError, match="no folder"):  # before the service is asked
        fetch([BERLIN], day, day, tmp_path / "none" / "weather.json", opener=is_away)
    assert not path.exists()


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "2024-01-01",
        "2024-01-01",
        str(tmp_path / "w"),
        "--cities",
        str(tmp_path / "none"),
    ]
    assert main(arguments) == 2
    assert "cannot be read" in capsys.readouterr().err
