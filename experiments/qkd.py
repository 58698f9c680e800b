"""One pass of a quantum satellite, from photons to a key block in a folder.

The folder of a run holds

* `key-block.bin`: the secret bits, first bit highest, whole bytes, mode 0600; absent without key;
* `report.json`: everything said of the pass, see below;
* `pass.csv`: one row a slot, its columns in `experiments.qkd_table`;
* `pass.png` and one figure a quantity, each as SVG too (`experiments.qkd_plots`).

`report.json` is the report of `quantum.bb84.session.run_pass` (loss, counts, QBER, leakage, bounds
and secret bits by basis, classical messages, seconds a stage) and beside it

* `title`, `origin`: orbit, station, AOS, culmination and LOS in UTC, Sun and Moon;
* `link`, `changes`: the optical parameters as used with where each comes from, and what `--set`
  changed of the presets; `fading`: whether the transmittance varied from slot to slot;
* `window_s`: the part of the pass that was used, from culmination; null for all of it;
* `expected`: secret bits, sifted bits and QBER of the mean counts, nobody listening;
* `optimum`: null, or what optimising found: secret bits expected before and after, gain, settings;
* `no_key`: null, or why there is none; then `secret_bits` is 0 and what only a key has is absent;
* `versions` of what computed it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.folder import new_folder
from experiments.progress import Reporter
from experiments.qkd_input import FlownPass, apply_changes
from experiments.qkd_table import slot_table
from quantum.bb84 import source
from quantum.bb84.detections import Detections, simulate
from quantum.bb84.eavesdropper import NOBODY, Eavesdropper
from quantum.bb84.expected import expected_key
from quantum.bb84.optimise import Optimum, optimise
from quantum.bb84.session import PassKey, distil
from quantum.bb84.source import Bb84Parameters
from quantum.bb84.stages import Stages
from quantum.optics import Downlink, airmass, preset
from topo.errors import NoKeyFromPass
from topo.space.passes import Pass

PACKAGES = ("qntn", "numpy", "scipy", "sgp4", "skyfield")
KEY_FILE = "key-block.bin"
FADING_STREAM = 2
"""Fading draws from the seed's stream of this number; the session has 0 and 1."""


@dataclass(frozen=True)
class QkdOptions:
    """What is done with a pass."""

    channel: str = "jinan1-typical"
    """Name of an optical preset, and of the source that goes with it."""
    changes: Sequence[str] = ()
    """Assignments to single parameters of these: `link.receiver_m=0.6`."""
    optimise: bool = False
    """Choose basis bias, intensities and window for the pass."""
    eavesdropper: Eavesdropper = NOBODY
    fading: bool = False
    """Let turbulence and pointing vary the transmittance from slot to slot."""
    seed: int = 1
    out: Path | None = None
    """Folder of the run; by default runs/<UTC time>-qkd/."""
    plots: bool = True


@dataclass(frozen=True)
class QkdOutcome:
    """What a run left behind."""

    folder: Path
    report: Mapping[str, Any] = field(repr=False)

    @property
    def key_file(self) -> Path | None:
        """The key block, where there is one."""
        return self.folder / KEY_FILE if self.report["no_key"] is None else None


@dataclass(frozen=True, eq=False)
class _Setting:
    """All that is settled before anything is simulated."""

    pass_: Pass
    """The whole pass."""
    used: NDArray[np.bool_]
    """Which of its slots are, shape (slots,)."""
    link: Downlink
    parameters: Bb84Parameters
    baseline: Bb84Parameters
    optimum: Optimum | None

    @property
    def used_pass(self) -> Pass:
        if self.optimum is None:
            return self.pass_
        return self.pass_.window(*self.optimum.window_s)


