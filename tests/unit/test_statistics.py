"""RTT statistics against the paper's equations written out, scipy, and the published arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from experiments import published
from experiments.statistics import (
    Moments,
    bootstrap_ci,
    confidence_intervals,
    difference_of_means,
    jitter,
    jitter_test,
    lag1_autocorrelation,
    mean_jitter,
    moments,
    overhead,
    paired_overhead,
    rtt_statistics,
    sigma_from_jitter,
    variance_ratio_test,
)
from topo.errors import MeasurementError
from topo.links import predictor

NAN = math.nan


def normal(mean_ms: float, sd_ms: float, n: int = 100, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean_ms, sd_ms, n)


def published_moments(arm: str) -> Moments:
    """The paper gives no standard deviation: the one its jitter implies."""
    rtt = published.ARMS[arm].rtt
    return Moments(rtt.mean_ms, sigma_from_jitter(rtt.jitter_ms), published.ARMS[arm].n)


class TestEquations:
    def test_a_case_by_hand(self) -> None:
        result = rtt_statistics([600.0, 660.0, 640.0, 700.0])
        assert (result.n, result.lost) == (4, 0)
        assert (result.min_ms, result.mean_ms, result.max_ms) == (600.0, 650.0, 700.0)
        assert result.sigma_ms == pytest.approx(math.sqrt((2500 + 100 + 100 + 2500) / 4))
        assert result.jitter_ms == pytest.approx((60 + 20 + 60) / 3)
        # Deviations -50, 10, -10, 50: products -500, -100, -500 over squares 5200.
        assert result.lag1 == pytest.approx(-1100 / 5200)

    def test_against_the_equations_as_printed(self) -> None:
        rtt = normal(660, 34).tolist()
        n, mean = len(rtt), sum(rtt) / len(rtt)
        result = rtt_statistics(rtt)
        assert result.mean_ms == pytest.approx(mean)
        assert result.sigma_ms == pytest.approx(math.sqrt(sum((t - mean) ** 2 for t in rtt) / n))
        steps = [abs(rtt[i] - rtt[i - 1]) for i in range(1, n)]
        assert result.jitter_ms == pytest.approx(sum(steps) / len(steps))

    def test_lag1_against_the_predictors(self) -> None:
        rtt = normal(660, 34).cumsum()
        assert lag1_autocorrelation(rtt) == pytest.approx(float(predictor.lag1(rtt[np.newaxis])[0]))

    def test_lag1_tells_a_sawtooth_from_noise_and_alternation(self) -> None:
        sawtooth = 600 + np.arange(1000) * 10.7 % 87.7
        assert lag1_autocorrelation(sawtooth) > 0.3
        assert lag1_autocorrelation(np.tile([600.0, 700.0], 500)) < -0.99
        assert abs(lag1_autocorrelation(normal(600, 20, 10_000))) < 0.03


class TestLoss:
    def test_a_lost_probe_breaks_two_differences_and_bridges_none(self) -> None:
        rtt = [600.0, 610.0, NAN, 700.0, 730.0]
        np.testing.assert_array_equal(jitter(rtt), [10.0, NAN, NAN, 30.0])
        assert mean_jitter(rtt) == 20.0
        result = rtt_statistics(rtt)
        assert (result.n, result.lost, result.mean_ms) == (5, 1, 660.0)

    def test_without_consecutive_answers_jitter_is_undefined(self) -> None:
        result = rtt_statistics([600.0, NAN, 610.0])
        assert (result.jitter_ms, result.lag1, result.mean_ms) == (None, None, 605.0)

    def test_all_lost(self) -> None:
        result = rtt_statistics([NAN] * 100)
        assert (result.n, result.lost) == (100, 100)
        figures = result.model_dump(exclude={"n", "lost"})
        assert set(figures.values()) == {None}

    def test_losing_probes_at_random_does_not_bias_lag1(self) -> None:
        rng = np.random.default_rng(3)
        noise = rng.normal(size=20_000)
        rtt = 600 + np.array([noise[0], *(noise[1:] + 0.8 * noise[:-1])])
        complete = lag1_autocorrelation(rtt)
        assert complete == pytest.approx(0.8 / 1.64, abs=0.02)
        rtt[rng.random(rtt.size) < 0.3] = NAN
        assert lag1_autocorrelation(rtt) == pytest.approx(complete, abs=0.03)

    def test_identical_rtts_have_no_jitter_and_no_autocorrelation(self) -> None:
        result = rtt_statistics([544.584001] * 99)
        assert (result.sigma_ms, result.jitter_ms, result.lag1) == (0.0, 0.0, None)
        assert result.mean_ms == pytest.approx(544.584001)


class TestPublishedClaims:
    """The two claims, on the paper's own numbers."""

    def test_five_milliseconds_are_inside_the_noise(self) -> None:
        claim = difference_of_means(published_moments("plain"), published_moments("encrypted"))
        assert claim.mean_ms == published.ENCRYPTION_OVERHEAD_MS
        assert claim.standard_error_ms == pytest.approx(3.8, abs=0.05)
        assert claim.t == pytest.approx(1.3, abs=0.05)
        assert claim.p_value == pytest.approx(0.19, abs=0.005)
        assert claim.ci95_ms == pytest.approx((-2.4, 12.4), abs=0.05)
        assert claim.n_for_80_percent_power == pytest.approx(445, abs=1)

    def test_jitter_differs_between_the_two_sessions(self) -> None:
        ratio, p_value = variance_ratio_test(
            published_moments("plain"), published_moments("encrypted")
        )
        assert ratio == pytest.approx(4.0)
        assert p_value == pytest.approx(3e-11, rel=0.2)

    def test_the_paper_rounds_its_percentages_from_its_means(self) -> None:
        plain, encrypted = published.ARMS["plain"].rtt, published.ARMS["encrypted"].rtt
        assert encrypted.mean_ms - plain.mean_ms == published.ENCRYPTION_OVERHEAD_MS
        percent = 100 * published.ENCRYPTION_OVERHEAD_MS / plain.mean_ms
        assert percent == pytest.approx(published.ENCRYPTION_OVERHEAD_PERCENT, abs=0.01)
        assert encrypted.jitter_ms == plain.jitter_ms * (
            1 - published.JITTER_REDUCTION_PERCENT / 100
        )

    def test_the_figures_as_printed_in_section_4(self) -> None:
        printed = {
            "satellite": (562, 576, 586, 6),
            "plain": (600, 660, 765, 38),
            "encrypted": (617, 665, 713, 19),
        }
        ours = {
            name: (arm.rtt.min_ms, arm.rtt.mean_ms, arm.rtt.max_ms, arm.rtt.jitter_ms)
            for name, arm in published.ARMS.items()
        }
        assert ours == printed
        assert published.THEORETICAL_RTT_MS == 2 * published.VSAT_TO_DN_ONE_WAY_MS

    def test_sigma_from_jitter_on_normal_samples(self) -> None:
        rtt = normal(660, 34, 200_000)
        assert sigma_from_jitter(mean_jitter(rtt)) == pytest.approx(34, rel=0.01)


