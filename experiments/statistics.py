"""RTT statistics: the paper's equations (3)-(5), and tests of its two claims.

RTTs are arrays of milliseconds in the order the probes were sent, one element a probe, NaN where
the probe was lost. Consecutive means consecutive in that order: a lost probe takes away both
differences it is part of, and never pairs the probes on either side of it, which are two intervals
apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from experiments.summary import JitterTest, Overhead, RttStatistics
from topo.errors import MeasurementError

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.80
RESAMPLES = 10_000
RESAMPLED_AT_ONCE = 2_000_000
"""Values held in memory at a time while resampling."""


class Moments(NamedTuple):
    """What a test of two arms needs of each."""

    mean_ms: float
    sd_ms: float
    """Sample standard deviation, n - 1."""
    n: int


def moments(rtt_ms: npt.ArrayLike) -> Moments:
    """Mean, sample standard deviation and count of answered RTTs (no NaN among them)."""
    rtt = np.asarray(rtt_ms, dtype=np.float64)
    return Moments(float(rtt.mean()), _standard_deviation(rtt, ddof=1), rtt.size)


def rtt_statistics(rtt_ms: npt.ArrayLike) -> RttStatistics:
    """Count, loss, extremes, mean, sigma, jitter and lag-1 autocorrelation of one arm's RTTs.

    `rtt_ms` has shape (n,), NaN for a lost probe. Equations (3) mean, (4) population standard
    deviation, (5) mean jitter. A figure without the samples it needs is `None`.
    """
    rtt = np.asarray(rtt_ms, dtype=np.float64)
    answered = rtt[np.isfinite(rtt)]
    if answered.size == 0:
        return RttStatistics(
            n=rtt.size,
            lost=rtt.size,
            min_ms=None,
            mean_ms=None,
            max_ms=None,
            sigma_ms=None,
            jitter_ms=None,
            lag1=None,
        )
    return RttStatistics(
        n=rtt.size,
        lost=rtt.size - answered.size,
        min_ms=float(answered.min()),
        mean_ms=float(answered.mean()),
        max_ms=float(answered.max()),
        sigma_ms=_standard_deviation(answered),
        jitter_ms=_none_if_nan(mean_jitter(rtt)),
        lag1=_none_if_nan(lag1_autocorrelation(rtt)),
    )


def jitter(rtt_ms: npt.ArrayLike) -> FloatArray:
    """Jitter of each probe after the first, |T_i - T_(i-1)| in ms, equation (5).

    Shape (..., n) -> (..., n - 1); NaN where either of the two probes was lost.
    """
    return np.abs(np.diff(np.asarray(rtt_ms, dtype=np.float64), axis=-1))


def mean_jitter(rtt_ms: npt.ArrayLike) -> float:
    """Mean of equation (5) in ms over consecutive answered probes; NaN without such a pair."""
    values = jitter(rtt_ms)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan


def lag1_autocorrelation(rtt_ms: npt.ArrayLike) -> float:
    """Autocorrelation of consecutive RTTs, in [-1, 1] but for rounding when no probe is lost.

    Without loss, the usual estimator (Box & Jenkins): the sum of products of consecutive deviations
    from the mean over the sum of their squares. With loss, both sums become averages over the terms
    that exist (Parzen 1963). NaN without two consecutive answers, or when all RTTs are identical.
    """
    rtt = np.asarray(rtt_ms, dtype=np.float64)
    answered = rtt[np.isfinite(rtt)]
    if answered.size == 0 or _standard_deviation(answered) == 0:
        return math.nan
    deviation = rtt - answered.mean()
    products = deviation[1:] * deviation[:-1]
    products = products[np.isfinite(products)]
    if products.size == 0:
        return math.nan
    return float(products.mean() / answered.var() * (rtt.size - 1) / rtt.size)


def sigma_from_jitter(jitter_ms: float) -> float:
    """Standard deviation in ms that a mean jitter implies for independent normal RTTs.

    J sqrt(pi) / 2: the difference of two independent normals has mean magnitude 2 sigma / sqrt(pi).
    The only way to a spread where, as in the paper, none was published; autocorrelated RTTs are
    wider than this.
    """
    return jitter_ms * math.sqrt(math.pi) / 2


def bootstrap_ci(
    values: npt.ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    block_length: int = 1,
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a statistic of `values`.

    `values` has shape (n,), NaN dropped; `statistic` takes an array and `axis=`; the same seed
    gives the same interval. `block_length` > 1 resamples circular blocks of consecutive values,
    which keeps their autocorrelation (Politis & Romano 1992). Raises `MeasurementError` when there
    is nothing to resample.
    """
    replicates = _replicates(
        values, statistic, np.random.default_rng(seed), resamples, block_length
    )
    return _percentiles(replicates, confidence)


