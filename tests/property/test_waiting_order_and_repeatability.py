"""Whatever the elements and the arrivals: order is kept, nothing leaves early, runs repeat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topo.links.delays import (
    DelayElement,
    Drx,
    Empirical,
    FrameWait,
    Gaussian,
    Retransmission,
    SchedulingRequest,
)
from topo.links.waiting import WaitingLine

ms = st.floats(0, 500)
period_ms = st.floats(0.001, 500)
phase_ms = st.none() | st.floats(-1000, 1000)

elements: st.SearchStrategy[DelayElement] = st.one_of(
    st.builds(FrameWait, period_ms=period_ms, phase_ms=phase_ms),
    st.builds(SchedulingRequest, period_ms=period_ms, phase_ms=phase_ms, grant_delay_ms=ms),
    st.builds(
        lambda cycle, share, inactivity, phase: Drx(
            cycle_ms=cycle, on_ms=cycle * share, inactivity_ms=inactivity, phase_ms=phase
        ),
        period_ms,
        st.floats(0.01, 1),
        ms,
        st.floats(-1000, 1000),
    ),
    st.builds(
        lambda p, low, more: Retransmission(probability=p, min_ms=low, max_ms=low + more),
        st.floats(0, 1),
        ms,
        ms,
    ),
    st.builds(Empirical, samples_ms=st.lists(ms, min_size=1, max_size=5).map(tuple)),
    st.builds(Gaussian, mu_ms=st.floats(-1, 200), sigma_ms=st.floats(0.5, 50)),
)
paths = st.lists(elements, max_size=3)
gaps_ns = st.lists(st.integers(0, 10**9), min_size=1, max_size=40)
seeds = st.integers(0, 2**64)


def arrivals(gaps: list[int]) -> list[int]:
    times, now = [], 0
    for gap in gaps:
        now += gap
        times.append(now)
    return times


@given(paths, gaps_ns, seeds)
def test_first_in_first_out_and_never_early(
    path: list[DelayElement], gaps: list[int], seed: int
) -> None:
    line = WaitingLine(path, seed, "hop a_to_b")
    last_ns = 0
    for at_ns in arrivals(gaps):
        release_ns = line.release_ns(at_ns, 98)
        assert release_ns >= at_ns
        assert release_ns >= last_ns
        last_ns = release_ns


@given(paths, gaps_ns, seeds, st.integers(0, 2 * 10**18))
def test_same_seed_same_releases_on_any_clock(
    path: list[DelayElement], gaps: list[int], seed: int, epoch_ns: int
) -> None:
    here, there = WaitingLine(path, seed, "hop"), WaitingLine(path, seed, "hop", epoch_ns)
    for at_ns in arrivals(gaps):
        assert there.release_ns(epoch_ns + at_ns, 98) == epoch_ns + here.release_ns(at_ns, 98)


@given(st.floats(1, 500), st.floats(-1000, 1000), gaps_ns)
def test_a_known_grid_releases_on_its_points_only(
    period: float, phase: float, gaps: list[int]
) -> None:
    grid = FrameWait(period_ms=period, phase_ms=phase)
    period_ns, phase_ns = round(period * 1e6), round(phase * 1e6)
    line = WaitingLine([grid], 0, "hop")
    for at_ns in arrivals(gaps):
        release_ns = line.release_ns(at_ns, 98)
        assert (release_ns - phase_ns) % period_ns == 0
        assert release_ns - at_ns < period_ns


@given(st.floats(1, 500), st.floats(0.01, 1), st.floats(0, 500), st.floats(-1000, 1000), gaps_ns)
def test_drx_delivers_only_while_awake(
    cycle: float, share: float, inactivity: float, phase: float, gaps: list[int]
) -> None:
    """Every delivery lies in an on duration, or within the inactivity timer of the one before."""
    drx = Drx(cycle_ms=cycle, on_ms=cycle * share, inactivity_ms=inactivity, phase_ms=phase)
    cycle_ns, on_ns = round(cycle * 1e6), round(cycle * share * 1e6)
    line = WaitingLine([drx], 0, "hop")
    last_ns: int | None = None
    for at_ns in arrivals(gaps):
        release_ns = line.release_ns(at_ns, 98)
        in_on_duration = (release_ns - round(phase * 1e6)) % cycle_ns < on_ns
        kept_awake = last_ns is not None and release_ns - last_ns < round(inactivity * 1e6)
        assert in_on_duration or kept_awake
        assert release_ns - at_ns <= cycle_ns - on_ns
        last_ns = release_ns
