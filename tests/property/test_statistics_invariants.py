"""What must hold for RTT statistics whatever the samples."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.statistics import (
    difference_of_means,
    jitter,
    moments,
    paired_overhead,
    rtt_statistics,
    variance_ratio_test,
)

# Integer nanoseconds, as measured, so that no two RTTs differ by less than the clock resolves.
RTT_MS = st.integers(1, 5_000_000_000).map(lambda ns: ns / 1e6)
COMPLETE = st.lists(RTT_MS, min_size=2, max_size=60)
WITH_LOSS = st.lists(st.one_of(RTT_MS, st.just(math.nan)), max_size=60)


@given(WITH_LOSS)
def test_figures_are_ordered_and_bounded(rtt_ms: list[float]) -> None:
    result = rtt_statistics(rtt_ms)
    answered = [rtt for rtt in rtt_ms if not math.isnan(rtt)]
    assert result.n == len(rtt_ms)
    assert result.lost == len(rtt_ms) - len(answered)
    if not answered:
        assert result.mean_ms is None
        return
    assert result.min_ms is not None
    assert result.mean_ms is not None
    assert result.max_ms is not None
    assert result.sigma_ms is not None
    spread = result.max_ms - result.min_ms
    rounding = 1e-9 * result.max_ms
    assert result.min_ms - rounding <= result.mean_ms <= result.max_ms + rounding
    assert 0 <= result.sigma_ms <= spread / 2 + rounding  # Popoviciu's inequality
    if result.jitter_ms is not None:
        assert 0 <= result.jitter_ms <= spread + rounding


@given(COMPLETE)
def test_lag1_without_loss_is_a_correlation(rtt_ms: list[float]) -> None:
    lag1 = rtt_statistics(rtt_ms).lag1
    if len(set(rtt_ms)) == 1:
        assert lag1 is None
    else:
        assert lag1 is not None
        assert -1 - 1e-6 <= lag1 <= 1 + 1e-6


@given(WITH_LOSS)
def test_reversing_time_changes_nothing(rtt_ms: list[float]) -> None:
    forwards, backwards = rtt_statistics(rtt_ms), rtt_statistics(rtt_ms[::-1])
    for name, value in forwards.model_dump().items():
        other = getattr(backwards, name)
        assert (value is None) == (other is None)
        if value is not None:
            assert math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-6)


@given(COMPLETE, st.integers(0, 60))
def test_a_lost_probe_adds_no_jitter_sample(rtt_ms: list[float], position: int) -> None:
    rtt = np.array(rtt_ms)
    lossy = rtt.copy()
    lossy[position % rtt.size] = math.nan
    kept = np.isfinite(jitter(lossy))
    np.testing.assert_array_equal(jitter(lossy)[kept], jitter(rtt)[kept])
    assert kept.size - kept.sum() == (1 if position % rtt.size in {0, rtt.size - 1} else 2)


@settings(deadline=None)  # a busy machine is not a failure
@given(COMPLETE, COMPLETE)
def test_swapping_the_arms_flips_the_sign_and_keeps_p(a: list[float], b: list[float]) -> None:
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    there = difference_of_means(moments(a), moments(b))
    back = difference_of_means(moments(b), moments(a))
    assert there.mean_ms == -back.mean_ms
    assert math.isclose(there.p_value, back.p_value, rel_tol=1e-9)
    assert there.ci95_ms[0] <= there.mean_ms <= there.ci95_ms[1]
    ratio, p_value = variance_ratio_test(moments(a), moments(b))
    other_ratio, other_p = variance_ratio_test(moments(b), moments(a))
    assert math.isclose(ratio * other_ratio, 1, rel_tol=1e-9)
    assert math.isclose(p_value, other_p, rel_tol=1e-6, abs_tol=1e-12)


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(1, 10**9)), st.integers(1, 99))
def test_a_constant_added_to_every_probe_is_found_exactly(rtt_ns: np.ndarray, added: int) -> None:
    plain = rtt_ns / 1e6
    result = paired_overhead(plain, (rtt_ns + added) / 1e6, seed=0)
    assert math.isclose(result.mean_ms, added / 1e6, rel_tol=1e-6, abs_tol=1e-9)
    assert (result.t, result.p_value) == (None, 0.0)