class TestOverhead:
    def test_against_scipy(self) -> None:
        plain, encrypted = normal(660, 34, seed=1), normal(668, 17, 120, seed=2)
        result = overhead(plain, encrypted, seed=0)
        welch = stats.ttest_ind(encrypted, plain, equal_var=False)
        assert result.t == pytest.approx(float(welch.statistic))
        assert result.p_value == pytest.approx(float(welch.pvalue))
        rank = stats.mannwhitneyu(encrypted, plain)
        assert result.mann_whitney_p == pytest.approx(float(rank.pvalue))
        moments_only = difference_of_means(moments(plain), moments(encrypted))
        interval = welch.confidence_interval()
        assert moments_only.ci95_ms == pytest.approx((float(interval.low), float(interval.high)))
        # Independent samples: the bootstrap must come out where Welch's interval does.
        assert result.ci95_ms == pytest.approx(moments_only.ci95_ms, abs=1.5)

    def test_power_is_what_simulation_finds(self) -> None:
        n = difference_of_means(Moments(0, 34, 100), Moments(10, 17, 100)).n_for_80_percent_power
        assert n is not None
        rng = np.random.default_rng(4)
        found = stats.ttest_ind(
            rng.normal(0, 34, (2000, n)), rng.normal(10, 17, (2000, n)), axis=1, equal_var=False
        )
        assert np.mean(found.pvalue < 0.05) == pytest.approx(0.8, abs=0.03)

    def test_blocks_widen_the_interval_of_autocorrelated_arms(self) -> None:
        rng = np.random.default_rng(5)
        noise = rng.normal(size=(2, 1009))
        smooth = np.array([np.convolve(row, np.ones(10), "valid") for row in noise]) + 600
        result = overhead(smooth[0], smooth[1], seed=0)
        iid = difference_of_means(moments(smooth[0]), moments(smooth[1]))
        width = result.ci95_ms[1] - result.ci95_ms[0]
        assert width > 2 * (iid.ci95_ms[1] - iid.ci95_ms[0])

    def test_lost_probes_are_left_out(self) -> None:
        plain, encrypted = normal(660, 34), normal(665, 17, seed=2)
        with_losses = np.insert(plain, [3, 50], NAN)
        assert overhead(with_losses, encrypted, seed=0) == overhead(plain, encrypted, seed=0)

    def test_deterministic_arms_make_the_difference_certain(self) -> None:
        result = overhead([544.584] * 10, [545.584] * 10, seed=0)
        assert result.mean_ms == pytest.approx(1.0)
        assert result.ci95_ms == pytest.approx((1.0, 1.0))
        assert (result.p_value, result.t, result.n_for_80_percent_power) == (0.0, None, 2)
        same = overhead([544.584] * 10, [544.584] * 10, seed=0)
        assert (same.p_value, same.n_for_80_percent_power) == (1.0, None)

    def test_pairing_cancels_what_both_arms_share(self) -> None:
        plain = normal(660, 34)
        encrypted = plain + normal(0.4, 0.01, seed=2)
        paired = paired_overhead(plain, encrypted, seed=0)
        scipys = stats.ttest_rel(encrypted, plain)
        assert paired.mean_ms == pytest.approx(0.4, abs=0.01)
        assert paired.t == pytest.approx(float(scipys.statistic), rel=1e-4)
        assert paired.ci95_ms[0] > 0.39
        unpaired = overhead(plain, encrypted, seed=0)
        assert unpaired.ci95_ms[0] < 0 < unpaired.ci95_ms[1]

    def test_pairs_need_both_answers(self) -> None:
        plain, encrypted = [600.0, NAN, 610.0, 620.0], [601.0, 700.0, NAN, 622.0]
        assert paired_overhead(plain, encrypted, seed=0).mean_ms == pytest.approx(1.5)

    def test_one_answer_is_not_enough(self) -> None:
        with pytest.raises(MeasurementError, match="arm encrypted: 1 answered"):
            overhead([1.0, 2.0], [1.0, NAN], seed=0)


