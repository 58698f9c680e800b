"""The chain from elements to azimuth, elevation and rise against skyfield and the published SGP4 vectors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from skyfield.api import EarthSatellite, load, load_file, wgs84

from topo.errors import InputError
from topo.space.contacts import find_all_passes, find_passes
from topo.space.frames import skyfield_time, teme_to_earth_fixed, utc
from topo.space.orbit import Satellite
from topo.space.sky import is_sunlit, moon_illumination, night_of, sun_and_moon
from topo.space.stations import Station, below
from topo.space.tle import Tle, parse_tles

VALLADO_00005 = """\
1 00005U 58002B   00179.78495062  .00000023  00000-0  28098-4 0  4753
2 00005  34.2682 348.7242 1859667 331.7664  19.3264 10.82419157413667"""
"""The first case of "Revisiting Spacetrack Report #3" (Vallado, Crawford, Hujsak, Kelso, AIAA 2006-6753)."""
LEO = "1 53299U 22087A   23218.18316834  .00013476  00000-0  47310-3 0  999"
LEO_2 = "2 53299  97.3648 292.2302 0012899  47.2670 312.9654 15.2945107657138"


def checksum(line: str) -> str:
    return str(sum(int(c) if c.isdigit() else c == "-" for c in line[:68]) % 10)


def made_tle(rng: np.random.Generator, name: str) -> Tle:
    """Some orbit of 300 to 2000 km with any inclination and orientation."""
    angles = rng.uniform(0, 360, 3)
    line1 = "1 90000U 24001A   24100.50000000  .00001000  00000-0  10000-4 0  999"
    line2 = (
        f"2 90000 {rng.uniform(20, 130):8.4f} {angles[0]:8.4f} {rng.integers(0, 300000):07d} "
        f"{angles[1]:8.4f} {angles[2]:8.4f} {rng.uniform(11.5, 14.8):11.8f}    1"
    )
    eccentric = line2[:26] + f"{rng.integers(0, 200000):07d}" + line2[33:]
    text = "\n".join(line + checksum(line) for line in (line1, eccentric))
    [tle] = parse_tles(f"{name}\n{text}", "made")
    return tle


def made_station(rng: np.random.Generator) -> Station:
    return Station("S", rng.uniform(-80, 80), rng.uniform(-180, 180), rng.uniform(0, 3000))


def skyfields(tle: Tle, station: Station) -> tuple[Any, Any, Any]:
    scale = load.timescale(builtin=True)
    place = wgs84.latlon(
        station.latitude_deg, station.longitude_deg, elevation_m=station.altitude_m
    )
    return EarthSatellite(tle.line1, tle.line2, tle.name, scale), place, scale


@pytest.mark.parametrize(
    ("minutes", "x", "y", "z"),
    [
        (0.0, 7022.46529266, -1400.08296755, 0.03995155),
        (360.0, -7154.03120202, -3783.17682504, -3536.19412294),
        (720.0, -7134.59340119, 6531.68641334, 3260.27186483),
        (1440.0, -938.55923943, -6268.18748831, -4294.02924751),
    ],
)
def test_sgp4_against_the_published_vectors(minutes: float, x: float, y: float, z: float) -> None:
    """Turning the Earth changes neither the distance from its centre nor the height above its equator."""
    [tle] = parse_tles(VALLADO_00005, "vallado")
    # The vectors count from the epoch as the elements have it, which a datetime rounds to a microsecond.
    position, _ = Satellite(tle).state(tle.epoch.timestamp() + 60.0 * minutes)
    assert position[2, 0] == pytest.approx(z, abs=2e-5)
    assert np.linalg.norm(position) == pytest.approx(np.linalg.norm([x, y, z]), abs=2e-5)


def test_the_turn_to_earth_fixed_against_the_published_example() -> None:
    """AIAA 2006-6753, appendix C: 6 April 2004, 07:51:28.386009 UTC; the pseudo-Earth-fixed vectors."""
    instant = datetime(2004, 4, 6, 7, 51, 28, 386009, tzinfo=UTC).timestamp()
    position, velocity = teme_to_earth_fixed(
        np.array([[5094.18016210], [6127.64465950], [6380.34453270]]),
        np.array([[-4.746131487], [0.785818041], [5.531931288]]),
        np.array([instant]),
    )
    # The example gives UT1 to the microsecond; a table of days is a millisecond off, half a metre.
    np.testing.assert_allclose(
        position[:, 0], [-1033.47503130, 7901.30558557, 6380.34453270], atol=2e-3
    )
    np.testing.assert_allclose(velocity[:, 0], [-3.225632747, -2.872442511, 5.531931288], atol=2e-6)


@pytest.mark.parametrize("seed", range(8))
def test_azimuth_elevation_and_range_of_any_orbit_from_anywhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tle, station = made_tle(rng, "X"), made_station(rng)
    peer, place, _ = skyfields(tle, station)
    instants = tle.epoch.timestamp() + rng.uniform(-5, 5, 200) * 86400
    position, velocity = Satellite(tle).state(instants)
    azimuth, elevation, distance = station.look_at(position)
    expected = (peer - place).at(skyfield_time(instants)).altaz()
    np.testing.assert_allclose(distance, expected[2].km, atol=1e-3)
    np.testing.assert_allclose(elevation, expected[0].degrees, atol=1e-4)
    away = np.cos(np.radians(elevation)) * ((azimuth - expected[1].degrees + 180) % 360 - 180)
    np.testing.assert_allclose(away, 0, atol=1e-4)
    later, _ = Satellite(tle).state(instants + 0.01)
    np.testing.assert_allclose((later - position) / 0.01, velocity, atol=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_rise_culmination_and_set_of_any_orbit_from_anywhere(seed: int) -> None:
    """The same passes; skyfield's search stops within half a second, ours is exact (see further down)."""
    rng = np.random.default_rng(100 + seed)
    tle, station = made_tle(rng, "X"), made_station(rng)
    peer, place, scale = skyfields(tle, station)
    start = tle.epoch + timedelta(hours=3)
    end = start + timedelta(days=2)
    mask_deg = float(rng.uniform(0, 30))
    found = find_passes(Satellite(tle), station, start, end, mask_deg)
    times, events = peer.find_events(
        place,
        scale.from_datetime(start - timedelta(hours=3)),
        scale.from_datetime(end + timedelta(hours=3)),
        mask_deg,
    )
    seconds = np.array([time.utc_datetime().timestamp() for time in times])
    rises = np.flatnonzero(events[:-2] == 0)
    expected = [
        seconds[n : n + 3]
        for n in rises
        if list(events[n : n + 3]) == [0, 1, 2]
        and start.timestamp() <= seconds[n + 1] < end.timestamp()
    ]
    assert len(found) == len(expected) > 0
    mine = np.array([[at.timestamp() for at in (c.aos, c.culmination, c.los)] for c in found])
    assert np.abs(mine.reshape(-1, 3) - np.array(expected).reshape(-1, 3)).max(initial=0) < 0.5


