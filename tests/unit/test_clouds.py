"""The cloud model: its law, and that it depends on nothing but seed, station and night."""

from __future__ import annotations

import random
from datetime import date, timedelta

import numpy as np
import pytest

from topo.errors import InputError
from topo.space.clouds import CloudModel

FIRST = date(2024, 1, 1)
NIGHTS = [FIRST + timedelta(days=n) for n in range(6000)]


def test_share_of_clear_nights_and_correlation_of_neighbours() -> None:
    """Stationary two-state chain: share p, correlation r of neighbours, r squared of next neighbours."""
    p, r = 0.6, 0.5
    model = CloudModel(3, p, r)
    clear = np.array([model.is_clear("Beijing", night) for night in NIGHTS], float)
    # Standard deviation of the mean of a chain of correlation r: sqrt(p (1 - p) (1 + r) / (1 - r) / n).
    assert clear.mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) * 3 / len(clear)))
    for lag in (1, 2):
        found = np.corrcoef(clear[lag:], clear[:-lag])[0, 1]
        assert found == pytest.approx(r**lag, abs=4 / np.sqrt(len(clear)))
    # P(clear | clear) = p + r (1 - p).
    after_clear = clear[1:][clear[:-1] == 1]
    assert after_clear.mean() == pytest.approx(p + r * (1 - p), abs=0.03)


def test_the_order_of_questions_does_not_matter() -> None:
    model = CloudModel(1, 0.5, 0.7)
    in_order = {night: model.is_clear("Beijing", night) for night in NIGHTS[:300]}
    shuffled = list(in_order)
    random.Random(2).shuffle(shuffled)
    fresh = CloudModel(1, 0.5, 0.7)
    assert {night: fresh.is_clear("Beijing", night) for night in shuffled} == in_order


def test_seeds_and_stations_are_independent() -> None:
    nights = NIGHTS[:1000]
    by_key = [
        np.array([model.is_clear(name, night) for night in nights], float)
        for model, name in (
            (CloudModel(1, 0.5, 0.0), "Beijing"),
            (CloudModel(2, 0.5, 0.0), "Beijing"),
            (CloudModel(1, 0.5, 0.0), "Shanghai"),
        )
    ]
    correlation = np.corrcoef(by_key)
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(len(nights))


def test_a_station_may_have_its_own_share_and_certainty_is_certain() -> None:
    model = CloudModel(5, 1.0, 0.4, {"Shanghai": 0.0})
    assert all(model.is_clear("Beijing", night) for night in NIGHTS[:200])
    assert not any(model.is_clear("Shanghai", night) for night in NIGHTS[:200])
    assert "ASSUMED" in model.describe()
    assert "Shanghai 0" in model.describe()


def test_the_first_of_all_nights_has_a_sky_too() -> None:
    assert CloudModel(5, 1.0, 0.99).is_clear("Beijing", date.min)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1, 1.1), "clear-sky probability 1.1"),
        ((1, float("nan")), "clear-sky probability nan"),
        ((1, 0.5, 1.0), "persistence of clouds 1"),
        ((1, 0.5, -0.1), "persistence of clouds -0.1"),
        ((1, 0.5, 0.1, {"X": -1.0}), "clear-sky probability of X -1"),
        ((-1,), "seed -1"),
    ],
)
def test_impossible_models(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CloudModel(*arguments)  # type: ignore[arg-type]
