"""The source settings and the part of a pass that are expected to make the most secret key.

Free are the basis bias, the two brighter intensities, how often each of the three is sent, and how
much of the pass is used: the slots of least loss, which is a window about culmination. Nelder and
Mead's simplex search goes from several starts, in coordinates in which every point is a possible
source. (The key length has kinks where a bound is clipped, so gradients mislead.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax

from quantum.bb84.expected import ExpectedKey, counts_at, key_of
from quantum.bb84.leakage import EFFICIENCY
from quantum.bb84.source import BASES, Bb84Parameters
from quantum.optics import Downlink
from topo.errors import InputError
from topo.space.passes import Pass

Point = NDArray[np.float64]

MAX_INTENSITY = 2.0
"""Beyond, most pulses that hold a photon hold several."""

RANDOM_STARTS = 4
COARSE_EVALUATIONS = 250
"""What every start gets, before the best few are followed to their ends."""
FOLLOWED = 2
FINE_EVALUATIONS = 1500
EDGE = 1e-3
"""How near to an end of (0, 1) a start may lie: from the very end no search returns."""


@dataclass(frozen=True)
class Optimum:
    """The best source and window found for a pass, beside what was there before."""

    baseline: ExpectedKey
    """What the given source is expected to yield from the whole pass."""
    best: ExpectedKey
    """What the optimum is expected to yield."""
    parameters: Bb84Parameters
    window_s: tuple[float, float]
    """First and last used slot centre, from culmination."""
    evaluations: int
    """Key lengths computed on the way."""

    @property
    def gain(self) -> float:
        """Expected secret bits over those of the baseline; infinite where that had none."""
        before = self.baseline.secret_bits
        return self.best.secret_bits / before if before else float("inf")

    def report(self) -> dict[str, Any]:
        """JSON-able: secret bits expected before and after, their ratio, the settings found."""
        return {
            "baseline_secret_bits": self.baseline.secret_bits,
            "secret_bits": self.best.secret_bits,
            "gain": self.gain if self.baseline.secret_bits else None,
            "basis_x_probability": self.parameters.basis_x_probability,
            "intensities": list(self.parameters.intensities),
            "intensity_probabilities": list(self.parameters.intensity_probabilities),
            "window_s": list(self.window_s),
            "evaluations": self.evaluations,
        }


def optimise(
    pass_: Pass,
    downlink: Downlink,
    parameters: Bb84Parameters,
    *,
    efficiency: float = EFFICIENCY,
    keyed: Sequence[str] = BASES,
    progress: Callable[[float], None] = lambda done: None,
    seed: int = 0,
) -> Optimum:
    """Find the source settings and the window of a pass that maximise its expected secret key.

    `parameters` is the baseline and gives what is not varied: pulse rate, security parameters,
    bound, mu3 (and whether there is one). `keyed` are the bases that key is taken from, `efficiency` the f of error
    correction; `seed` draws the random starts. The optimum is never below the baseline. Raises
    `InputError` where no setting gives any key, or the baseline's mu1 is above `MAX_INTENSITY`.
    """
    if parameters.intensities[0] >= MAX_INTENSITY:
        raise InputError(
            f"intensities {parameters.intensities}: optimising searches below {MAX_INTENSITY}"
        )
    search = _Search(pass_, downlink, parameters, efficiency, keyed)
    starts = list(search.starts(np.random.default_rng(seed)))
    steps = len(starts) + FOLLOWED
    ends = []
    for number, start in enumerate(starts, 1):
        ends.append(search.descend(start, COARSE_EVALUATIONS))
        progress(number / steps)
    ends.sort(key=search.cost)
    if search.cost(ends[0]) >= 0:
        raise InputError(f"optimise: over {downlink.name} this pass has no key with any source")
    followed = []
    for number, end in enumerate(ends[:FOLLOWED], len(starts) + 1):
        followed.append(search.descend(end, FINE_EVALUATIONS))
        progress(number / steps)
    return search.optimum(min(followed, key=search.cost))


class _Search:
    """What every point of the search costs, and the way between points and sources.

    A point is log-odds: of p_X, of mu1's and mu2's places in their ranges, of the share of slots
    used, and of how often each intensity but the last is sent against the last.
    """

    def __init__(
        self,
        pass_: Pass,
        downlink: Downlink,
        baseline: Bb84Parameters,
        efficiency: float,
        keyed: Sequence[str],
    ) -> None:
        self._pass, self._downlink, self._baseline = pass_, downlink, baseline
        self._efficiency, self._keyed = efficiency, keyed
        eta = downlink.transmittance(pass_.range_km, pass_.elevation_deg)
        # Best slots first: a window is then a number of slots.
        self._order = np.argsort(-eta, kind="stable")
        self._eta = eta[self._order]
        self._vacuum_yield = downlink.vacuum_yield_at(pass_.elevation_deg)[self._order]
        self._evaluations = 0

    def starts(self, rng: np.random.Generator) -> Iterator[Point]:
        """The baseline, the baseline with its bases biased to 9 in 10, and random sources."""
        yield self._point(self._baseline)
        yield self._point(replace(self._baseline, basis_x_probability=0.9))
        for _ in range(RANDOM_STARTS):
            yield logit(rng.uniform(0.1, 0.9, 3 + len(self._baseline.intensities)))

    def descend(self, start: Point, evaluations: int) -> Point:
        """The best point that a simplex search finds from a start with so many evaluations."""
        best, cost, left = start, self.cost(start), evaluations
        # A simplex may collapse on a kink: a fresh one about the same point goes on from there.
        while left > 0:
            found = minimize(
                self.cost,
                best,
                method="Nelder-Mead",
                options={"maxfev": left, "xatol": 1e-3, "fatol": 1.0, "adaptive": True},
            )
            gained, left = cost - float(found.fun), left - int(found.nfev)
            best, cost = found.x, float(found.fun)
            if gained < 1e-5 * abs(cost):
                break
        return best

    def cost(self, point: Point) -> float:
        """Minus the expected secret bits; where there are none, how many bits are missing."""
        self._evaluations += 1
        parameters, slots = self._source(point)
        used = np.clip(slots - np.arange(len(self._eta)), 0.0, 1.0)  # the last slot in part
        key = self._key(parameters, used)
        return -(key.secret_bits or max(length.bits for length in key.lengths.values()))

    def optimum(self, point: Point) -> Optimum:
        """The source of a point with a window of whole slots, or the baseline if that is better."""
        everything = len(self._eta)
        baseline = self._key(self._baseline, np.ones(everything))
        best, parameters, number = baseline, self._baseline, everything
        source, slots = self._source(point)
        for whole in {max(floor(slots), 1), ceil(slots)}:
            key = self._key(source, (np.arange(everything) < whole).astype(np.float64))
            if key.secret_bits > best.secret_bits:
                best, parameters, number = key, source, whole
        t_s = self._pass.t_s[self._order[:number]]
        window_s = float(t_s.min()), float(t_s.max())
        return Optimum(baseline, best, parameters, window_s, self._evaluations)

    def _key(self, parameters: Bb84Parameters, used: NDArray[np.float64]) -> ExpectedKey:
        """The expected key of a source, the slots (best first) weighted by how much is used."""
        link = self._downlink
        counts = counts_at(
            self._eta,
            self._pass.slot_s,
            parameters,
            self._vacuum_yield,
            link.misalignment,
            link.detector,
        )
        return key_of(
            counts.summed(used), parameters, efficiency=self._efficiency, keyed=self._keyed
        )

    def _source(self, point: Point) -> tuple[Bb84Parameters, float]:
        """The source that a point stands for, and how many slots are used."""
        # Beyond 30 the odds round to certainty, and a source needs all its settings in play.
        within = np.clip(point, -30.0, 30.0)
        p_x, place1, place2, share = expit(within[:4])
        if set(self._keyed) == set(BASES):
            p_x = max(p_x, 1 - p_x)  # the bases are alike: of two mirror images take one
        kinds, mu3 = self._kinds_and_weakest(self._baseline)
        mu1 = 2 * mu3 + (MAX_INTENSITY - 2 * mu3) * place1
        mu2 = mu3 + (mu1 - 2 * mu3) * place2
        parameters = replace(
            self._baseline,
            basis_x_probability=float(p_x),
            intensities=(float(mu1), float(mu2), mu3)[:kinds],
            intensity_probabilities=tuple(softmax([*within[4:], 0.0]).tolist()),
        )
        return parameters, float(share) * len(self._eta)

    def _point(self, parameters: Bb84Parameters) -> Point:
        """Where a source with the whole pass lies, kept off the ends of every range."""
        _, mu3 = self._kinds_and_weakest(parameters)
        mu1, mu2 = parameters.intensities[:2]
        *more, last = parameters.intensity_probabilities
        places = [
            parameters.basis_x_probability,
            (mu1 - 2 * mu3) / (MAX_INTENSITY - 2 * mu3),
            (mu2 - mu3) / (mu1 - 2 * mu3),
            1.0,
            *(p / (p + last) for p in more),
        ]
        return np.asarray(logit(np.clip(places, EDGE, 1 - EDGE)))

    @staticmethod
    def _kinds_and_weakest(parameters: Bb84Parameters) -> tuple[int, float]:
        """How many intensities there are, and mu3, which is not varied; 0 with one decoy only."""
        kinds = len(parameters.intensities)
        return kinds, parameters.intensities[2] if kinds == 3 else 0.0