def test_the_ground_below_a_satellite() -> None:
    rng = np.random.default_rng(5)
    tle, station = made_tle(rng, "X"), made_station(rng)
    peer, _, _ = skyfields(tle, station)
    instants = tle.epoch.timestamp() + rng.uniform(0, 86400, 50)
    lat, lon, height = below(Satellite(tle).state(instants)[0])
    expected = wgs84.geographic_position_of(peer.at(skyfield_time(instants)))
    np.testing.assert_allclose(lat, expected.latitude.degrees, atol=1e-6)
    np.testing.assert_allclose((lon - expected.longitude.degrees + 180) % 360, 180, atol=1e-6)
    np.testing.assert_allclose(height, expected.elevation.km, atol=1e-4)
    back = below(station.position_km)
    assert np.array(back) == pytest.approx(
        [station.latitude_deg, station.longitude_deg, station.altitude_m / 1e3]
    )


def test_sun_and_moon_over_a_station() -> None:
    station = Station("S", 40.1, 116.5)
    bodies = load_file(str(files("skyfield_data") / "data" / "de421.bsp"))
    start = datetime(2024, 11, 1, tzinfo=UTC).timestamp()
    instants = start + np.linspace(0, 60 * 86400, 40)
    time = skyfield_time(instants)
    place = bodies["earth"] + wgs84.latlon(40.1, 116.5)
    sun, moon = sun_and_moon(instants)
    for body, position in (("sun", sun), ("moon", moon)):
        altitude, azimuth, _ = place.at(time).observe(bodies[body]).apparent().altaz()
        mine = station.look_at(position)
        np.testing.assert_allclose(mine[1], altitude.degrees, atol=1e-3)
        np.testing.assert_allclose(mine[0], azimuth.degrees, atol=1e-2)
    of_moon = bodies["earth"].at(time).observe(bodies["moon"]).apparent()
    expected = of_moon.fraction_illuminated(bodies["sun"])
    np.testing.assert_allclose(moon_illumination(sun, moon), expected, atol=1e-3)
    bodies.close()


def test_a_satellite_in_sunlight_or_in_shadow() -> None:
    rng = np.random.default_rng(7)
    tle, station = made_tle(rng, "X"), made_station(rng)
    peer, _, _ = skyfields(tle, station)
    bodies = load_file(str(files("skyfield_data") / "data" / "de421.bsp"))
    instants = tle.epoch.timestamp() + np.linspace(0, 86400, 2000)
    lit = is_sunlit(Satellite(tle).state(instants)[0], sun_and_moon(instants)[0])
    expected = peer.at(skyfield_time(instants)).is_sunlit(bodies)
    assert 0.2 < expected.mean() < 0.95  # it tells something
    assert np.mean(lit == expected) > 0.998  # but for instants on the edge itself
    bodies.close()


def test_the_ephemeris_ends() -> None:
    with pytest.raises(InputError, match="no position of the Sun for these dates"):
        sun_and_moon(datetime(2060, 1, 1, tzinfo=UTC).timestamp())


