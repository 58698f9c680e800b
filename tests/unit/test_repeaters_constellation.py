"""Satellites of the hybrid network against Kepler, SGP4 and the stations of the pass predictor."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from quantum.repeaters.cities import City
from quantum.repeaters.constellation import (
    ElementSets,
    FixedSatellite,
    Walker,
    ground,
    look,
)
from topo.errors import InputError
from topo.space.orbit import Satellite
from topo.space.stations import Station
from topo.space.tle import find_tle_file, read_tles

TIMES = 1_704_067_200.0 + 60.0 * np.arange(200)


def test_the_fixed_satellite_hangs_above_zurich() -> None:
    satellite = FixedSatellite()
    position = satellite.positions_km(TIMES)
    assert position.shape == (3, 1, 200)
    assert np.linalg.norm(position, axis=0) == pytest.approx(7071)
    below = ground([City("Zürich", "CH", 47.3769, 8.5417)], satellite.ellipsoid)
    distance, elevation = look(below, position)
    assert distance == pytest.approx(700)
    assert elevation == pytest.approx(90, abs=1e-4)


def test_orbits_are_circles_of_the_right_period() -> None:
    walker = Walker(7, 3)
    position = walker.positions_km(TIMES)
    assert position.shape == (3, 7, 200)
    assert len(walker.names) == len(set(walker.names)) == 7
    assert np.linalg.norm(position, axis=0) == pytest.approx(7071)
    # 98.6 min at 700 km: Kepler's third law, period^2 = 4 pi^2 a^3/GM.
    assert walker.period_s == pytest.approx(2 * np.pi * np.sqrt(7071**3 / 398600.4418))
    assert walker.period_s / 60 == pytest.approx(98.6, abs=0.05)
    # The latitude comes back after a revolution, and in polar orbits it reaches the poles.
    after = walker.positions_km(TIMES + walker.period_s)
    assert after[2] == pytest.approx(position[2], abs=1e-6)
    assert np.abs(position[2]).max() == pytest.approx(7071, rel=1e-3)


def test_the_earth_turns_under_polar_planes() -> None:
    walker = Walker(1, 1)
    day_s = 86164.0905  # a sidereal day
    revolutions = round(day_s / walker.period_s)
    start = walker.positions_km(np.array([0.0]))
    then = walker.positions_km(np.array([revolutions * walker.period_s]))
    longitude = np.degrees(
        np.arctan2(then[1] * start[0] - then[0] * start[1], (then[:2] * start[:2]).sum(0))
    )
    turned = -360 * revolutions * walker.period_s / day_s
    assert (longitude - turned + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)


def test_at_98_degrees_the_planes_follow_the_sun() -> None:
    year_s = 365.2422 * 86400
    sun = Walker(1, inclination_deg=98.19)
    # The node's longitude, taken out of the Earth's turning, moves once round in a year.

    nodes = []
    for moment in (0.0, year_s / 4):
        x, y, z = sun.positions_km(moment + np.arange(0, sun.period_s, 1.0))[:, 0]
        rising = int(np.flatnonzero((z[:-1] < 0) & (z[1:] >= 0))[0])
        inertial = np.arctan2(y[rising], x[rising]) + 7.292115e-5 * (moment + rising)
        nodes.append(np.degrees(inertial))
    moved = (nodes[1] - nodes[0]) % 360
    assert moved == pytest.approx(90, abs=2.0)


def test_planes_are_filled_evenly() -> None:
    names = Walker(8, 3).names
    assert [sum(name.startswith(f"p{plane}") for name in names) for plane in (1, 2, 3)] == [3, 3, 2]
    assert len(Walker(2, 5).names) == 2
    one_plane = Walker(4, 1).positions_km(np.array([0.0]))[:, :, 0] / 7071
    angles = np.degrees(np.arccos(np.clip(one_plane[:, 0] @ one_plane, -1, 1)))
    assert sorted(np.round(angles)) == [0, 90, 90, 180]


def test_star_and_delta_spread_their_nodes() -> None:
    for pattern, step in (("star", 60.0), ("delta", 120.0)):
        position = Walker(3, 3, pattern=pattern).positions_km(np.array([946_728_000.0]))[:, :, 0]  # type: ignore[arg-type]
        longitude = np.degrees(np.arctan2(position[1], position[0])) % 360
        assert np.sort(longitude) == pytest.approx([0, step, 2 * step], abs=1e-6)


def test_phasing_moves_neighbouring_planes() -> None:
    position = Walker(6, 2, phasing=1.0).positions_km(np.array([946_728_000.0]))[:, :, 0] / 7071
    latitude = np.degrees(np.arcsin(position[2]))
    assert latitude[0] == pytest.approx(0, abs=1e-6)
    assert latitude[3] == pytest.approx(60, abs=1e-6)


def test_no_satellites_are_an_empty_sky() -> None:
    empty = Walker(0)
    assert empty.names == ()
    assert empty.positions_km(TIMES).shape == (3, 0, 200)


def test_element_sets_are_seen_as_the_pass_predictor_sees_them() -> None:
    satellites = [
        Satellite(tle)
        for name in ("jinan1-a", "jinan1-b")
        for tle in read_tles(find_tle_file(name))
    ]
    constellation = ElementSets(satellites)
    times = satellites[0].tle.epoch.timestamp() + 30.0 * np.arange(300)
    position = constellation.positions_km(times)
    assert constellation.names == tuple(satellite.name for satellite in satellites)
    assert position.shape == (3, len(satellites), 300)
    cities = [City("Wien", "AT", 48.2, 16.4), City("Jinan", "CN", 36.65, 117.1)]
    distance, elevation = look(ground(cities, constellation.ellipsoid), position)
    for number, city in enumerate(cities):
        station = Station(city.name, city.latitude_deg, city.longitude_deg)
        _, expected_deg, expected_km = station.look_at(position)
        assert np.allclose(distance[:, :, number].T, expected_km, rtol=1e-9)
        assert np.allclose(elevation[:, :, number].T, expected_deg, rtol=0, atol=1e-6)


def test_old_elements_are_refused() -> None:
    constellation = ElementSets.read("jinan1-a")
    long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    with pytest.raises(InputError, match="nearer"):
        constellation.positions_km(np.array([long_ago]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"satellites": -1},
        {"planes": 0},
        {"inclination_deg": 200.0},
        {"altitude_km": 50.0},
        {"pattern": "rosette"},
    ],
)
def test_impossible_constellations_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Walker(**arguments)  # type: ignore[arg-type]
