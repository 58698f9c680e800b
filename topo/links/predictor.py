"""What min, mean, max, σ, J and lag-1 autocorrelation n probes of a path should show, and how much
these differ from run to run.

The prediction simulates the very waiting lines of the emulated hops, packet by packet at absolute
times; nothing is fitted here. Statistics are the paper's (Photonics 12, 1182): mean, equation (3);
σ, the population standard deviation, (4); J, the mean of |T_i - T_(i-1)|, (5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from topo.errors import InputError
from topo.links.delays import (
    PING_FRAME_BYTES,
    DelayElement,
    Ms,
    PositiveMs,
    ms_to_ns,
    netem_delay_ns,
    netem_rate,
    waiting,
)
from topo.links.waiting import WaitingLine, direction_rng

Path = Sequence[Sequence[DelayElement]]
"""The elements of each hop of one direction, in the order a packet meets the hops."""

UNKNOWN_START_NS = 3_600 * 10**9  # a start that is not known is uniform over this: ≫ any grid


class ProbeSchedule(BaseModel):
    """When a measurement's probes leave."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: Annotated[int, Field(strict=True, ge=2)] = 100
    interval_ms: PositiveMs = 1000.0
    jitter_ms: Ms = 0.0
    """Each probe leaves later than its isochronous time by a uniform draw over this, so that the
    probes do not keep step with a grid on the path (RFC 2330 section 11.1)."""
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    """Of the jitter."""
    start_ms: Ms | None = None
    """Time of probe 0 after the run's epoch. None: not known, and drawn anew for every run."""
    size_bytes: Annotated[int, Field(strict=True, ge=60)] = PING_FRAME_BYTES
    """Length of the Ethernet frame, header included."""

    def offsets_ns(self, run: int = 0) -> NDArray[np.int64]:
        """When each probe leaves after the schedule's start, int64 ns, shape (n,), ascending.

        Runs differ in their jitter only. `InputError` if jitter could change the probes' order.
        """
        if self.jitter_ms > self.interval_ms:
            raise InputError(
                f"jitter_ms {self.jitter_ms:g} exceeds interval_ms {self.interval_ms:g}"
            )
        isochronous = np.arange(self.n, dtype=np.int64) * ms_to_ns(self.interval_ms)
        draws = direction_rng(self.seed, f"probes of run {run}").random(self.n)
        return isochronous + np.rint(draws * ms_to_ns(self.jitter_ms)).astype(np.int64)


class Expected(NamedTuple):
    """A statistic's expectation and its standard deviation from run to run."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Prediction:
    """What a run of `n` probes is expected to show, from `runs` simulated ones. Times in ms."""

    n: int
    runs: int
    min_ms: Expected
    mean_ms: Expected
    max_ms: Expected
    sigma_ms: Expected
    jitter_ms: Expected
    lag1: Expected
    """Autocorrelation of successive RTTs; NaN where the RTT does not vary."""


class HopLine:
    """One direction of one emulated hop, as built: the waiting line, then netem's rate and delay.

    `name` and `seed` pick the random stream, as in `WaitingLine`: with those of an emulated hop,
    the waits are that hop's own.
    """

    def __init__(self, elements: Sequence[DelayElement], seed: int, name: str) -> None:
        self._line = WaitingLine(waiting(elements), seed, name)
        self._delay_ns = netem_delay_ns(elements)
        self._rate = netem_rate(elements)
        self._last_out_ns = 0

    def out_ns(self, in_ns: int, size_bytes: int) -> int:
        """When a frame that enters the hop at `in_ns` leaves it, in ns since the epoch."""
        out_ns = self._line.release_ns(in_ns, size_bytes) + self._delay_ns
        if self._rate is not None:  # netem: after the delay, and after the frame ahead
            serialise_ms = self._rate.mean_ms(size_bytes)
            out_ns = self._last_out_ns = max(out_ns, self._last_out_ns) + ms_to_ns(serialise_ms)
        return out_ns


def rtt_ns(hops: Sequence[HopLine], sent_ns: int, size_bytes: int) -> int:
    """Round-trip time of a probe sent at `sent_ns`, through the hops there and back, in ns.

    Probes must be handed in in the order they are sent; the hops remember them.
    """
    at_ns = sent_ns
    for hop in hops:
        at_ns = hop.out_ns(at_ns, size_bytes)
    return at_ns - sent_ns


def simulate(
    forward: Path, backward: Path, probes: ProbeSchedule, runs: int = 200, seed: int = 0
) -> NDArray[np.int64]:
    """RTTs of `runs` independent runs of the probes over the path, int64 ns, shape (runs, n).

    Each run has new random streams and, unless the schedule fixes it, a new start, uniform over an
    hour: so a grid of known phase meets the probes at any phase. The element lists may be empty.
    """
    rtts = np.empty((runs, probes.n), dtype=np.int64)
    directions = [(f"forward {i}", e) for i, e in enumerate(forward)]
    directions += [(f"backward {i}", e) for i, e in enumerate(backward)]
    for run in range(runs):
        rng = direction_rng(seed, f"run {run}")
        run_seed = int(rng.integers(2**63))
        start_ns = int(rng.integers(UNKNOWN_START_NS))
        if probes.start_ms is not None:
            start_ns = ms_to_ns(probes.start_ms)
        hops = [HopLine(elements, run_seed, name) for name, elements in directions]
        sent = (start_ns + probes.offsets_ns(run)).tolist()
        rtts[run] = [rtt_ns(hops, sent_ns, probes.size_bytes) for sent_ns in sent]
    return rtts


def predict(
    forward: Path, backward: Path, probes: ProbeSchedule, runs: int = 200, seed: int = 0
) -> Prediction:
    """Expected statistics of a run of the probes over the path, with their run-to-run deviations.

    `forward` and `backward` hold every element of the path, constants included. Arguments as for
    `simulate`; `InputError` for fewer than two runs. The error of each expectation is its sd/√runs.
    """
    if runs < 2:
        raise InputError(f"{runs} runs cannot show a run-to-run deviation: at least 2")
    rtt_ms = simulate(forward, backward, probes, runs, seed) / 1e6
    return Prediction(
        n=probes.n,
        runs=runs,
        min_ms=_expected(rtt_ms.min(axis=1)),
        mean_ms=_expected(rtt_ms.mean(axis=1)),
        max_ms=_expected(rtt_ms.max(axis=1)),
        sigma_ms=_expected(rtt_ms.std(axis=1)),
        jitter_ms=_expected(np.abs(np.diff(rtt_ms, axis=1)).mean(axis=1)),
        lag1=_expected(lag1(rtt_ms)),
    )


def lag1(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lag-1 autocorrelation along the last axis: NaN where the samples do not vary.

    Σ (T_i - μ)(T_(i+1) - μ) / Σ (T_i - μ)², Box & Jenkins' estimator.
    """
    centred = samples - samples.mean(axis=-1, keepdims=True)
    products = (centred[..., 1:] * centred[..., :-1]).sum(axis=-1)
    squares = (centred**2).sum(axis=-1)
    constant = np.ptp(samples, axis=-1) == 0
    return np.where(constant, np.nan, products / np.where(constant, 1.0, squares))


def _expected(values: NDArray[np.float64]) -> Expected:
    return Expected(float(values.mean()), float(values.std(ddof=1)))
