"""Pointing accuracy and field of view against signal and stray light: figure 7 of Photonics 11, 268 (2024).

One satellite midway between two like stations, in daylight. A narrow field of view keeps the sky out but, where the
aim wanders, the signal too; better pointing lets the field be narrower. The spatial filter is on here whatever the
parameters say, and the ratio of coincidences to accidentals is the strict one (`car_model = one_sided`) unless the
user changes it: with the other, daylight hardly matters.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments import hybrid_setup as setup
from experiments.folder import new_folder
from experiments.hybrid import Outcome, write
from experiments.hybrid_setup import HybridOptions
from experiments.progress import Reporter
from quantum.repeaters.channel import (
    downlink_efficiency,
    pointing_efficiency,
    spatial_filter_efficiency,
)
from quantum.repeaters.cities import EARTH_KM
from quantum.repeaters.links import space_link
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.werner import (
    bsm_werner,
    car_one_sided,
    car_paper,
    fidelity,
    sky_radiance,
    stray_probability,
    stray_rate_hz,
)
from topo.errors import InputError

Floats = NDArray[np.float64]

FIELDS_URAD: Final = np.geomspace(2.0, 200.0, 61)
POINTINGS_URAD: Final = np.geomspace(0.2, 4.0, 37)
SHOWN_POINTINGS_URAD: Final = (0.5, 1.0, 2.0)
IRRADIANCES_W_m2: Final = (0.0, 10.0, 50.0, 100.0, 200.0)


def run_filter(
    options: HybridOptions,
    *,
    elevation_deg: float = 45.0,
    altitude_km: float = 700.0,
    irradiance_W_m2: float = 100.0,
    visibility_km: float = 23.0,
    reporter: Reporter,
) -> Outcome:
    """The link of two like stations over pointing error and field of view, `irradiance_W_m2` of diffuse light."""
    if not 0 < elevation_deg <= 90:
        raise InputError(f"--elevation-deg {elevation_deg:g}: above 0, to 90")
    if not 100 <= altitude_km <= 50_000:
        raise InputError(f"--altitude-km {altitude_km:g}: from 100 to 50000")
    if not (0 <= irradiance_W_m2 < inf and visibility_km > 0):
        raise InputError("--irradiance must be 0 W/m2 or more, --visibility-km above 0")
    base = Parameters(spatial_filter=True, car_model="one_sided", field_of_view_urad=50.0)
    p = setup.parameters(options.changes, base)
    folder = new_folder("hybrid-filter", options.out)
    reporter.stage("pointing error and field of view")
    range_km = slant_range_km(altitude_km, elevation_deg)
    lights = sorted({*IRRADIANCES_W_m2, irradiance_W_m2})
    fields = np.unique(np.append(FIELDS_URAD, p.field_of_view_urad))
    pointings = np.unique(np.concatenate([POINTINGS_URAD, SHOWN_POINTINGS_URAD, [p.pointing_urad]]))
    # Diffraction and air are the same everywhere; pointing and the filter are what is varied.
    plain = p.changed(spatial_filter=False, pointing_urad=0.0)
    open_air = float(downlink_efficiency(range_km, elevation_deg, visibility_km, 0.0, plain))
    # The light that was asked for over both; other lights over the field of view alone.
    rows = [
        row
        for light in lights
        for pointing in (pointings if light == irradiance_W_m2 else [p.pointing_urad])
        for row in _points(p.changed(pointing_urad=float(pointing)), fields, light, open_air)
    ]
    by_day = [row for row in rows if row["irradiance_W_m2"] == irradiance_W_m2]
    own = [row for row in by_day if row["pointing_urad"] == p.pointing_urad]
    report: dict[str, Any] = {
        "experiment": "filter",
        "label": LABEL,
        "weather": f"assumed: no cloud, visibility {visibility_km:g} km",
        "changes": list(options.changes),
        "parameters": p.as_dict(),
        "elevation_deg": elevation_deg,
        "range_km": round(range_km, 2),
        "irradiance_W_m2": irradiance_W_m2,
        "best": _best(by_day),
        "best_at_own_pointing": _best(own),
        "as_set": next(row for row in own if row["field_of_view_urad"] == p.field_of_view_urad),
    }
    outcome = Outcome(folder, report, {"filter": pd.DataFrame(rows)})
    write(outcome)
    if options.plots:
        from experiments.hybrid_trade_plots import write_filter

        reporter.stage("plots")
        write_filter(outcome)
    return outcome


def slant_range_km(altitude_km: float, elevation_deg: float) -> float:
    """Distance of a satellite at an elevation, over a sphere."""
    sine = np.sin(np.radians(elevation_deg))
    ratio = 1 + altitude_km / EARTH_KM
    return float(EARTH_KM * (np.sqrt(ratio**2 - 1 + sine**2) - sine))


def _points(
    p: Parameters, fields_urad: Floats, irradiance_W_m2: float, open_air: float
) -> list[dict[str, float]]:
    """One row a field of view; `open_air` is what reaches a station that points without error."""
    filtered = np.array(
        [spatial_filter_efficiency(p.changed(field_of_view_urad=float(f))) for f in fields_urad]
    )
    signal = open_air * pointing_efficiency(p) * filtered
    # The sky is as bright all over: light grows with the cone.
    rate_hz = stray_rate_hz(sky_radiance(irradiance_W_m2, p), p) * (
        (fields_urad / p.field_of_view_urad) ** 2
    )
    stray = stray_probability(rate_hz, p)
    link = space_link(signal, signal, stray, stray, p)
    strict = p.car_model == "one_sided"
    car = car_one_sided(signal, stray, p) if strict else car_paper(link.probability, stray)
    columns = {
        "field_of_view_urad": fields_urad,
        "signal_efficiency": signal,
        "stray_rate_hz": rate_hz,
        "stray_probability": stray,
        "bsm_fidelity": fidelity(bsm_werner(car)),
        "probability": link.probability,
        "werner": np.broadcast_to(link.werner, signal.shape),
        "skp": link.skp,
    }
    return [
        {
            "irradiance_W_m2": irradiance_W_m2,
            "pointing_urad": p.pointing_urad,
            **{name: float(values[number]) for name, values in columns.items()},
        }
        for number in range(len(fields_urad))
    ]


def _best(rows: list[dict[str, float]]) -> dict[str, float] | None:
    """The point with most key; None where none has any."""
    best = max(rows, key=lambda row: row["skp"])
    return best if best["skp"] > 0 else None
