"""The delay elements: their laws, their moments against sampling, their file form."""

from __future__ import annotations

import math
import tomllib

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from topo.errors import InputError
from topo.links.delays import (
    DelayElement,
    Drx,
    Element,
    ElementState,
    Empirical,
    Fixed,
    FrameWait,
    Gaussian,
    Propagation,
    Retransmission,
    SchedulingRequest,
    Serialise,
    describe,
    ms_to_ns,
    netem_delay_ns,
    netem_rate,
    waiting,
)

MS = 10**6  # ns
ELEMENT: TypeAdapter[DelayElement] = TypeAdapter(Element)


def wait_ms(element: DelayElement, at_ms: float, state: ElementState | None = None) -> float:
    rng = np.random.default_rng(0)
    return element.wait_ns(round(at_ms * MS), 98, rng, state or ElementState()) / MS


def sample_ms(element: DelayElement, n: int) -> np.ndarray:
    """n waits of packets a prime number of ns, and more than any timer, apart."""
    rng, state = np.random.default_rng(11), ElementState()
    at_ns = np.arange(n, dtype=np.int64) * 1_000_003_721
    return np.array([element.wait_ns(int(t), 98, rng, state) for t in at_ns]) / MS


@pytest.mark.parametrize(
    "element",
    [
        Propagation(delay_ms=122.96),
        Fixed(delay_ms=14.0),
        Serialise(rate_mbps=0.128, overhead_bytes=24),
        FrameWait(period_ms=26.5),
        FrameWait(period_ms=26.5, phase_ms=3.0),
        SchedulingRequest(period_ms=102.0, grant_delay_ms=6.0),
        SchedulingRequest(period_ms=87.7, grant_delay_ms=6.0, phase_ms=1.5),
        Drx(cycle_ms=320.0, on_ms=10.0, inactivity_ms=200.0),
        Drx(cycle_ms=40.0, on_ms=40.0),
        Retransmission(probability=0.06, min_ms=33.0, max_ms=99.0),
        Retransmission(probability=1.0, min_ms=8.0, max_ms=8.0),
        Retransmission(probability=0.0, min_ms=8.0, max_ms=9.0),
        Empirical(samples_ms=(1.0, 2.0, 2.5, 40.0)),
        Gaussian(mu_ms=88.8, sigma_ms=17.1),
        Gaussian(mu_ms=2.0, sigma_ms=10.0),
        Gaussian(mu_ms=-30.0, sigma_ms=10.0),
    ],
    ids=lambda e: e.law(),
)
def test_moments_against_sampling(element: DelayElement) -> None:
    """Mean and variance within five standard errors of what the law yields."""
    waits = sample_ms(element, 20_000)
    rounding_ms = 1e-6
    assert waits.min() >= 0
    mean_error = math.sqrt(waits.var() / waits.size)
    assert abs(waits.mean() - element.mean_ms()) <= 5 * mean_error + rounding_ms
    variance_error = math.sqrt(((waits - waits.mean()) ** 2).var() / waits.size)
    assert abs(waits.var() - element.variance_ms2()) <= 5 * variance_error + rounding_ms


def test_serialisation_counts_every_bit() -> None:
    line = Serialise(rate_mbps=0.128, overhead_bytes=2)
    assert line.mean_ms(98) == pytest.approx(100 * 8 / 128)
    assert line.wait_ns(0, 98, np.random.default_rng(), ElementState()) == 6_250_000
    assert Serialise(rate_mbps=1000.0).mean_ms(125) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("at_ms", "expected_ms"),
    [(0.0, 5.0), (5.0, 0.0), (5.000001, 19.999999), (24.9, 0.1), (25.0, 0.0), (1005.0, 0.0)],
)
def test_a_grid_of_known_phase_is_absolute(at_ms: float, expected_ms: float) -> None:
    frame = FrameWait(period_ms=20.0, phase_ms=5.0)
    assert wait_ms(frame, at_ms) == pytest.approx(expected_ms, abs=1e-9)
    request = SchedulingRequest(period_ms=20.0, phase_ms=5.0, grant_delay_ms=7.0)
    assert wait_ms(request, at_ms) == pytest.approx(expected_ms + 7.0, abs=1e-9)


