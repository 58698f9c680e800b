"""Elementary links of a quantum repeater, over fibre and from a satellite, and chains of them.

All equations of the hybrid network can be had from here, by name (Photonics 11, 268 (2024); its
printed equations are not available, so each docstring says how sure its form is: *verbatim* in a named
source, *text*: follows from the paper's words, *guess*: usual in the literature):

==================================  =====================================================
(1) `ground_probability`            fibre link, by n equal links `ground_chain`
(2) `fibre_efficiency`
(3) `space_probability`             satellite link
(4) `free_space_flat`, `free_space_gaussian`
(5) `chain_probability`             links joined by swapping
(6) `fidelity`, `werner_of_fidelity`
(7) `bsm_werner`
(8) `stray_rate_hz`, `stray_probability`
(9) `car_paper`, `car_one_sided`
    `ground_werner`, `space_werner`, `chain_werner`
    `qber`, `secret_fraction`, `secret_key_probability`, `secret_key_rate_bit_s`
(12) `optimal_truncation`
(13) `geometric_efficiency`
(14) `pointing_efficiency`
(15) `atmosphere_efficiency`, `cloud_transmittance`
==================================  =====================================================

Efficiencies, probabilities and Werner parameters are in [0, 1]; arrays broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.beam import optimal_truncation
from quantum.repeaters.channel import (
    atmosphere_efficiency,
    cloud_transmittance,
    downlink_efficiency,
    fibre_efficiency,
    free_space_flat,
    free_space_gaussian,
    geometric_efficiency,
    pointing_efficiency,
    spatial_filter_efficiency,
)
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.werner import (
    binary_entropy,
    bsm_werner,
    car_one_sided,
    car_paper,
    fidelity,
    ground_werner,
    qber,
    secret_fraction,
    secret_key_probability,
    secret_key_rate_bit_s,
    sky_radiance,
    space_werner,
    stray_probability,
    stray_rate_hz,
    werner_of_fidelity,
)
from topo.errors import InputError

__all__ = [
    "GroundChain",
    "Link",
    "atmosphere_efficiency",
    "best_ground_chain",
    "binary_entropy",
    "bsm_werner",
    "car_one_sided",
    "car_paper",
    "chain_probability",
    "chain_werner",
    "cloud_transmittance",
    "downlink_efficiency",
    "elementary_probability",
    "fibre_efficiency",
    "fidelity",
    "free_space_flat",
    "free_space_gaussian",
    "geometric_efficiency",
    "ground_chain",
    "ground_probability",
    "ground_werner",
    "optimal_truncation",
    "pointing_efficiency",
    "qber",
    "secret_fraction",
    "secret_key_probability",
    "secret_key_rate_bit_s",
    "sky_radiance",
    "space_link",
    "space_probability",
    "space_werner",
    "spatial_filter_efficiency",
    "split_distance_km",
    "station_werners",
    "stray_probability",
    "stray_rate_hz",
    "werner_of_fidelity",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """What an edge of the network is worth; arrays of one shape."""

    probability: Floats
    """P: that one attempt leaves an entangled pair at both ends."""
    werner: Floats
    """W of that pair."""
    skp: Floats
    """Secret bits per attempt."""
    label: str = field(default=LABEL, kw_only=True)


@dataclass(frozen=True)
class GroundChain(Link):
    """A fibre cut into equal elementary links."""

    segments: NDArray[np.int64]
    """n: how many."""


def elementary_probability(attempt: ArrayLike, sources: int, p: Parameters) -> Floats:
    """[1 - (1 - eta_s^k x)^M] eta_m^2: that one of M modes succeeds and both memories hold it.

    `attempt` is x, the probability that one mode's photons arrive and are measured, without the k
    sources. Without the cancellation that the formula has for small x.
    """
    x = np.asarray(attempt, dtype=np.float64)
    emitted = p.source_efficiency**sources
    inside = p.source_in_attempt == "inside"
    with np.errstate(divide="ignore"):  # an attempt that cannot fail
        any_mode = -np.expm1(p.modes * np.log1p(-(emitted * x if inside else x)))
    return np.asarray(any_mode * p.memory_efficiency**2 * (1.0 if inside else emitted))


def ground_probability(distance_km: ArrayLike, p: Parameters) -> Floats:
    """P of one fibre link: [1 - (1 - eta_s^2 eta_BSM eta_ch(D/2)^2)^M] eta_m^2, two sources, one BSM.

    Equation (1): text; of the shape of Askarani et al., New J. Phys. 23 (2021), verbatim as code.
    """
    arm = fibre_efficiency(np.asarray(distance_km, dtype=np.float64) / 2, p)
    return elementary_probability(p.bsm_efficiency * arm**2, 2, p)


def space_probability(efficiency_a: ArrayLike, efficiency_b: ArrayLike, p: Parameters) -> Floats:
    """P of one satellite link: [1 - (1 - eta_s^3 eta_BSM^2 eta_A eta_B)^M] eta_m^2.

    Three sources, two BSMs that must herald together, two downlinks (`downlink_efficiency`).
    Equation (3): text.
    """
    both = np.asarray(efficiency_a, dtype=np.float64) * np.asarray(efficiency_b)
    return elementary_probability(p.bsm_efficiency**2 * both, 3, p)


def chain_probability(probabilities: ArrayLike, p: Parameters) -> Floats:
    """P of a chain: eta_BSM^(n-1) times the product of its links', along the last axis.

    Equation (5): text; verbatim as code of Askarani et al. (2021).
    """
    links = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(p.bsm_efficiency ** (links.shape[-1] - 1) * links.prod(axis=-1))


def chain_werner(werners: ArrayLike, p: Parameters) -> Floats:
    """W of a chain: W_b^(n-1) times the product of its links', along the last axis. Text."""
    links = np.asarray(werners, dtype=np.float64)
    return np.asarray(p.bsm_werner ** (links.shape[-1] - 1) * links.prod(axis=-1))