def confidence_intervals(
    rtt_ms: npt.ArrayLike, *, seed: int
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """95 % intervals of the mean RTT and of J of one arm in ms, block bootstraps.

    `rtt_ms` has shape (n,) in sending order, NaN for lost. None where there is nothing to resample.
    """
    values = np.asarray(rtt_ms, dtype=np.float64)
    block = _block_length(values.size)
    intervals = [
        bootstrap_ci(series, seed=seed, block_length=block) if np.isfinite(series).any() else None
        for series in (values, jitter(values))
    ]
    return intervals[0], intervals[1]


def difference_of_means(a: Moments, b: Moments) -> Overhead:
    """Welch's test of mean b minus mean a, from the moments alone.

    The interval is Welch's. Power: the n an arm at which a two-sided 5 % test finds the observed
    difference four times in five, (z_0.975 + z_0.8)^2 (sd_a^2 + sd_b^2) / difference^2.
    """
    variance_a, variance_b = a.sd_ms**2 / a.n, b.sd_ms**2 / b.n
    spread = variance_a**2 / (a.n - 1) + variance_b**2 / (b.n - 1)
    return _t_test(
        b.mean_ms - a.mean_ms,
        standard_error_ms=math.sqrt(variance_a + variance_b),
        degrees=(variance_a + variance_b) ** 2 / spread if spread > 0 else math.inf,
        variance_per_probe=a.sd_ms**2 + b.sd_ms**2,
    )


def overhead(plain_ms: npt.ArrayLike, encrypted_ms: npt.ArrayLike, *, seed: int) -> Overhead:
    """The test of the paper's 5 ms claim: mean RTT of the encrypted minus the plain arm.

    Arrays of shape (n,) in sending order, NaN for lost. p by Welch's t and by the Mann-Whitney rank
    test, both of which take probes as independent; the interval is a block bootstrap of n^(1/3)
    consecutive probes a block, which does not. Raises `MeasurementError` when an arm has fewer than
    two answers.
    """
    plain, encrypted = _answered(plain_ms, "plain"), _answered(encrypted_ms, "encrypted")
    welch = difference_of_means(moments(plain), moments(encrypted))
    rng = np.random.default_rng(seed)
    means = [
        _replicates(arm, np.mean, rng, RESAMPLES, _block_length(arm.size))
        for arm in (plain, encrypted)
    ]
    rank = stats.mannwhitneyu(encrypted, plain, alternative="two-sided")
    return welch.model_copy(
        update={
            "ci95_ms": _percentiles(means[1] - means[0], CONFIDENCE),
            "mann_whitney_p": float(rank.pvalue),
        }
    )


def paired_overhead(plain_ms: npt.ArrayLike, encrypted_ms: npt.ArrayLike, *, seed: int) -> Overhead:
    """The same difference where probe i of both arms met the same radio: mean of T_e,i - T_p,i.

    Arrays of one shape (n,), NaN for lost. Valid only when both arms were given the same schedule
    and the same seeded draws; what the two share then cancels. Paired t test; block bootstrap
    interval. Raises `MeasurementError` when fewer than two probes were answered in both arms.
    """
    difference = np.asarray(encrypted_ms, dtype=np.float64) - np.asarray(plain_ms, dtype=np.float64)
    difference = _answered(difference, "of pairs")
    # Below the clock's nanosecond the spread is the rounding of the subtraction, not a measurement.
    sd = _standard_deviation(np.round(difference, 6), ddof=1)
    paired = _t_test(
        float(difference.mean()),
        standard_error_ms=sd / math.sqrt(difference.size),
        degrees=difference.size - 1,
        variance_per_probe=sd**2,
    )
    interval = bootstrap_ci(difference, seed=seed, block_length=_block_length(difference.size))
    return paired.model_copy(update={"ci95_ms": interval})


def variance_ratio_test(a: Moments, b: Moments) -> tuple[float, float]:
    """F test of equal variances from the moments: (variance a over variance b, two-sided p).

    Assumes independent normal RTTs. Raises `MeasurementError` when an arm does not vary.
    """
    if a.sd_ms == 0 or b.sd_ms == 0:
        raise MeasurementError("an arm does not vary: a ratio of variances cannot be tested")
    ratio = (a.sd_ms / b.sd_ms) ** 2
    law = stats.f(a.n - 1, b.n - 1)
    return ratio, min(1.0, 2 * min(float(law.sf(ratio)), float(law.cdf(ratio))))


def jitter_test(plain_ms: npt.ArrayLike, encrypted_ms: npt.ArrayLike, *, seed: int) -> JitterTest:
    """The test of the paper's claim that the tunnel halves jitter: mean J of encrypted over plain.

    Arrays of shape (n,) in sending order, NaN for lost. The interval of the ratio is a block
    bootstrap of J_i; the F test and Levene's test compare the variances of the RTTs. Raises
    `MeasurementError` when an arm has fewer than two answers or does not vary.
    """
    plain, encrypted = _answered(plain_ms, "plain"), _answered(encrypted_ms, "encrypted")
    ratio, p_value = variance_ratio_test(moments(plain), moments(encrypted))
    rng = np.random.default_rng(seed)
    j_plain, j_encrypted = mean_jitter(plain_ms), mean_jitter(encrypted_ms)
    if not (j_plain > 0 and math.isfinite(j_encrypted)):
        raise MeasurementError("jitter needs two consecutive answers that differ in each arm")
    means = [
        _replicates(jitter(arm), np.mean, rng, RESAMPLES, _block_length(np.size(arm)))
        for arm in (plain_ms, encrypted_ms)
    ]
    return JitterTest(
        jitter_ratio=j_encrypted / j_plain,
        ci95=_percentiles(means[1] / means[0], CONFIDENCE),
        variance_ratio=ratio,
        f_test_p=p_value,
        levene_p=float(stats.levene(plain, encrypted, center="median").pvalue),
    )


def _standard_deviation(values: FloatArray, ddof: int = 0) -> float:
    """Standard deviation; exactly 0 for identical values, whose mean may round away from them."""
    return float(values.std(ddof=ddof)) if np.ptp(values) > 0 else 0.0


def _answered(rtt_ms: npt.ArrayLike, arm: str) -> FloatArray:
    rtt = np.asarray(rtt_ms, dtype=np.float64)
    rtt = rtt[np.isfinite(rtt)]
    if rtt.size < 2:
        raise MeasurementError(f"arm {arm}: {rtt.size} answered probes, a test needs at least two")
    return rtt


def _block_length(n: int) -> int:
    return max(1, round(math.cbrt(n)))


def _replicates(
    values: npt.ArrayLike,
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    resamples: int,
    block_length: int,
) -> FloatArray:
    data = np.asarray(values, dtype=np.float64)
    data = data[np.isfinite(data)]
    if data.size == 0:
        raise MeasurementError("no samples: a confidence interval needs at least one")
    blocks = -(-data.size // block_length)
    at_once = max(1, RESAMPLED_AT_ONCE // data.size)
    replicates = []
    for done in range(0, resamples, at_once):
        starts = rng.integers(data.size, size=(min(at_once, resamples - done), blocks, 1))
        index = (starts + np.arange(block_length)) % data.size
        sample = data[index.reshape(len(starts), -1)[:, : data.size]]
        replicates.append(np.asarray(statistic(sample, axis=-1), dtype=np.float64))
    return np.concatenate(replicates)


def _percentiles(replicates: FloatArray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(replicates, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _t_test(
    difference_ms: float, *, standard_error_ms: float, degrees: float, variance_per_probe: float
) -> Overhead:
    """Two-sided t test of a difference against zero; exact samples make any difference certain."""
    if standard_error_ms > 0:
        t = difference_ms / standard_error_ms
        p_value = 2 * float(stats.t.sf(abs(t), degrees))
        half_width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees)) * standard_error_ms
    else:
        t, p_value, half_width = None, float(difference_ms == 0), 0.0
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2) + stats.norm.ppf(POWER))
    return Overhead(
        mean_ms=difference_ms,
        ci95_ms=(difference_ms - half_width, difference_ms + half_width),
        p_value=p_value,
        t=t,
        standard_error_ms=standard_error_ms,
        n_for_80_percent_power=(
            max(2, math.ceil(z**2 * variance_per_probe / difference_ms**2))
            if difference_ms != 0
            else None
        ),
    )


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