def test_a_grid_does_not_drift_over_a_day() -> None:
    """Packet times plus waits are grid points, to the nanosecond, however late in the run."""
    frame = FrameWait(period_ms=87.7, phase_ms=-31.0)
    rng = np.random.default_rng(3)
    for at_ns in rng.integers(0, 86_400 * 10**9, 200).tolist():
        wait_ns = frame.wait_ns(at_ns, 98, rng, ElementState())
        assert 0 <= wait_ns < 87_700_000
        assert (at_ns + wait_ns + 31_000_000) % 87_700_000 == 0


def test_a_grid_of_unknown_phase_draws_once_per_packet() -> None:
    frame, rng, twin = FrameWait(period_ms=10.0), np.random.default_rng(5), np.random.default_rng(5)
    waits = [frame.wait_ns(0, 98, rng, ElementState()) for _ in range(100)]
    assert waits == [int(u * 10 * MS) for u in twin.random(100)]


def test_drx_cycle_asleep_awake_and_kept_awake() -> None:
    drx, state = Drx(cycle_ms=100.0, on_ms=10.0, inactivity_ms=50.0, phase_ms=20.0), ElementState()
    assert wait_ms(drx, 25.0, state) == 0.0  # in the on duration; awake until 75
    assert wait_ms(drx, 74.0, state) == 0.0  # kept awake, and now until 124
    assert wait_ms(drx, 123.0, state) == 0.0  # kept awake, and now until 173
    assert wait_ms(drx, 173.0, state) == 47.0  # asleep again: woken at 220, awake until 270
    assert wait_ms(drx, 190.0, state) == 30.0  # buffered beside it, not awake before 220
    assert wait_ms(drx, 269.9, state) == 0.0
    assert wait_ms(drx, 1000.0, state) == 20.0


def test_drx_without_inactivity_timer_sleeps_at_once() -> None:
    drx, state = Drx(cycle_ms=100.0, on_ms=10.0), ElementState()
    assert [wait_ms(drx, t, state) for t in (0.0, 9.9, 10.0, 99.0, 100.0)] == [0, 0, 90, 1, 0]


def test_drx_directions_do_not_share_state() -> None:
    drx = Drx(cycle_ms=100.0, on_ms=10.0, inactivity_ms=50.0)
    up, down = ElementState(), ElementState()
    assert wait_ms(drx, 0.0, up) == 0.0
    assert (wait_ms(drx, 30.0, up), wait_ms(drx, 30.0, down)) == (0.0, 70.0)


def test_retransmissions_happen_as_often_as_said_and_last_as_long() -> None:
    waits = sample_ms(Retransmission(probability=0.06, min_ms=33.0, max_ms=99.0), 20_000)
    late = waits[waits > 0]
    assert abs(late.size - 1200) < 5 * math.sqrt(20_000 * 0.06 * 0.94)
    assert 33.0 <= late.min() < 35.0
    assert 97.0 < late.max() <= 99.0


