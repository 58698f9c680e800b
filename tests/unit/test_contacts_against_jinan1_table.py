"""Passes of two synthetic element sets against a table that was computed independently.

The file beside this one was made with skyfield's own search (WGS 84, built-in time scale) and fitted so that both
element sets pass over Beijing in the window of Photonics 12, 1182: 22:40:01 to 22:47:29 UTC+8 on 22 November 2024.
It names no altitudes; its Beijing is 44 m up, the city's altitude, which its ranges show to the centimetre.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topo.space.contacts import Contact, find_all_passes, find_passes
from topo.space.orbit import Satellite
from topo.space.stations import Station
from topo.space.tle import find_tle_file, parse_tles, read_tles

REFERENCE = json.loads(Path(__file__).with_name("jinan1_orbit.json").read_text(encoding="utf-8"))
ALTITUDE_M = {"Beijing": 44.0, "Shanghai": 0.0}
STATIONS = {
    name: Station(name, *place, ALTITUDE_M[name]) for name, place in REFERENCE["sites"].items()
}
ROWS = [(letter, row) for letter in "AB" for row in REFERENCE[letter]["passes"]]


def satellite(letter: str) -> Satellite:
    [tle] = parse_tles("\n".join(REFERENCE[letter]["tle"]), "table")
    return Satellite(tle)


def contact(letter: str, site: str, aos: datetime) -> Contact:
    [found] = find_passes(
        satellite(letter),
        STATIONS[site],
        aos - timedelta(minutes=30),
        aos + timedelta(minutes=30),
        REFERENCE[letter]["mask_deg"],
    )
    return found


@pytest.mark.parametrize(
    ("letter", "row"),
    ROWS,
    ids=[f"{letter} {row['site']} {row['aos'][:10]}" for letter, row in ROWS],
)
def test_every_row(letter: str, row: dict[str, Any]) -> None:
    aos, los = (datetime.fromisoformat(row[name]) for name in ("aos", "los"))
    found = contact(letter, row["site"], aos)
    assert abs((found.aos - aos).total_seconds()) <= 0.5  # the table's are whole seconds
    assert abs((found.los - los).total_seconds()) <= 0.5
    assert found.duration_s == pytest.approx(row["dur_s"], abs=0.01)
    assert found.culmination_deg == pytest.approx(row["max_el"], abs=0.01)
    assert found.aos_azimuth_deg == pytest.approx(row["az_aos"], abs=0.06)
    assert found.los_azimuth_deg == pytest.approx(row["az_los"], abs=0.06)
    assert found.min_range_km == pytest.approx(row["range_min_km"], abs=0.06)
    assert found.aos_range_km == pytest.approx(row["range_aos_km"], abs=0.06)
    assert found.sky.sun_elevation_deg == pytest.approx(row["sun_el"], abs=0.1)
    assert found.sky.moon_elevation_deg == pytest.approx(row["moon_el"], abs=0.1)
    assert found.sky.moon_illumination == pytest.approx(row["moon_illum"], abs=0.006)
    assert found.sky.sunlit_fraction == row["sat_sunlit_frac"]
    assert found.sky.is_dark()


@pytest.mark.parametrize("letter", "AB")
def test_the_profile_over_beijing(letter: str) -> None:
    profile = np.array(REFERENCE[letter]["beijing_profile"])
    found = contact(letter, "Beijing", datetime(2024, 11, 22, 14, 40, 1, tzinfo=UTC))
    instants = found.aos.timestamp() + profile[:, 0]
    _, elevation, distance = found.station.look_at(found.satellite.state(instants)[0])
    # The table counts from its own AOS, which its search gives to some milliseconds; the elevation moves by up to
    # 0.56 degrees a second, the range by 7 km a second.
    np.testing.assert_allclose(elevation, profile[:, 1], atol=0.0005 + 0.003 * 0.56)
    np.testing.assert_allclose(distance, profile[:, 2], atol=0.005 + 0.003 * 7)


def test_the_window_of_the_paper() -> None:
    """Section 4: 22:40:01 to 22:47:29 UTC+8; culmination from the fit."""
    found = contact("A", "Beijing", datetime(2024, 11, 22, 14, 40, 1, tzinfo=UTC))
    assert abs(found.aos - datetime(2024, 11, 22, 14, 40, 1, tzinfo=UTC)).total_seconds() < 1
    assert abs(found.los - datetime(2024, 11, 22, 14, 47, 29, tzinfo=UTC)).total_seconds() < 1
    assert found.culmination_deg == pytest.approx(77.9, abs=0.2)
    assert found.night == date(2024, 11, 22)


@pytest.mark.parametrize("letter", "AB")
def test_the_shipped_elements_are_those_and_say_that_they_are_synthetic(letter: str) -> None:
    [tle] = read_tles(find_tle_file(f"jinan1-{letter.lower()}"))
    assert [tle.line1, tle.line2] == REFERENCE[letter]["tle"]
    assert "SYNTHETIC" in tle.name


def test_shanghai_has_a_good_evening_pass_on_six_of_nine_nights() -> None:
    """22 to 30 November: above 49 degrees on six nights, two below 32 degrees instead on the 25th to 27th."""
    found = find_all_passes(
        [satellite("A")],
        [STATIONS["Shanghai"]],
        datetime(2024, 11, 22, 4, tzinfo=UTC),
        datetime(2024, 12, 1, 4, tzinfo=UTC),
    )
    dark = [one for one in found if one.sky.is_dark()]
    good = {one.night for one in dark if one.culmination_deg > 48.5}
    assert good == {date(2024, 11, day) for day in (22, 23, 24, 28, 29, 30)}
    for day in (25, 26, 27):
        low = [one.culmination_deg for one in dark if one.night == date(2024, 11, day)]
        assert len(low) == 2
        assert max(low) < 32


def test_the_pass_as_the_optical_link_wants_it() -> None:
    found = contact("A", "Beijing", datetime(2024, 11, 22, 14, 40, 1, tzinfo=UTC))
    pass_ = found.slots()
    assert len(pass_.t_s) == 448
    assert pass_.duration_s == 448
    assert pass_.culmination == found.culmination
    np.testing.assert_allclose(np.diff(pass_.t_s), 1.0, atol=1e-6)
    assert pass_.elevation_deg.min() >= 10
    assert pass_.elevation_deg.max() == pytest.approx(found.culmination_deg, abs=0.01)
    assert abs(pass_.t_s[pass_.elevation_deg.argmax()]) <= 0.5
    assert pass_.range_km.min() == pytest.approx(found.min_range_km, abs=0.05)
    assert pass_.azimuth_deg is not None
    assert pass_.azimuth_deg[0] == pytest.approx(found.aos_azimuth_deg, abs=0.1)
    half = pass_.window(0.0, 1000.0)
    assert half.azimuth_deg is not None
    assert len(half.azimuth_deg) == len(half.t_s) < 448
    coarse = found.slots(10.0)
    assert len(coarse.t_s) == 44
    assert coarse.slot_s == 10.0
