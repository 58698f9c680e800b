"""The predictor against closed forms, against the waiting lines, and against published fits."""

from __future__ import annotations

import math
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from topo.errors import InputError
from topo.links.delays import (
    DelayElement,
    Fixed,
    FrameWait,
    Gaussian,
    Retransmission,
    SchedulingRequest,
    Serialise,
)
from topo.links.predictor import HopLine, Prediction, ProbeSchedule, lag1, predict, rtt_ns, simulate
from topo.links.waiting import WaitingLine

MS = 10**6  # ns
PROBES = ProbeSchedule(n=100, interval_ms=1000.0)

BASE = Fixed(delay_ms=267.0)  # VSAT to DN of the paper, one way
SATELLITE_UP = [BASE, Fixed(delay_ms=14.0), FrameWait(period_ms=13.4)]
SATELLITE_DOWN = [BASE, Fixed(delay_ms=14.0), FrameWait(period_ms=13.3)]
RETRANSMISSION = Retransmission(probability=0.06, min_ms=33.0, max_ms=99.0)
RADIO = {
    "satellite": [],
    "plain A": [Fixed(delay_ms=28.8), SchedulingRequest(period_ms=102.0), RETRANSMISSION],
    "plain B": [Fixed(delay_ms=4.0), FrameWait(period_ms=80.0), FrameWait(period_ms=80.0)],
    "encrypted B": [Fixed(delay_ms=49.0), FrameWait(period_ms=40.0), FrameWait(period_ms=40.0)],
    "encrypted N": [Gaussian(mu_ms=88.8, sigma_ms=17.1)],
    "encrypted S": [Fixed(delay_ms=44.6), SchedulingRequest(period_ms=87.7, phase_ms=0.0)],
    # the same steps of 10.7 ms for probes 1000 ms apart: 12 periods less 10.7 ms
    "encrypted S, 1 Hz": [Fixed(delay_ms=47.0), SchedulingRequest(period_ms=84.225, phase_ms=0.0)],
}
# min, mean, max, J, each with its run-to-run deviation: independent fits for n = 100
REFERENCE = {
    "satellite": ((563.7, 0.9), (575.4, 0.5), (587.0, 0.9), (6.2, 0.5)),
    "plain A": ((600.2, 3.4), (659.2, 3.4), (764.1, 21.6), (38.5, 3.4)),
    "plain B": ((587.0, 6.0), (659.5, 3.3), (732.0, 6.0), (37.9, 3.2)),
    "encrypted B": ((625.8, 4.2), (664.4, 1.7), (703.1, 4.1), (19.6, 1.7)),
    "encrypted N": ((620.0, 7.6), (664.7, 1.8), (709.0, 7.5), (20.0, 1.8)),
    "encrypted S": ((615.2, 3.0), (663.8, 0.9), (712.5, 2.9), (19.3, 0.6)),
}
# min, mean, max, J of Photonics 12, 1182, figures 12 and 14
PUBLISHED = {
    "satellite": (562, 576, 586, 6),
    "plain A": (600, 660, 765, 38),
    "encrypted S": (617, 665, 713, 19),
    "encrypted S, 1 Hz": (617, 665, 713, 19),
}


@cache
def session(name: str, runs: int = 300) -> Prediction:
    # Consecutive probes of the sawtooth advance by 10.7 ms: 11 periods of 87.7 ms and 10.7 ms.
    interval_ms = 11 * 87.7 + 10.7 if name == "encrypted S" else 1000.0
    probes = ProbeSchedule(n=100, interval_ms=interval_ms)
    return predict([RADIO[name], SATELLITE_UP], [SATELLITE_DOWN, []], probes, runs=runs, seed=2)


@pytest.mark.parametrize("name", REFERENCE)
def test_calibrated_sessions_against_independent_fits(name: str) -> None:
    prediction = session(name)
    ours = (prediction.min_ms, prediction.mean_ms, prediction.max_ms, prediction.jitter_ms)
    for expected, (mean, sd) in zip(ours, REFERENCE[name], strict=True):
        # both sides are simulations: a third of the run-to-run deviation is > 3 standard errors
        assert abs(expected.mean - mean) < sd / 3 + 0.05
        assert 0.6 < expected.sd / sd < 1.5


@pytest.mark.parametrize("name", PUBLISHED)
def test_calibrated_sessions_against_the_paper(name: str) -> None:
    prediction = session(name)
    ours = (prediction.min_ms, prediction.mean_ms, prediction.max_ms, prediction.jitter_ms)
    for expected, published in zip(ours, PUBLISHED[name], strict=True):
        assert abs(expected.mean - published) < 3 * expected.sd


def test_a_sawtooth_is_autocorrelated_and_random_waits_are_not() -> None:
    assert session("encrypted S").lag1.mean == pytest.approx(0.34, abs=0.02)
    assert session("plain A").lag1.mean == pytest.approx(0.0, abs=0.03)


def test_constants_alone() -> None:
    prediction = predict([[Fixed(delay_ms=122.96)], []], [[Fixed(delay_ms=20.0)]], PROBES, runs=3)
    for statistic in (prediction.min_ms, prediction.mean_ms, prediction.max_ms):
        assert statistic == (pytest.approx(142.96), pytest.approx(0.0, abs=1e-9))
    assert prediction.sigma_ms.mean == pytest.approx(0.0, abs=1e-9)
    assert prediction.jitter_ms.mean == 0.0
    assert math.isnan(prediction.lag1.mean)


