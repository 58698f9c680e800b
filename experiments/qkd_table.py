"""A pass slot by slot as one table: where the satellite was, what was lost, counted and wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from quantum.bb84.detections import Detections
from quantum.bb84.expected import cumulative_key_bits, slot_counts
from quantum.bb84.source import Bb84Parameters
from quantum.optics import Downlink
from topo.space.passes import Pass


def slot_table(
    pass_: Pass,
    link: Downlink,
    parameters: Bb84Parameters,
    detections: Detections,
    *,
    used: npt.NDArray[np.bool_],
    baseline: Bb84Parameters | None = None,
) -> pd.DataFrame:
    """One row a slot of the whole pass; `detections` are of its `used` slots, shape (slots,).

    | column | what it says |
    |---|---|
    | `t_s` | slot centre, from culmination |
    | `elevation_deg`, `range_km` | geometry there |
    | `loss_dB`, `loss_<term>_dB` | mean loss from source to click, and its terms |
    | `used` | 1 where the slot's clicks went into the key |
    | `clicks_<k>`, `expected_clicks_<k>` | clicks by intensity, k from 1, the brightest: simulated, mean |
    | `sifted`, `errors` | sifted bits of both bases and how many were wrong, simulated |
    | `known` | sifted bits that the eavesdropper knows, simulated |
    | `expected_sifted`, `expected_errors` | their means with nobody listening |
    | `expected_key_bits` | secret bits of the mean counts from the first used slot to this one |
    | `baseline_key_bits` | the same for the source `baseline` from the whole pass's start; if given |
    """
    expected = slot_counts(pass_, link, parameters)
    terms = link.loss_terms_dB(pass_.range_km, pass_.elevation_deg)
    measured = {
        "clicks": detections.clicks,
        "sifted": detections.sifted.sum(axis=(1, 2)),
        "errors": detections.errors.sum(axis=(1, 2)),
        "known": detections.known.sum(axis=1),
    }
    whole = {name: np.zeros((len(used), *of.shape[1:])) for name, of in measured.items()}
    for name, of in measured.items():
        whole[name][used] = of
    kinds = range(len(parameters.intensities))
    columns = {
        "t_s": pass_.t_s,
        "elevation_deg": pass_.elevation_deg,
        "range_km": pass_.range_km,
        "loss_dB": sum(terms.values()),
        **{f"loss_{name}_dB": term for name, term in terms.items()},
        "used": used.astype(int),
        **{f"clicks_{k + 1}": whole["clicks"][:, k] for k in kinds},
        **{f"expected_clicks_{k + 1}": expected.clicks[:, k] for k in kinds},
        "sifted": whole["sifted"],
        "errors": whole["errors"],
        "known": whole["known"],
        "expected_sifted": expected.sifted.sum(axis=(1, 2)),
        "expected_errors": expected.errors.sum(axis=(1, 2)),
        "expected_key_bits": cumulative_key_bits(expected.where(used), parameters),
    }
    if baseline is not None:
        columns["baseline_key_bits"] = cumulative_key_bits(
            slot_counts(pass_, link, baseline), baseline
        )
    return pd.DataFrame(columns)
