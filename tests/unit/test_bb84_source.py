"""Source settings: what is refused, in one line, and how settings are changed by name."""

from __future__ import annotations

import dataclasses

import pytest

from quantum.bb84.eavesdropper import NOBODY, Eavesdropper
from quantum.bb84.source import MICIUS_2017, changed
from quantum.detector import IDEAL
from topo.errors import InputError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("intensities", (0.1, 0.8, 0.0), "mu2 = 0.8 must be below mu1 = 0.1"),
        ("intensities", (0.8, 0.8, 0.0), "mu2 = 0.8 must be below mu1 = 0.8"),
        ("intensities", (0.8, 0.1, 0.1), "mu3 = 0.1 must be below mu2 = 0.1"),
        ("intensities", (0.8, 0.5, 0.4), r"mu1 = 0.8 must be above mu2 \+ mu3 = 0.9"),
        ("intensities", (0.8, 0.1, -0.1), "mu3 = -0.1 must be 0 or more"),
        ("intensities", (0.8, float("nan"), 0.0), "mu2 = nan"),
        ("intensities", (0.8,), "two or three numbers"),
        ("intensities", (0.8, 0.1), "intensity_probabilities .* as many as the intensities, 2"),
        ("intensity_probabilities", (0.5, 0.25, 0.2), "sum to 0.95, must sum to 1"),
        ("intensity_probabilities", (1.0, 0.0, 0.0), "p1 = 1 must lie between 0 and 1"),
        ("intensity_probabilities", (0.8, 0.4, -0.2), "p3 = -0.2 must lie"),
        ("basis_x_probability", 1.0, "basis_x_probability 1.0"),
        ("pulse_rate_hz", 0.0, "pulse_rate_hz 0.0"),
        ("pulse_rate_hz", float("inf"), "pulse_rate_hz inf"),
        ("intensities", (float("inf"), 0.1, 0.0), "mu1 = inf must be finite"),
        ("eps_secrecy", 0.0, "eps_secrecy 0.0"),
        ("eps_secrecy", 1e-300, "eps_secrecy 1e-300: must lie between 1e-30 and 1"),
        ("eps_correctness", 1e-60, "eps_correctness 1e-60: must lie between 1e-30 and 1"),
        ("max_qber", 0.0, "max_qber 0.0"),
        ("bound", "guess", "bound 'guess'"),
    ],
)
def test_impossible_parameters_are_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        dataclasses.replace(MICIUS_2017, **{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_one_decoy_is_a_protocol_too_but_not_the_vacuum_alone() -> None:
    one = changed(MICIUS_2017, ["intensities=0.6,0.2", "intensity_probabilities=0.7,0.3"])
    assert one.intensities == (0.6, 0.2)
    with pytest.raises(InputError, match="mu2 = 0 leaves no decoy"):
        changed(one, ["intensities=0.6,0"])


def test_settings_change_by_name_all_at_once() -> None:
    new = changed(
        MICIUS_2017, ["intensities = 0.05, 0.02, 0.01", "pulse_rate_hz=2e8", "bound=hoeffding"]
    )
    assert new == dataclasses.replace(
        MICIUS_2017, intensities=(0.05, 0.02, 0.01), pulse_rate_hz=2e8, bound="hoeffding"
    )
    assert changed(NOBODY, ["blinding_fraction=0.5", "blinded_basis=X"]) == Eavesdropper(
        blinding_fraction=0.5, blinded_basis="X"
    )
    assert changed(IDEAL, ["detectors=2"]).detectors == 2
    assert changed(MICIUS_2017, []) == MICIUS_2017


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("intensities", "'intensities': must be name=value"),
        ("colour=red", "Bb84Parameters has no colour: there are pulse_rate_hz, intensities"),
        ("intensities=0.8,x,0", "intensities=0.8,x,0: must be like intensities=0.8,0.1,0.0"),
        ("pulse_rate_hz=fast", "pulse_rate_hz=fast: must be like pulse_rate_hz=100000000.0"),
        ("intensities=0.1,0.8,0", "mu2 = 0.8 must be below mu1 = 0.1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(assignment: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed(MICIUS_2017, [assignment])