def test_mean_sigma_and_jitter_of_one_uniform_wait() -> None:
    """U(0, W): mean W/2, σ² = W²/12 less the share of the sample's own mean, J = W/3."""
    n, runs, width = 100, 400, 60.0
    prediction = predict([[FrameWait(period_ms=width)]], [], PROBES, runs=runs, seed=1)
    sigma = width / math.sqrt(12)
    assert prediction.mean_ms.mean == pytest.approx(width / 2, abs=5 * sigma / math.sqrt(n * runs))
    assert prediction.mean_ms.sd == pytest.approx(sigma / math.sqrt(n), rel=0.2)
    assert prediction.sigma_ms.mean == pytest.approx(sigma * math.sqrt(1 - 1 / n), rel=0.01)
    assert prediction.jitter_ms.mean == pytest.approx(width / 3, rel=0.02)
    assert prediction.min_ms.mean == pytest.approx(width / (n + 1), rel=0.2)


def test_jitter_of_a_sawtooth_is_exact() -> None:
    """1000 probes through 10 whole teeth: steps of s, and one of W - s per tooth."""
    grid = [SchedulingRequest(period_ms=100.0, phase_ms=0.0)]
    probes = ProbeSchedule(n=1001, interval_ms=1001.0, start_ms=0.0)
    rtt_ms = simulate([grid], [], probes, runs=1)[0] / MS
    assert rtt_ms[:3].tolist() == [0.0, 99.0, 98.0]
    assert np.abs(np.diff(rtt_ms)).mean() == pytest.approx(2 * 1.0 * (1 - 1.0 / 100.0))


def test_probes_meet_the_waits_of_the_emulated_hop() -> None:
    """With an emulated hop's seed and names, the predictor yields its RTTs one by one."""
    radio: list[DelayElement] = [SchedulingRequest(period_ms=102.0), RETRANSMISSION]
    hops = [HopLine([Fixed(delay_ms=5.0), *radio], 9, "up"), HopLine([], 9, "down")]
    emulated = WaitingLine(radio, 9, "up")
    for i in range(100):
        at_ns = i * 1000 * MS
        assert rtt_ns(hops, at_ns, 98) == emulated.release_ns(at_ns, 98) - at_ns + 5 * MS


def test_probes_in_flight_together_keep_their_order() -> None:
    path = [[Retransmission(probability=0.5, min_ms=50.0, max_ms=90.0)]]
    probes = ProbeSchedule(n=200, interval_ms=1.0)
    rtts = simulate(path, path, probes, runs=2, seed=3)
    received = rtts + probes.offsets_ns()
    assert (np.diff(received, axis=1) >= 0).all()


def test_a_slow_line_queues() -> None:
    """98-byte frames every ms on a line that takes 2 ms for each: every frame waits 1 ms more."""
    line = [Serialise(rate_mbps=98 * 8 / 2000), Fixed(delay_ms=10.0)]
    rtts = simulate([line], [], ProbeSchedule(n=5, interval_ms=1.0), runs=1)[0]
    assert rtts.tolist() == [12 * MS, 13 * MS, 14 * MS, 15 * MS, 16 * MS]


def test_same_seed_same_samples_and_runs_differ() -> None:
    path = [[FrameWait(period_ms=13.4)]]
    first, again, other = (simulate(path, path, PROBES, runs=3, seed=s) for s in (1, 1, 2))
    assert (first == again).all()
    assert not (first == other).any(axis=1).all()
    assert len({tuple(run) for run in first.tolist()}) == 3


def test_unknown_starts_cover_the_grid() -> None:
    grid = [SchedulingRequest(period_ms=1000.0, phase_ms=0.0)]
    waits_ms = simulate([grid], [], ProbeSchedule(n=2), runs=400, seed=1)[:, 0] / MS
    assert waits_ms.mean() == pytest.approx(500.0, abs=5 * 1000 / math.sqrt(12 * 400))
    assert np.ptp(waits_ms) > 950


def test_schedule_offsets() -> None:
    assert ProbeSchedule(n=3, interval_ms=975.4).offsets_ns().tolist() == [
        0,
        975_400_000,
        2 * 975_400_000,
    ]
    jittered = ProbeSchedule(n=500, interval_ms=1000.0, jitter_ms=1000.0, seed=4)
    late_ns = jittered.offsets_ns() - PROBES.model_copy(update={"n": 500}).offsets_ns()
    assert 0 <= late_ns.min() < 20 * MS
    assert 980 * MS < late_ns.max() <= 1000 * MS
    assert (jittered.offsets_ns() == jittered.offsets_ns()).all()
    assert (jittered.offsets_ns(run=1) != jittered.offsets_ns(run=0)).any()


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InputError, match="jitter_ms 2000 exceeds interval_ms 1000"):
        ProbeSchedule(jitter_ms=2000.0).offsets_ns()
    with pytest.raises(InputError, match="1 runs"):
        predict([], [], PROBES, runs=1)


def test_lag1_of_known_series() -> None:
    series = np.array([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 3.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    assert lag1(series).tolist() == pytest.approx([-0.75, 0.25, math.nan], nan_ok=True)


def test_jitter_depends_on_the_probe_clock() -> None:
    """The design note's table: one law, five values of J."""
    note = Path(__file__).parents[2] / "docs" / "notes" / "jitter_vs_probe_clock.py"
    rows = runpy.run_path(str(note))["table"](runs=200)
    jitter = {name: row["J"] for name, row in rows.items()}
    # J of one run of 100 random probes has a standard deviation of 3.4 ms: 0.24 for the mean of 200.
    assert jitter.pop("random") == pytest.approx(33.9, abs=3 * 0.24)
    assert jitter == pytest.approx(
        {
            "steps of 0.5 ms": 6.7,
            "steps of 10.7 ms": 19.6,
            "steps of 21.3 ms": 33.5,
            "steps of 50 ms": 50.0,
        },
        abs=0.3,
    )
    assert all(row["sigma"] == pytest.approx(29.4, abs=1.5) for row in rows.values())