def ground_chain(distance_km: ArrayLike, segments: ArrayLike, p: Parameters) -> GroundChain:
    """A fibre cut into `segments` equal links; distance (0 or more) and segments broadcast."""
    distance, n = np.broadcast_arrays(np.asarray(distance_km, dtype=np.float64), segments)
    if not np.all((distance >= 0) & (distance < np.inf)):
        raise InputError("distance_km: must be 0 or more")
    if not np.all(n >= 1):
        raise InputError("segments: at least one")
    one = ground_probability(distance / n, p)
    probability = np.asarray(p.bsm_efficiency ** (n - 1.0) * one**n)
    werner = np.asarray(p.bsm_werner ** (n - 1.0) * ground_werner(p) ** n)
    skp = secret_key_probability(probability, werner, p)
    return GroundChain(probability, werner, skp, n.astype(np.int64))


def best_ground_chain(distance_km: ArrayLike, p: Parameters) -> GroundChain:
    """The fibre cut into the number of links, up to `max_segments`, that yields most key.

    Shape of the distance. One link where none yields any: its SKP is 0 then.
    """
    distance = np.asarray(distance_km, dtype=np.float64)
    best = ground_chain(distance, 1, p)
    probability, werner, skp, segments = best.probability, best.werner, best.skp, best.segments
    for n in range(2, p.max_segments + 1):
        cut = ground_chain(distance, n, p)
        if not np.any(secret_fraction(cut.werner, p)):  # nor will more links: each costs fidelity
            break
        better = cut.skp > skp
        probability = np.where(better, cut.probability, probability)
        werner = np.where(better, cut.werner, werner)
        skp = np.where(better, cut.skp, skp)
        segments = np.where(better, n, segments)
    return GroundChain(probability, werner, skp, segments)


def split_distance_km(p: Parameters) -> float:
    """Distance beyond which two fibre links yield more than one, in closed form; inf if never.

    L* = (10/alpha) log10(M eta_s^2 eta_BSM/x), x = -ln(1 - r), r = eta_m^2 eta_BSM S(W^2)/S(W). The
    halves are taken for saturated, and (1-q)^M for exp(-M q): good to 2 km for many modes (no claim
    for few), sources counted in the attempt. A derivation of this project.
    """
    one = ground_werner(p)
    fraction = float(secret_fraction(one, p))
    if fraction == 0:
        return float("inf")
    two = float(secret_fraction(one**2 * p.bsm_werner, p))
    ratio = p.memory_efficiency**2 * p.bsm_efficiency * two / fraction
    peak = p.modes * p.source_efficiency**2 * p.bsm_efficiency
    if ratio == 0 or peak == 0 or p.fibre_dB_km == 0:
        return float("inf")
    return float(10 / (p.fibre_dB_km * p.detour) * np.log10(peak / -np.log1p(-ratio)))


def space_link(
    efficiency_a: ArrayLike,
    efficiency_b: ArrayLike,
    stray_a: ArrayLike,
    stray_b: ArrayLike,
    p: Parameters,
) -> Link:
    """A satellite link from its two downlinks' efficiencies and the stations' stray probabilities.

    Arguments broadcast. Stray light counts at each station by `car_model`.
    """
    probability = space_probability(efficiency_a, efficiency_b, p)
    at_a, at_b = station_werners(probability, (efficiency_a, efficiency_b), (stray_a, stray_b), p)
    werner = space_werner(at_a, at_b, p)
    return Link(probability, werner, secret_key_probability(probability, werner, p))


def station_werners(
    probability: ArrayLike,
    efficiency: tuple[ArrayLike, ArrayLike],
    stray: tuple[ArrayLike, ArrayLike],
    p: Parameters,
) -> tuple[Floats, Floats]:
    """Werner parameters that stray light leaves to the BSMs of both stations, by `car_model`.

    Single ones, to be broadcast, where there is no stray light.
    """
    if not (np.any(stray[0]) or np.any(stray[1])):
        return np.ones(()), np.ones(())
    if p.car_model == "one_sided":
        ratios = [car_one_sided(efficiency[end], stray[end], p) for end in (0, 1)]
    else:
        ratios = [car_paper(probability, stray[end]) for end in (0, 1)]
    return bsm_werner(ratios[0]), bsm_werner(ratios[1])
