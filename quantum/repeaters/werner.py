"""How good an entangled pair is: Werner states, what stray light does to them, and the key in them.

Every function is vectorised: arrays broadcast, results are float64 arrays. Each docstring ends with
its evidence: *text* follows from the paper's words (Photonics 11, 268 (2024), whose printed equations
are not available), *guess* is the usual form of the literature; *verbatim* names where it is printed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.background import daylight_radiance, photon_rate_hz
from quantum.repeaters.parameters import Parameters

Floats = NDArray[np.float64]


def fidelity(werner: ArrayLike) -> Floats:
    """Fidelity F = (1 + 3 W)/4 of a Werner state with its Bell state. Equation (6): text, standard."""
    return np.asarray((1 + 3 * np.asarray(werner, dtype=np.float64)) / 4)


def werner_of_fidelity(fidelity: ArrayLike) -> Floats:
    """Werner parameter W = (4 F - 1)/3 of a fidelity. Equation (6): text, standard."""
    return np.asarray((4 * np.asarray(fidelity, dtype=np.float64) - 1) / 3)


def bsm_werner(car: ArrayLike) -> Floats:
    """Werner parameter of a Bell state measurement: its visibility (CAR - 1)/(CAR + 1), in [0, 1].

    1 where the coincidence-to-accidental ratio is infinite. Equation (7): that the visibility is the
    Werner parameter is text, its form a guess.
    """
    ratio = np.asarray(car, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(1 - 2 / (ratio + 1), 0.0, 1.0))


def sky_radiance(irradiance_W_m2: ArrayLike, p: Parameters) -> Floats:
    """Spectral radiance of the sky, W m^-2 sr^-1 um^-1, under a diffuse irradiance in W/m^2.

    Lambertian, of the Sun's colour, with the floor of the night. The black body is text, the level a
    guess (the undiluted one would be the Sun's disc).
    """
    day = daylight_radiance(irradiance_W_m2, p.wavelength_nm)
    return np.maximum(day, p.night_radiance_W_m2_sr_um)


def stray_rate_hz(radiance_W_m2_sr_um: ArrayLike, p: Parameters) -> Floats:
    """Stray photons per second at a station: L A Omega dlambda lambda/(h c).

    The filter is as wide as the chain's rate, the cone as the field of view. Equation (8): text.
    """
    return photon_rate_hz(
        radiance_W_m2_sr_um,
        receiver_m=p.receiver_m,
        receiver_obscuration=p.receiver_obscuration,
        field_of_view_urad=p.field_of_view_urad,
        filter_nm=p.filter_nm,
        wavelength_nm=p.wavelength_nm,
    )


def stray_probability(stray_rate_hz: ArrayLike, p: Parameters) -> Floats:
    """Probability of a stray photon in the detection window tau: 1 - exp(-R tau). Text."""
    return np.asarray(-np.expm1(-np.asarray(stray_rate_hz, dtype=np.float64) * p.window_s))


def car_paper(link_probability: ArrayLike, stray_probability: ArrayLike) -> Floats:
    """Coincidence-to-accidental ratio P_EL/P_stray^2, infinite without stray light.

    Equation (9): text, its form a guess. Daylight hardly harms with it.
    """
    stray = np.asarray(stray_probability, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(link_probability, dtype=np.float64) / stray**2
    return np.where(stray > 0, ratio, np.inf)


def car_one_sided(
    arrival_efficiency: ArrayLike, stray_probability: ArrayLike, p: Parameters
) -> Floats:
    """Coincidence-to-accidental ratio 1 + eta_tot eta_s/P_stray of one station, infinite without stray.

    A stray click beside the station's own photon is an accident. A guess, stricter than equation
    (9), that makes daylight as severe as the paper says it is.
    """
    stray = np.asarray(stray_probability, dtype=np.float64)
    signal = np.asarray(arrival_efficiency, dtype=np.float64) * p.source_efficiency
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 1 + signal / stray
    return np.where(stray > 0, ratio, np.inf)


def ground_werner(p: Parameters) -> float:
    """Werner parameter of a fibre link: W_s^2 W_m^2 W_b; fibre lets in no stray light. Powers: guess."""
    sources, memories, measurements = p.ground_powers
    return float(p.source_werner**sources * p.memory_werner**memories * p.bsm_werner**measurements)


def space_werner(bsm_werner_a: ArrayLike, bsm_werner_b: ArrayLike, p: Parameters) -> Floats:
    """Werner parameter of a satellite link: W_s^3 W_m^2 W_BSM,A W_BSM,B.

    The arguments are what stray light leaves at either station (`bsm_werner`); the BSM's own
    imperfection multiplies each. Product: text; powers: guess.
    """
    sources, memories, measurements = p.space_powers
    fixed = p.source_werner**sources * p.memory_werner**memories
    stations = np.asarray(bsm_werner_a) * np.asarray(bsm_werner_b) * p.bsm_werner**2
    return np.asarray(fixed * stations**measurements)


def qber(werner: ArrayLike) -> Floats:
    """Quantum bit error rate Q = (1 - W)/2. Text."""
    return np.asarray((1 - np.asarray(werner, dtype=np.float64)) / 2)


def binary_entropy(x: ArrayLike) -> Floats:
    """Shannon's h(x) = -x log2 x - (1-x) log2(1-x), in bits; 0 at both ends."""
    share = np.asarray(x, dtype=np.float64)
    rest = 1 - share
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(share * np.log2(share) + rest * np.log2(rest))
    return np.asarray(np.where((share > 0) & (share < 1), bits, 0.0))


def secret_fraction(werner: ArrayLike, p: Parameters) -> Floats:
    """Secret bits per entangled pair: max(0, 1 - h(Q) - f h(Q)) times the share that sifting keeps.

    `correction_only` leaves privacy amplification out: 1 - f h(Q). A pair worse than random (W < 0)
    has none. Equations (10) and (11): text, and verbatim in TNO's package qkd_key_rate (BBM92).
    """
    error = qber(np.clip(werner, 0.0, 1.0))
    leaked = p.correction_inefficiency + (p.secret_fraction == "bbm92")
    return np.asarray(p.sifting * np.maximum(0.0, 1 - leaked * binary_entropy(error)))


def secret_key_probability(probability: ArrayLike, werner: ArrayLike, p: Parameters) -> Floats:
    """SKP = P S: secret bits per attempt of the chain. Text."""
    return np.asarray(np.asarray(probability, dtype=np.float64) * secret_fraction(werner, p))


def secret_key_rate_bit_s(skp: ArrayLike, p: Parameters) -> Floats:
    """SKR = R SKP in bit/s. Text."""
    return np.asarray(p.rate_hz * np.asarray(skp, dtype=np.float64))