def run_qkd(flown: FlownPass, options: QkdOptions, reporter: Reporter) -> QkdOutcome:
    """Fly a pass and leave key block, report, table and plots in a folder.

    A pass without key is an outcome too: its report says why. Raises `InputError` for settings that
    cannot be, before anything is simulated.
    """
    setting = _settle(flown.geometry, options, reporter)
    folder = new_folder("qkd", options.out).absolute()
    reporter.stage("decoy-state BB84")
    stages = Stages(lambda stage, done: reporter.advance(done, stage))
    with stages.stage("detections"):
        detections = _simulate(setting, options, stages)
    made, no_key = None, None
    try:
        made = distil(detections, setting.parameters, seed=options.seed, stages=stages)
    except NoKeyFromPass as reason:
        no_key = str(reason)

    reporter.stage("table and report")
    table = slot_table(
        setting.pass_,
        setting.link,
        setting.parameters,
        detections,
        used=setting.used,
        baseline=None if setting.optimum is None else setting.baseline,
    )
    report = {
        "title": f"{flown.title}, {setting.link.name}",
        "origin": dict(flown.origin),
        **_setting_report(setting, options),
        **(made.report if made else _keyless_report(detections, stages)),
        "no_key": no_key,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
    _write(folder, made, report, table)
    if options.plots:
        from experiments.qkd_plots import write_figures

        reporter.stage("plots")
        write_figures(folder, table, report)
    return QkdOutcome(folder, report)


def _settle(pass_: Pass, options: QkdOptions, reporter: Reporter) -> _Setting:
    """Apply the changes to the presets and, if asked, find the optimum."""
    link, baseline = apply_changes(
        preset(options.channel), source.PRESETS[options.channel], options.changes
    )
    used = np.ones(len(pass_.t_s), np.bool_)
    if not options.optimise:
        return _Setting(pass_, used, link, baseline, baseline, None)
    reporter.stage("optimising source and window")
    optimum = optimise(pass_, link, baseline, progress=reporter.advance)
    first_s, last_s = optimum.window_s
    used = (pass_.t_s >= first_s) & (pass_.t_s <= last_s)
    return _Setting(pass_, used, link, optimum.parameters, baseline, optimum)


def _simulate(setting: _Setting, options: QkdOptions, stages: Stages) -> Detections:
    """The detections that `run_pass` draws from the same seed."""
    pass_, fading = setting.used_pass, None
    if options.fading:
        rng = np.random.default_rng([options.seed, FADING_STREAM])
        fading = setting.link.fading(pass_.elevation_deg, pass_.slot_s, rng)
    return simulate(
        pass_,
        setting.link,
        setting.parameters,
        np.random.default_rng(options.seed),
        eavesdropper=options.eavesdropper,
        fading=fading,
        progress=lambda done: stages.progress("detections", done),
    )


def _setting_report(setting: _Setting, options: QkdOptions) -> dict[str, Any]:
    """What was flown with what, and what was expected of it."""
    pass_, link, parameters = setting.used_pass, setting.link, setting.parameters
    loss_dB = link.loss_dB(pass_.range_km, airmass(pass_.elevation_deg))
    key = expected_key(pass_, link, parameters)
    sifted = sum(key.sifted_bits.values())
    errors = sum(key.qber[basis] * key.sifted_bits[basis] for basis in key.qber)
    return {
        "downlink": link.name,
        "seed": options.seed,
        "pass": {
            "duration_s": pass_.duration_s,
            "slot_s": pass_.slot_s,
            "max_elevation_deg": float(pass_.elevation_deg.max()),
            "min_range_km": float(pass_.range_km.min()),
            "min_loss_dB": float(loss_dB.min()),
            "max_loss_dB": float(loss_dB.max()),
        },
        "window_s": None if setting.optimum is None else list(setting.optimum.window_s),
        "link": {**_plain(link), "vacuum_yield": link.vacuum_yield},
        "changes": list(options.changes),
        "parameters": asdict(parameters),
        "eavesdropper": asdict(options.eavesdropper),
        "fading": options.fading,
        "expected": {
            "secret_bits": key.secret_bits,
            "sifted_bits": sifted,
            "qber": errors / sifted,
        },
        "optimum": None if setting.optimum is None else setting.optimum.report(),
    }


def _keyless_report(detections: Detections, stages: Stages) -> dict[str, Any]:
    """What can be said of a pass that gave no key, by the names that a key's report has."""
    sifted, errors = int(detections.sifted.sum()), int(detections.errors.sum())
    return {
        "pulses": int(detections.pulses.sum()),
        "detections": int(detections.clicks.sum()),
        "sifted_bits": sifted,
        "sifted_signal_bits": int(detections.sifted[..., 0].sum()),
        "qber": errors / sifted if sifted else None,
        "secret_bits": 0,
        "stages_s": stages.times_s,
    }


def _plain(settings: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON has it, parts and provenance included."""
    plain = {}
    for name, value in vars(settings).items():
        if is_dataclass(value):
            plain[name] = _plain(value)
        else:
            plain[name] = dict(value) if isinstance(value, Mapping) else value
    return plain


def _write(
    folder: Path, made: PassKey | None, report: Mapping[str, Any], table: pd.DataFrame
) -> None:
    if made is not None:
        # The mode is set as the file is made: at no time can others read it.
        descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made.key_bob)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table.to_csv(folder / "pass.csv", index=False, float_format="%.10g")
