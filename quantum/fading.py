"""How the received power fluctuates about its mean: twinkling, and the beam's wandering aim.

Means are the business of `quantum.beam` and `quantum.atmosphere`. The loss of a downlink being
large, clicks are rare, and their mean number depends on the mean transmittance alone; fading adds to
the variance of counts. All factors here have mean 1.
"""

from __future__ import annotations

from math import ceil, exp, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topo.errors import InputError

FloatArray = NDArray[np.float64]

_STEPS_PER_CORRELATION = 4
"""Steps of the fading process in one correlation time; the variance of a mean over many then
comes out 0.5 % too high."""


def pointing_index(divergence_urad: float, jitter_urad: float) -> float:
    """g = w^2/(4 sigma^2 L^2) of a Gaussian beam's pointing fade; infinite without jitter."""
    return inf if jitter_urad == 0 else divergence_urad**2 / (4 * jitter_urad**2)


def fading_factors(
    log_variance: ArrayLike,
    index: float,
    slot_s: float,
    rng: np.random.Generator,
    *,
    correlation_s: float,
) -> FloatArray:
    """Factors by which consecutive slots' mean power departs from its expectation, shape (slots,).

    A log-normal process of variance `log_variance` (Np^2, by slot) times the fade of a beam whose
    aim wanders in two axes (`index` as of `pointing_index`), both from Gaussian processes with
    autocorrelation exp(-t/`correlation_s`), averaged over each slot of `slot_s`. Each factor has
    mean 1; neighbours are correlated where slots are short.
    """
    variance = np.asarray(log_variance, dtype=np.float64)
    if variance.ndim != 1 or not np.all((variance >= 0) & (variance < inf)):
        raise InputError("log_variance: must be one number, 0 or more, for every slot")
    for name, value in (("slot_s", slot_s), ("correlation_s", correlation_s)):
        if not 0 < value < inf:
            raise InputError(f"fading: {name} {value} must be positive")
    if not index > 0:
        raise InputError(f"fading: index {index} must be positive")
    steps = max(1, ceil(_STEPS_PER_CORRELATION * slot_s / correlation_s))
    shape = (len(variance), steps)
    memory = exp(-slot_s / steps / correlation_s)

    factors = np.ones(shape)
    if np.any(variance > 0):
        sigma = np.sqrt(variance)[:, np.newaxis]
        factors = np.exp(sigma * _wandering(shape, memory, rng) - sigma**2 / 2)
    if index < inf:
        # h = exp(-2 theta^2/theta_d^2) with theta^2 = sigma^2 (x^2 + y^2) is exp(-(x^2+y^2)/2g): in (0, 1),
        # of the density g h^(g-1) and the mean g/(g+1).
        aim = _wandering(shape, memory, rng) ** 2 + _wandering(shape, memory, rng) ** 2
        factors *= np.exp(-aim / (2 * index)) * (1 + 1 / index)
    return np.asarray(factors.mean(axis=1))


def _wandering(shape: tuple[int, int], memory: float, rng: np.random.Generator) -> FloatArray:
    """A stationary first-order Gauss-Markov series of unit variance, row after row."""
    from scipy.signal import lfilter  # most of a second, and most runs have no fading

    kicks = sqrt(1 - memory**2) * rng.standard_normal(shape[0] * shape[1])
    if kicks.size:
        kicks[0] /= sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], kicks)).reshape(shape)