def test_elements_read_from_toml() -> None:
    text = """
    elements = [
        { kind = "fixed", delay_ms = 14, basis = "calibrated", source = "fit" },
        { kind = "scheduling_request", period_ms = 87.7, phase_ms = 0.0 },
        { kind = "empirical", samples_ms = [1.5, 2] },
        { kind = "gaussian", mu_ms = 88.8, sigma_ms = 17.1 },
    ]
    """
    fixed, request, empirical, gaussian = [
        ELEMENT.validate_python(table) for table in tomllib.loads(text)["elements"]
    ]
    assert fixed == Fixed(delay_ms=14.0, basis="calibrated", source="fit")
    assert request == SchedulingRequest(period_ms=87.7, phase_ms=0.0)
    assert empirical == Empirical(samples_ms=(1.5, 2.0))
    assert gaussian.basis == "phenomenological"
    for element in (fixed, request, empirical, gaussian):
        assert ELEMENT.validate_json(ELEMENT.dump_json(element)) == element


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "fixed"}, "delay_ms"),
        ({"kind": "fixed", "delay_ms": -1.0}, "greater than or equal to 0"),
        ({"kind": "fixed", "delay_ms": math.nan}, "finite number"),
        ({"kind": "fixed", "delay_ms": math.inf}, "finite number"),
        ({"kind": "fixed", "delay_ms": "14"}, "valid number"),
        ({"kind": "fixed", "delay_ms": True}, "valid number"),
        ({"kind": "fixed", "delay": 14.0}, "delay"),
        ({"kind": "fixed", "delay_ms": 1.0, "jitter_ms": 2.0}, "Extra inputs"),
        ({"kind": "fixed", "delay_ms": 1.0, "basis": "guess"}, "physics"),
        ({"kind": "fixed", "delay_ms": 1.0, "source": "two\nlines"}, "source"),
        ({"kind": "dama"}, "dama"),
        ({"kind": "frame_wait", "period_ms": 0.0}, "greater than 0"),
        ({"kind": "frame_wait", "period_ms": 1e-9}, "below one nanosecond"),
        ({"kind": "drx", "cycle_ms": 10.0, "on_ms": 11.0}, "exceeds cycle_ms"),
        ({"kind": "drx", "cycle_ms": 1e-9, "on_ms": 1e-9}, "below one nanosecond"),
        ({"kind": "retransmission", "probability": 1.1, "min_ms": 1.0, "max_ms": 2.0}, "than or"),
        ({"kind": "retransmission", "probability": 0.1, "min_ms": 3.0, "max_ms": 2.0}, "below min"),
        ({"kind": "empirical", "samples_ms": []}, "at least 1"),
        ({"kind": "empirical", "samples_ms": [-1.0]}, "greater than or equal to 0"),
        ({"kind": "gaussian", "mu_ms": -60.0, "sigma_ms": 10.0}, "nothing of the law"),
        ({"kind": "serialise", "rate_mbps": 0.0}, "greater than 0"),
    ],
)
def test_impossible_elements_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ELEMENT.validate_python(table)


def test_each_kind_has_an_honest_basis_by_default() -> None:
    assert Propagation(delay_ms=1.0).basis == "physics"
    assert Serialise(rate_mbps=1.0).basis == "physics"
    assert FrameWait(period_ms=1.0).basis == "assumed"
    assert Gaussian(mu_ms=1.0, sigma_ms=1.0).basis == "phenomenological"


def test_who_realises_what() -> None:
    sky, modem, line = (
        Propagation(delay_ms=122.96),
        Fixed(delay_ms=14.0),
        Serialise(rate_mbps=10.0, overhead_bytes=4),
    )
    frame = FrameWait(period_ms=13.4)
    elements = [sky, frame, modem, line]
    assert netem_delay_ns(elements) == 136_960_000
    assert netem_rate(elements) is line
    assert netem_rate([sky, frame]) is None
    assert waiting(elements) == (frame,)
    with pytest.raises(InputError, match="two serialise elements"):
        netem_rate([line, line])


def test_description_says_law_moments_realisation_basis_and_source() -> None:
    elements = [
        Propagation(delay_ms=122.96),
        SchedulingRequest(period_ms=87.7, phase_ms=0.0, basis="calibrated", source="fit to J"),
    ]
    assert describe(elements) == [
        "propagation 122.96 ms: mean 122.960 ms, sd 0.000 ms "
        "[netem, physics: Photonics 12, 1182, equation (1)]",
        "scheduling request every 87.7 ms, phase 0 ms, grant 0 ms: mean 43.850 ms, sd 25.317 ms "
        "[waiting, calibrated: fit to J]",
    ]


def test_milliseconds_round_to_nanoseconds() -> None:
    assert ms_to_ns(122.96) == 122_960_000
    assert ms_to_ns(1e-6) == 1
    assert ms_to_ns(0.4e-6) == 0
