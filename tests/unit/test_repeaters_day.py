"""A day of the hybrid network, and the threshold that comes out of it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import lognorm

from quantum.repeaters.cities import pair_number, read_cities
from quantum.repeaters.constellation import Walker
from quantum.repeaters.day import Day, _Task, _Work, run
from quantum.repeaters.network import Network
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.routing import ROUTERS, Kind, route
from quantum.repeaters.threshold import by_use, fit, threshold
from quantum.repeaters.weather import HourlyWeather, steady_weather, synthetic_weather
from topo.errors import InputError

CITIES = read_cities()[:14]
NETWORK = Network(CITIES, Parameters())
NOON_S = 1_704_067_200.0 + 12 * 3600.0
PAIR = pair_number(14, 2, 5)


def weather(hours: int = 3) -> HourlyWeather:
    return synthetic_weather(CITIES, NOON_S, hours, seed=4, climate="mid")


def short_day(processes: int = 1, **changes: object) -> Day:
    given: dict[str, object] = {"steps": 70, "watch": [PAIR]} | changes
    return run(
        NETWORK,
        Walker(12, 4),
        weather(),
        NOON_S,
        processes=processes,
        **given,  # type: ignore[arg-type]
    )


def test_a_day_is_the_sum_of_its_minutes() -> None:
    day = short_day()
    times = NOON_S + 60.0 * np.arange(70)
    view = NETWORK.view(Walker(12, 4), times, weather().at(times))
    space = NETWORK.space_graph(view)
    graph = NETWORK.hybrid_graph(space)
    for router in ROUTERS:
        routes = route(graph, router)
        assert day.total_bits(router) == pytest.approx(60 * routes.skr_bit_s.sum(axis=0))
        for kind in Kind:
            here = routes.kind == kind
            assert np.array_equal(day.steps[router][:, kind], here.sum(axis=0))
            assert np.array_equal(day.pairs_by_kind[router][:, kind], here.sum(axis=1))
        [record] = day.watched
        assert np.array_equal(record.kind[router], routes.kind[:, PAIR])
        assert record.skp[router] == pytest.approx(routes.skp[:, PAIR])
    one = NETWORK.pair_view(view, space, PAIR)
    assert np.array_equal(day.watched[0].satellite, one.satellite)
    assert np.allclose(day.watched[0].weather_loss_dB, one.weather_loss_dB, equal_nan=True)
    assert day.key_bits["paper"][:, Kind.FAIL].sum() == 0
    assert day.label == LABEL
    assert day.weather.startswith("SYNTHETIC")


def same_days(one: Day, other: Day) -> None:
    for router in ROUTERS:
        assert np.array_equal(one.key_bits[router], other.key_bits[router])
        assert np.array_equal(one.pairs_by_kind[router], other.pairs_by_kind[router])
    assert one.comparison == other.comparison
    here, there = one.watched[0].bsm_fidelity, other.watched[0].bsm_fidelity
    assert np.array_equal(here, there, equal_nan=True)


def test_the_same_seed_gives_the_same_day() -> None:
    same_days(short_day(), short_day())


@pytest.mark.long
def test_the_day_is_the_same_on_any_number_of_processes() -> None:
    same_days(short_day(1), short_day(2))


def test_work_can_be_sent_to_another_process() -> None:
    work = pickle.loads(pickle.dumps(_Work(NETWORK, ROUTERS, (PAIR,))))
    position = Walker(12, 4).positions_km(np.array([NOON_S]))
    task = _Task(False, position, weather().at(np.array([NOON_S])))
    part = pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(task)))))
    first = short_day(steps=1)
    for router in ROUTERS:
        assert np.array_equal(60 * part.bits_per_s[router], first.key_bits[router])


def test_both_routers_are_compared() -> None:
    comparison = short_day().comparison
    assert comparison is not None
    assert comparison.pairs == 70 * 91
    assert comparison.worse == 0
    assert comparison.key_ratio >= 1
    assert short_day(routers=["safe"], steps=5).comparison is None


def test_progress_counts_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    short_day(progress=lambda done, total: told.append((done, total)))
    assert told == [(30, 70), (60, 70), (70, 70)]


def test_a_day_without_satellites_is_a_day_of_fibre() -> None:
    day = run(NETWORK, Walker(0), weather(), NOON_S, steps=3, processes=1, watch=[0])
    assert day.satellites == 0
    assert not day.key_bits["safe"][:, [Kind.SPACE, Kind.HYBRID]].any()
    assert day.threshold("safe").distance_km is None
    assert np.isnan(day.watched[0].space_skp).all()


def test_pairs_count_for_whatever_made_them_more_key() -> None:
    bits = np.array([[5.0, 3, 3, 0], [5, 3, 1, 0], [0, 0, 0, 0], [9, 0, 0, 0], [0, 1, 0, 0]])
    distance = np.array([900.0, 200, 300, 150, 800])
    day = Day(
        unix_s=np.zeros(1),
        step_s=60.0,
        distance_km=distance,
        key_bits={"safe": bits},
        steps={},
        pairs_by_kind={},
        comparison=None,
        watched=(),
        satellites=1,
        weather="",
    )
    expected = threshold([200.0, 150.0], [900.0, 800.0])
    assert day.threshold("safe") == expected
    assert expected.distance_km is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "at least one"),
        ({"step_s": 0.0}, "above 0 s"),
        ({"routers": ["fast"]}, "paper or safe"),
        ({"watch": [91]}, "numbered 0 to 90"),
        ({"steps": 500, "watch": []}, "covers"),
    ],
)
def test_impossible_days_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        short_day(**changes)  # type: ignore[arg-type]


def test_fits_are_scipys() -> None:
    distance = np.random.default_rng(1).lognormal(6, 0.4, 300)
    ours = fit(distance)
    assert ours is not None
    shape, _, scale = lognorm.fit(distance, floc=0)
    assert ours.sigma == pytest.approx(shape, rel=1e-5)
    assert ours.mu == pytest.approx(np.log(scale), rel=1e-5)
    where = np.array([200.0, 400.0, 800.0])
    assert ours.density(where) == pytest.approx(300 * lognorm.pdf(where, shape, 0, scale), rel=1e-4)


def test_threshold_is_where_the_counted_fits_cross() -> None:
    rng = np.random.default_rng(2)
    ground, space = rng.lognormal(5.5, 0.4, 400), rng.lognormal(7, 0.5, 5000)
    found = threshold(ground, space)
    a, b = lognorm.fit(ground, floc=0), lognorm.fit(space, floc=0)
    crossing = brentq(
        lambda d: 5000 * lognorm.pdf(d, *b) - 400 * lognorm.pdf(d, *a), np.exp(5.5), np.exp(7)
    )
    assert found.distance_km == pytest.approx(crossing, rel=1e-4)
    assert found.label == LABEL


def test_equal_spreads_cross_once() -> None:
    found = threshold([np.exp(1), np.exp(3)], [np.exp(5), np.exp(7)])
    assert found.distance_km == pytest.approx(np.exp(4))
    backwards = threshold([np.exp(5), np.exp(7)], [np.exp(1), np.exp(3)])
    assert backwards.distance_km is None


def test_no_threshold_is_said_and_why() -> None:
    assert "satellite" in threshold([100.0, 200.0], [300.0]).reason
    assert "fibre" in threshold([], [300.0, 400.0]).reason
    drowned = threshold([300.0, 301.0], np.random.default_rng(0).lognormal(5.7, 1.0, 10**5))
    assert drowned.distance_km is None
    assert "above the other" in drowned.reason
    with pytest.raises(InputError, match="one length"):
        by_use([1.0, 2.0], [True], [True, True])


def test_steady_nights_have_no_stray_light() -> None:
    day = run(
        NETWORK,
        Walker(12, 4),
        steady_weather(CITIES),
        NOON_S,
        steps=30,
        processes=1,
        watch=[PAIR],
    )
    fidelity = day.watched[0].bsm_fidelity
    seen = day.watched[0].satellite >= 0
    assert np.all(fidelity[seen] == 1)
    assert np.isnan(fidelity[~seen]).all()