def test_a_night_is_named_by_its_evening_from_noon_to_noon_by_the_sun() -> None:
    def day(hour: float, longitude_deg: float) -> int:
        return night_of(utc(1732233600 + hour * 3600), longitude_deg).day  # 22 November 2024

    beijing = 116.5  # local mean noon at 04:14 UTC
    assert [day(hour, beijing) for hour in (4.2, 4.3, 14.7, 24, 28.2, 28.3)] == [
        21,
        22,
        22,
        22,
        22,
        23,
    ]
    assert day(19.9, -120.0) == 21
    assert day(20.1, -120.0) == 22
    assert day(0.1, 180.0) == 22
    assert day(0.1, 190.0) == day(0.1, -170.0) == 21


def test_passes_come_by_time_each_from_rise_to_set_and_are_not_cut() -> None:
    [tle] = parse_tles(f"{LEO}{checksum(LEO)}\n{LEO_2}{checksum(LEO_2)}", "here")
    stations = [Station("A", 40.0, 116.0), Station("B", -33.9, 18.9)]
    start = datetime(2023, 8, 6, tzinfo=UTC)
    end = start + timedelta(days=3)
    found = find_all_passes([Satellite(tle)], stations, start, end)
    assert [one.aos for one in found] == sorted(one.aos for one in found)
    for one in found:
        assert one.aos < one.culmination < one.los
        beside = one.culmination.timestamp() + np.array([-0.5, 0.0, 0.5])
        assert np.argmax(one.station.look_at(one.satellite.state(beside)[0])[1]) == 1
        ends = [one.aos.timestamp(), one.los.timestamp()]
        elevation = one.station.look_at(one.satellite.state(ends)[0])[1]
        np.testing.assert_allclose(elevation, 10.0, atol=1e-4)
        # A search that begins or ends during the pass has it whole, or, after its culmination, not at all.
        inside = one.culmination - timedelta(seconds=1), one.culmination + timedelta(seconds=1)
        [again] = find_passes(one.satellite, one.station, *inside)
        assert abs((again.aos - one.aos).total_seconds()) < 1e-3
        assert find_passes(one.satellite, one.station, inside[1], one.los) == []


def geostationary(longitude_of_node: float) -> Satellite:
    line1 = "1 90001U 24001A   24100.50000000  .00000000  00000-0  00000-0 0  999"
    line2 = f"2 90001   0.0100 {longitude_of_node:8.4f} 0001000   0.0000   0.0000  1.00273790    1"
    text = "\n".join(line + checksum(line) for line in (line1, line2))
    return Satellite(parse_tles(f"GEO\n{text}", "here")[0])


def test_a_satellite_that_never_sets_makes_no_passes() -> None:
    satellite = geostationary(0.0)
    _, longitude, _ = below(satellite.state(satellite.tle.epoch.timestamp())[0])
    start = satellite.tle.epoch
    under = Station("under it", 0.0, float(longitude[0]))
    with pytest.raises(InputError, match="GEO stays above 10 degrees at under it"):
        find_passes(satellite, under, start, start + timedelta(days=1))
    opposite = Station("opposite", 0.0, float((longitude[0] + 360) % 360 - 180))
    assert find_passes(satellite, opposite, start, start + timedelta(days=1)) == []


def test_an_epoch_too_far_is_refused_with_a_remedy() -> None:
    [tle] = parse_tles(VALLADO_00005, "vallado")
    start = tle.epoch + timedelta(days=365)
    with pytest.raises(InputError, match=r"elements of 2000-06-27.*is 366 days.*nearer that date"):
        find_passes(Satellite(tle), Station("S", 0, 0), start, start + timedelta(days=1))
    found = find_passes(
        Satellite(tle), Station("S", 0, 0), start, start + timedelta(days=1), max_age_days=400
    )
    assert found


def test_a_decayed_orbit_is_an_input_error() -> None:
    line1 = "1 90002U 24001A   24100.50000000  .01000000  00000-0  99999-1 0  999"
    line2 = "2 90002  51.6000 100.0000 0005000  10.0000  20.0000 16.45000000    1"
    text = "\n".join(line + checksum(line) for line in (line1, line2))
    satellite = Satellite(parse_tles(f"LOW\n{text}", "here")[0])
    start = satellite.tle.epoch
    with pytest.raises(
        InputError, match=r"LOW at 2024.*SGP4 has no position: .*; take elements nearer"
    ):
        find_passes(satellite, Station("S", 0, 0), start, start + timedelta(days=20))


@pytest.mark.parametrize(
    ("start", "hours", "mask_deg", "said"),
    [
        (datetime(2000, 6, 28, tzinfo=UTC), 24.0, 90.0, "mask 90"),
        (datetime(2000, 6, 28, tzinfo=UTC), 24.0, -1.0, "mask -1"),
        (datetime(2000, 6, 28, tzinfo=UTC), 0.0, 10.0, "no time between"),
        (datetime(2000, 6, 28), 24.0, 10.0, "time zone"),
    ],
)
def test_impossible_searches(start: datetime, hours: float, mask_deg: float, said: str) -> None:
    [tle] = parse_tles(VALLADO_00005, "vallado")
    with pytest.raises(InputError, match=said):
        find_passes(
            Satellite(tle), Station("S", 0, 0), start, start + timedelta(hours=hours), mask_deg
        )
