"""Expected counts and the optimum against SatQuMA, an independent implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import satquma_cases
from satquma_cases import parameters, transmittance

from quantum.bb84.expected import ExpectedKey, SlotCounts, counts_at, key_of
from quantum.bb84.optimise import optimise
from quantum.detector import IDEAL
from quantum.optics import CalibratedDownlink
from topo.space.passes import Pass

CASES = {
    name: case
    for name, case in satquma_cases.CASES.items()
    if case["params"]["Pap"] == 0  # its afterpulses are another model
}
MICIUS_LIKE = CASES["G4_micius_like_48 Chernoff"]
JINAN_LIKE = CASES["G5_jinan1_like_78 Chernoff"]


def whole_pass(case: dict[str, Any]) -> SlotCounts:
    eta, given = transmittance(case), case["params"]
    noise = 2 * given["Pec"]  # two detectors
    each = counts_at(eta, 1.0, parameters(case), noise, given["QBERI"], IDEAL)
    return each.summed(np.ones(len(eta)))


def whole_key(case: dict[str, Any], *bases: str) -> ExpectedKey:
    efficiency = case["params"]["fEC"]
    return key_of(whole_pass(case), parameters(case), efficiency=efficiency, keyed=bases)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_expected_counts(case: dict[str, Any]) -> None:
    block, expected = whole_pass(case).of_block(0), case["outputs"]
    assert block["X"].detections.sum() == pytest.approx(expected["nX"], rel=1e-6)
    assert block["Z"].detections.sum() == pytest.approx(expected["nZ"], rel=1e-6)
    assert block["X"].errors.sum() == pytest.approx(expected["mX"], rel=1e-6)


@pytest.mark.parametrize("case", [MICIUS_LIKE, JINAN_LIKE], ids=["micius", "jinan1"])
def test_expected_key(case: dict[str, Any]) -> None:
    """A per cent apart: SatQuMA shares errors among the intensities as the detections are, while
    here the decoys have more than that, for more of their clicks are background."""
    found = whole_key(case, "X").secret_bits
    assert found == pytest.approx(case["outputs"]["SKL"], rel=0.012)


class Profile(CalibratedDownlink):
    """A link whose `range_km` are losses in dB."""

    def transmittance(self, range_km: object, elevation_deg: object) -> np.ndarray:
        return np.asarray(10 ** (-np.asarray(range_km) / 10))


def test_the_optimum_of_a_pass_like_that_of_micius() -> None:
    """2.37 Mbit from basis X alone, 2.2 times both bases of the published source together.

    Found with SatQuMA's key length and Nelder and Mead's search by others.
    """
    eta, given = transmittance(MICIUS_LIKE), MICIUS_LIKE["params"]
    pass_ = Pass(np.arange(-136.0, 137.0), np.full(273, 45.0), -10 * np.log10(eta))
    noise, misalignment = 2 * given["Pec"], given["QBERI"]
    link = Profile("profile", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, noise, misalignment)
    found = optimise(pass_, link, parameters(MICIUS_LIKE), efficiency=given["fEC"], keyed=("X",))
    assert 0.998 * 2.37e6 < found.best.secret_bits < 1.01 * 2.37e6
    assert found.parameters.basis_x_probability == pytest.approx(0.9, abs=0.02)
    both = whole_key(MICIUS_LIKE, "X", "Z").secret_bits
    assert found.best.secret_bits / both == pytest.approx(2.2, abs=0.1)
