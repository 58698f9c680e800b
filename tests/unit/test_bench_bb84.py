"""The BB84 benchmark: what it says without its peer, with one, and with one that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.bench import bb84
from experiments.qkd_terminal import print_bb84_bench
from topo.errors import MeasurementError

OWN = {
    "channel": "jinan1-clear",
    "duration_s": 448.0,
    "pulse_rate_hz": 625e6,
    "mean_photons": 0.425,
    "mean_transmittance": 1e-4,
    "stages_s": {"orbit": 0.1, "detections": 1.0},
    "total_s": 2.0,
    "cpu_s": 2.0,
    "pulses": 280_000_000_000,
    "detections": 8_000_000,
    "secret_bits": 1_000_000,
    "pulses_per_s": 1.4e11,
    "detections_per_s": 4e6,
    "peak_rss_MiB": 500.0,
}


class Quiet:
    def stage(self, name: str, total: float | None = None) -> None: ...
    def advance(self, done: float, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bb84, "_own", lambda *of: dict(OWN))


def interpreter(tmp_path: Path, body: str) -> Path:
    """A stand-in for the peer's Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def found_with(python: Path) -> dict[str, Any]:
    return bb84.run("jinan1-clear", 1, python, 100_000, Quiet())


def test_without_the_peer_it_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = found_with(tmp_path / "none")
    assert found["peer"]["name"] == "SeQUeNCe"
    assert "`make peers`" in found["peer"]["missing"]
    print_bb84_bench(found)
    out = capsys.readouterr().out
    assert "from elements to secret bits" in out
    assert "not measured: SeQUeNCe" in out


def test_the_peer_gets_the_pass_s_loss_and_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"version": "0", "pulses": 100_000, "photons": 42_500, "detections": 4, "seconds": 2.0}
    python = interpreter(tmp_path, f"echo \"$@\" > {tmp_path}/argv; echo '{json.dumps(said)}'")
    peer = found_with(python)["peer"]
    script, loss_dB, rate, photons, pulses = (tmp_path / "argv").read_text().split()
    assert Path(script).name == "sequence_peer.py"
    assert [float(loss_dB), float(rate), float(photons)] == [40.0, 625e6, 0.425]
    assert int(pulses) == 100_000
    assert peer["pulses_per_s"] == 50_000
    assert peer["pass_days"] == pytest.approx(2.8e11 / 5e4 / 86400)
    assert peer["times_slower"] == pytest.approx(2.8e6)
    print_bb84_bench(found_with(python))
    assert "times slower" in capsys.readouterr().out


def test_a_peer_that_fails_is_one_line(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "echo 'No module named sequence' >&2; exit 1")
    with pytest.raises(MeasurementError, match=r"No module named sequence; `make peers`"):
        found_with(python)


@pytest.mark.long
def test_a_whole_pass_is_measured_from_elements_to_bits() -> None:
    heard = set()
    found = bb84.measure("jinan1-typical", 1, lambda stage, done: heard.add(stage))
    assert found["duration_s"] == 448
    assert found["secret_bits"] == pytest.approx(0.59e6, rel=0.1)
    assert {"orbit", "detections", "sifting", "privacy amplification"} <= heard
    assert found["peak_rss_MiB"] < 2048
