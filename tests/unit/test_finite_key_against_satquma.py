"""Finite key lengths against SatQuMA, an independent implementation.

github.com/cnqo-qcomms/SatQuMA, commit f2b9229 (2025-06-20), MIT licence: its `key_length()` for
four simulated passes. The counts by intensity are those its channel model gives for these; their
totals are among its printed results, and checked here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from quantum.bb84.finite_key import (
    BasisCounts,
    binary_entropy,
    fixed_cost_bits,
    secret_key_length,
)
from quantum.bb84.source import Bb84Parameters, Bound

Three = tuple[float, float, float]


class Published(NamedTuple):
    bits: float
    phase_error: float
    single_photon_events: float
    test_single_photon_errors: float
    test_single_photon_events: float


class Case(NamedTuple):
    intensities: Three
    probabilities: Three
    eps_correctness: float
    key_detections: Three
    test_detections: Three
    test_errors: Three
    key_total: float
    test_total: float
    leakage_bits: float
    published: dict[Bound, Published]


CASES = {
    "G1_satquma_default_90": Case(
        intensities=(0.7921, 0.1707, 0.0),
        probabilities=(0.7501, 0.1749, 0.075),
        eps_correctness=1e-15,
        key_detections=(54952277.86334172, 2767107.4549058974, 385.311975104123),
        test_detections=(5414203.246984009, 272630.77618661115, 37.96307319413708),
        test_errors=(29989.38683634897, 1510.1025165364872, 0.21227526146897427),
        key_total=57719770.63128808,
        test_total=5686871.986348785,
        leakage_bits=3313619.3522772803,
        published={
            "chernoff": Published(
                19284716.45009955,
                0.00967992472982414,
                24526127.527080253,
                21627.505288156925,
                2374480.293534652,
            ),
            "hoeffding": Published(
                17449806.46383024,
                0.016003433810764262,
                23551480.993654292,
                31499.70162872372,
                2069419.0760887775,
            ),
        },
    ),
    "G3_satquma_default_30": Case(
        intensities=(0.7921, 0.1707, 0.0),
        probabilities=(0.7501, 0.1749, 0.075),
        eps_correctness=1e-15,
        key_detections=(21746415.868282396, 1094019.1754561078, 340.0834814124436),
        test_detections=(2142577.5233034045, 107788.83792128638, 33.50691110362885),
        test_errors=(11983.814206051551, 602.882770618011, 0.18847578999594258),
        key_total=22840775.124339376,
        test_total=2250399.8678519884,
        leakage_bits=1321994.6929027354,
        published={
            "chernoff": Published(
                7432581.5029596705,
                0.011705581440520915,
                9639159.909643335,
                9874.958873256703,
                922670.6776155524,
            ),
            "hoeffding": Published(
                6499245.716317756,
                0.018615273108298424,
                9027513.988352496,
                12586.885450900052,
                731544.1269795797,
            ),
        },
    ),
    "G4_micius_like_48": Case(
        intensities=(0.8, 0.1, 0.0),
        probabilities=(0.5, 0.25, 0.25),
        eps_correctness=1e-10,
        key_detections=(1551322.9815948557, 97577.12349313314, 682.5000000196245),
        test_detections=(1551322.9815948557, 97577.12349313314, 682.5000000196245),
        test_errors=(10576.037192279184, 665.3192838151746, 4.763106881004782),
        key_total=1649582.60515317,
        test_total=1649582.60515317,
        leakage_bits=118464.83584311845,
        published={
            "chernoff": Published(
                528575.2574954337,
                0.012727360725949176,
                716379.7871178857,
                7981.938360291088,
                716379.7871178857,
            ),
            "hoeffding": Published(
                446368.68617033033,
                0.01921847893735178,
                654800.6540534439,
                11246.119583366315,
                654800.6540534439,
            ),
        },
    ),
    "G5_jinan1_like_78": Case(
        intensities=(0.8, 0.1, 0.0),
        probabilities=(0.5, 0.25, 0.25),
        eps_correctness=1e-10,
        key_detections=(1274933.4140501467, 85824.09550692442, 7015.625000201732),
        test_detections=(1274933.4140501467, 85824.09550692442, 7015.625000201732),
        test_errors=(20439.190620706002, 1442.1387169611298, 188.18768497805297),
        key_total=1367773.1342867347,
        test_total=1367773.1342867347,
        leakage_bits=198829.57187394387,
        published={
            "chernoff": Published(
                292350.8935648126,
                0.028122626510010455,
                580784.7722744861,
                14809.37737488102,
                580784.7722744861,
            ),
            "hoeffding": Published(
                206664.7320239397,
                0.04134672470426592,
                528720.5004944446,
                20103.579754603183,
                528720.5004944446,
            ),
        },
    ),
}


@pytest.mark.parametrize("bound", ["chernoff", "hoeffding"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_key_length(case: Case, bound: Bound) -> None:
    expected = case.published[bound]
    assert sum(case.key_detections) == pytest.approx(case.key_total, rel=1e-9)
    assert sum(case.test_detections) == pytest.approx(case.test_total, rel=1e-9)
    parameters = Bb84Parameters(
        pulse_rate_hz=1e8,
        intensities=case.intensities,
        intensity_probabilities=case.probabilities,
        eps_secrecy=1e-9,
        eps_correctness=case.eps_correctness,
        bound=bound,
    )
    found = secret_key_length(
        BasisCounts.of(case.key_detections, (0, 0, 0)),
        BasisCounts.of(case.test_detections, case.test_errors),
        parameters,
        case.leakage_bits,
    )
    for name, value in expected._asdict().items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6), name


def test_the_fixed_cost_of_a_block() -> None:
    assert fixed_cost_bits(1e-9, 1e-15) == pytest.approx(256.6, abs=0.05)


def test_binary_entropy() -> None:
    assert binary_entropy(0.5) == 1
    assert binary_entropy(0) == binary_entropy(1) == 0
    assert binary_entropy(0.11) == pytest.approx(0.4999, abs=1e-4)


PARAMETERS = Bb84Parameters(1e8, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("detections", "errors"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1000, 60, 5), (10, 1, 2)),
        ((1e6, 6e4, 500), (0, 0, 0)),
        ((1e6, 6e4, 500), (5e5, 3e4, 250)),
    ],
    ids=["nothing", "too few", "no errors to sample", "all random"],
)
def test_blocks_that_hold_no_key(detections: Three, errors: Three) -> None:
    block = BasisCounts.of(detections, errors)
    length = secret_key_length(block, block, PARAMETERS, leakage_bits=0)
    assert length.phase_error == 0.5
    assert length.whole_bits <= length.vacuum_events


def test_more_leakage_is_less_key_bit_for_bit() -> None:
    block = BasisCounts.of((1e6, 7e4, 500), (1e4, 900, 250))
    none = secret_key_length(block, block, PARAMETERS, 0)
    some = secret_key_length(block, block, PARAMETERS, 100_000)
    assert none.bits - some.bits == pytest.approx(100_000)
    assert some.whole_bits == int(np.floor(some.bits)) > 0
