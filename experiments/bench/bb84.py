"""How long a pass of a quantum satellite takes to simulate, from its elements to secret bits, beside SeQUeNCe.

`python -m experiments.bench.bb84 CHANNEL SEED` flies the Jinan-1 pass over Beijing of 22 November 2024 on one core and
prints JSON lines, progress first, the result last; `qntn bench bb84` runs it in a process of its own, so that its peak
memory is that of the pass, then the peer, and prints the table. The peer is SeQUeNCe's own BB84 at the same mean loss
(`experiments.bench.sequence_peer`), run by an interpreter of an environment of its own, which `make peers` makes. It
simulates every pulse, has no decoy states and stops at sifted bits: a bound on its speed, not a like for like.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

from experiments.progress import Reporter
from topo.errors import MeasurementError

ROOT: Final = Path(__file__).resolve().parents[2]
PEER_REMEDY: Final = "`make peers` makes an environment with it"
PEER_SCRIPT: Final = Path(__file__).with_name("sequence_peer.py")
PEER_TIMEOUT_S: Final = 900.0
NIGHT: Final = date(2024, 11, 22)
DAY_S: Final = 86_400.0

ONE_CORE: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure(channel: str, seed: int, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Seconds of every stage from the shipped elements to secret bits, and what came out, JSON-able."""
    from experiments.passes import PAPER_STATIONS, PassOptions, best_pass
    from quantum.bb84 import source
    from quantum.bb84.session import run_pass
    from quantum.optics import preset

    begin, cpu_begin = time.perf_counter(), time.process_time()
    progress("orbit", 0.0)
    pass_ = best_pass(PassOptions(stations=PAPER_STATIONS[:1], night=NIGHT)).slots()
    orbit_s = time.perf_counter() - begin
    link, parameters = preset(channel), source.PRESETS[channel]
    report = run_pass(pass_, link, parameters, seed=seed, progress=progress).report
    total_s = time.perf_counter() - begin
    eta = link.transmittance(pass_.range_km, pass_.elevation_deg)
    mean_photons = zip(parameters.intensities, parameters.intensity_probabilities, strict=True)
    return {
        "channel": channel,
        "seed": seed,
        "duration_s": pass_.duration_s,
        "pulse_rate_hz": parameters.pulse_rate_hz,
        "mean_photons": sum(mu * p for mu, p in mean_photons),
        "mean_transmittance": float(eta.mean()),
        "stages_s": {"orbit": orbit_s, **report["stages_s"]},
        "total_s": total_s,
        "cpu_s": time.process_time() - cpu_begin,
        "pulses": report["pulses"],
        "detections": report["detections"],
        "sifted_bits": report["sifted_bits"],
        "secret_bits": report["secret_bits"],
        "pulses_per_s": report["pulses"] / total_s,
        "detections_per_s": report["detections"] / total_s,
        "peak_rss_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(
    channel: str, seed: int, peer_python: Path, peer_pulses: int, reporter: Reporter
) -> dict[str, Any]:
    """The benchmark in a process of its own on one core, then the peer, JSON-able.

    `peer_python` is looked for in the project's folder where it is relative. Without it, `peer` holds
    `missing`: what is missing and how to get it.
    """
    found = _own(channel, seed, reporter)
    python = ROOT / peer_python
    if not python.exists():
        missing = f"SeQUeNCe: no interpreter {python}; {PEER_REMEDY}"
        return {**found, "peer": {"name": "SeQUeNCe", "missing": missing}}
    reporter.stage(f"SeQUeNCe, {peer_pulses:,} pulses")
    return {**found, "peer": _peer(python, peer_pulses, found)}


def _own(channel: str, seed: int, reporter: Reporter) -> dict[str, Any]:
    reporter.stage("a Jinan-1 pass, from elements to secret bits")
    argv = [sys.executable, "-m", "experiments.bench.bb84", channel, str(seed)]
    found: dict[str, Any] = {}
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, **ONE_CORE},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line)
            if "stage" in said:
                reporter.advance(said["done"], said["stage"])
            else:
                found = said
    if child.returncode != 0 or not found:
        raise MeasurementError(f"the benchmark ended with status {child.returncode}")
    return found


def _peer(python: Path, pulses: int, own: Mapping[str, Any]) -> dict[str, Any]:
    """What SeQUeNCe does in a second at the pass's mean loss, and how long the pass would take it."""
    from math import log10

    loss_dB = -10 * log10(own["mean_transmittance"])
    argv = [python, PEER_SCRIPT, loss_dB, own["pulse_rate_hz"], own["mean_photons"], pulses]
    try:
        done = subprocess.run(
            [str(argument) for argument in argv],
            env={**os.environ, **ONE_CORE},
            capture_output=True,
            text=True,
            check=True,
            timeout=PEER_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
        raise MeasurementError(f"SeQUeNCe, by {python}: {last}; {PEER_REMEDY}") from error
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"SeQUeNCe took longer than {PEER_TIMEOUT_S:.0f} s; give it fewer pulses"
        ) from error
    peer = json.loads(done.stdout)
    per_s = peer["pulses"] / peer["seconds"]
    return {
        "name": "SeQUeNCe",
        **peer,
        "loss_dB": loss_dB,
        "pulses_per_s": per_s,
        "pass_days": own["pulses"] / per_s / DAY_S,
        "times_slower": own["pulses_per_s"] / per_s,
    }


def main() -> int:
    channel, seed = sys.argv[1], int(sys.argv[2])
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})

    def say(stage: str, done: float) -> None:
        print(json.dumps({"stage": stage, "done": done}), flush=True)

    print(json.dumps(measure(channel, seed, say)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
