"""What SatQuMA, an independent implementation, makes of four simulated passes under three bounds.

github.com/cnqo-qcomms/SatQuMA, commit f2b9229 (2025-06-20), MIT licence. `satquma_key_lengths.json` beside
this file has the transmittances of its `time_dependent_losses()` by second from culmination (they are the
same on both sides), the arguments of its `key_length()` and every output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from quantum.bb84.source import Bb84Parameters

_REFERENCE = json.loads(Path(__file__).with_name("satquma_key_lengths.json").read_text())
CASES: dict[str, dict[str, Any]] = {
    f"{case['geometry']} {case['params']['bound']}": case for case in _REFERENCE["cases"]
}


def transmittance(case: dict[str, Any]) -> np.ndarray:
    """Of every second, shape (2 dt + 1,)."""
    half = _REFERENCE["transmittance"][case["geometry"]]
    return np.array(half[:0:-1] + half)


def parameters(case: dict[str, Any]) -> Bb84Parameters:
    given = case["params"]
    return Bb84Parameters(
        pulse_rate_hz=given["fs_Hz"],
        intensities=(given["mu1"], given["mu2"], given["mu3"]),
        intensity_probabilities=(given["P1"], given["P2"], 1 - given["P1"] - given["P2"]),
        basis_x_probability=given["Px"],
        eps_secrecy=given["eps_s"],
        eps_correctness=given["eps_c"],
        bound=given["bound"].lower(),
    )