class TestJitterClaim:
    def test_halved_spread_is_found(self) -> None:
        plain, encrypted = normal(660, 34), normal(665, 17, seed=2)
        result = jitter_test(plain, encrypted, seed=0)
        assert result.jitter_ratio == pytest.approx(mean_jitter(encrypted) / mean_jitter(plain))
        assert result.ci95[0] < 0.5 < result.ci95[1] < 1
        assert result.f_test_p < 1e-6
        levene = stats.levene(plain, encrypted, center="median")
        assert result.levene_p == pytest.approx(float(levene.pvalue))

    def test_equal_spread_is_not_found_different(self) -> None:
        rng = np.random.default_rng(6)
        p_values = [
            variance_ratio_test(moments(rng.normal(0, 5, 30)), moments(rng.normal(9, 5, 40)))[1]
            for _ in range(400)
        ]
        # Under the null the p value is uniform.
        assert stats.kstest(p_values, "uniform").pvalue > 0.01

    def test_undefined_ratios_are_refused(self) -> None:
        with pytest.raises(MeasurementError, match="does not vary"):
            jitter_test([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], seed=0)
        with pytest.raises(MeasurementError, match="consecutive"):
            jitter_test([1.0, NAN, 3.0], [1.0, 2.0, 3.0], seed=0)


class TestBootstrap:
    def test_same_seed_same_interval(self) -> None:
        values = normal(660, 34)
        assert bootstrap_ci(values, seed=7) == bootstrap_ci(values, seed=7)
        assert bootstrap_ci(values, seed=7) != bootstrap_ci(values, seed=8)

    def test_against_scipy(self) -> None:
        values = normal(660, 34)
        scipys = stats.bootstrap(
            (values,), np.median, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        ours = bootstrap_ci(values, np.median, seed=1)
        assert ours == pytest.approx((float(scipys.low), float(scipys.high)), abs=1.0)

    def test_coverage_of_the_mean(self) -> None:
        rng = np.random.default_rng(2)
        covered = 0
        for _ in range(200):
            low, high = bootstrap_ci(rng.normal(0, 1, 60), seed=3, resamples=600)
            covered += low <= 0 <= high
        assert 0.89 <= covered / 200 <= 0.99

    def test_large_samples_are_resampled_in_pieces(self) -> None:
        values = np.arange(300_000.0)
        low, high = bootstrap_ci(values, seed=1, resamples=20)
        assert low < 149_999.5 < high

    def test_nothing_to_resample(self) -> None:
        with pytest.raises(MeasurementError, match="no samples"):
            bootstrap_ci([NAN, NAN], seed=1)


def test_confidence_intervals_hold_their_figures_and_say_none_for_nothing() -> None:
    rtt_ms = np.random.default_rng(3).normal(660.0, 30.0, 400)
    of_mean, of_jitter = confidence_intervals(rtt_ms, seed=1)
    assert of_mean is not None and of_jitter is not None
    assert of_mean[0] < rtt_ms.mean() < of_mean[1]
    assert of_mean[1] - of_mean[0] == pytest.approx(2 * 1.96 * 30 / 20, rel=0.25)
    assert of_jitter[0] < np.abs(np.diff(rtt_ms)).mean() < of_jitter[1]
    assert confidence_intervals([np.nan, 1.0, np.nan], seed=1) == ((1.0, 1.0), None)
    assert confidence_intervals([np.nan], seed=1) == (None, None)
