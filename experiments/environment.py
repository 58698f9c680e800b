"""What a run ran on: versions, kernel, substrate, clock, seed, and the run's own noise floor."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.budget import planned_rtt_ns
from experiments.control import CONTROL, control_of
from experiments.folder import RunFolder
from experiments.ping import parse_ping
from experiments.summary import Record
from topo.errors import MeasurementError
from topo.planner import build_plan
from topo.scenario import Scenario
from topo.substrates import Clock, SubstrateName

PACKAGES = (
    "qntn",
    "aiohttp",
    "cryptography",
    "numpy",
    "pandas",
    "pydantic",
    "pyroute2",
    "scipy",
)
PROGRAMS = {"tshark": "--version", "iperf": "-v", "ping": "-V"}


class NoiseFloor(Record):
    """How far the control arm's RTTs strayed from the plan: what this run cannot see below."""

    probes: int
    lost: int
    planned_rtt_ms: float
    mean_error_ms: float
    """Mean of emulated minus planned RTT."""
    worst_error_ms: float
    """Largest absolute difference of one probe."""
    jitter_ms: float
    """Mean |T_i - T_(i-1)| of the control arm; nothing planned varies in it."""
    stock_ping_mean_ms: float | None
    """What iputils' ping says of the same path, its mean; None where it had no answer."""


class Environment(Record):
    """All of `environment.json`."""

    substrate: SubstrateName
    clock: Clock
    seed: int
    scenario: str
    machine_kernel: str
    guest_kernel: str | None
    """Release of the kernel the network ran in, where it is not the machine's."""
    machine: str
    python: str
    packages: dict[str, str]
    programs: dict[str, str]
    noise_floor: NoiseFloor


def noise_floor(scenario: Scenario, folder: RunFolder) -> NoiseFloor:
    """Compare the control arm's samples with its plan; `MeasurementError` where fewer than two came back."""
    control = control_of(scenario)
    planned_ns = planned_rtt_ns(control, build_plan(control, CONTROL), control.arms[CONTROL])
    samples = pd.read_csv(folder.arm(CONTROL) / "samples.csv")
    answered = samples["rtt_ns"].dropna().to_numpy(dtype=float)
    if len(answered) < 2:
        raise MeasurementError(
            f"only {len(answered)} of {len(samples)} probes of the control arm came back: the network carries nothing"
        )
    errors_ms = (answered - planned_ns) / 1e6
    return NoiseFloor(
        probes=len(samples),
        lost=len(samples) - len(answered),
        planned_rtt_ms=planned_ns / 1e6,
        mean_error_ms=float(errors_ms.mean()),
        worst_error_ms=float(np.abs(errors_ms).max()),
        jitter_ms=float(np.abs(np.diff(answered)).mean() / 1e6),
        stock_ping_mean_ms=parse_ping((folder.arm(CONTROL) / "ping.txt").read_text()).mean_ms,
    )


def describe(
    scenario: Scenario,
    substrate: SubstrateName,
    clock: Clock,
    folder: RunFolder,
) -> Environment:
    """The environment of a finished run of this process."""
    guest_kernel = folder.root / "guest" / "kernel"
    return Environment(
        substrate=substrate,
        clock=clock,
        seed=scenario.seed,
        scenario=scenario.name,
        machine_kernel=platform.release(),
        guest_kernel=guest_kernel.read_text().strip() if guest_kernel.exists() else None,
        machine=_processor(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        programs={name: _version(name, flag) for name, flag in PROGRAMS.items()},
        noise_floor=noise_floor(scenario, folder),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(program: str, flag: str) -> str:
    """The first line a program prints of its version; `missing` where there is no such program."""
    if shutil.which(program) is None:
        return "missing"
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    return next(iter((done.stdout + done.stderr).strip().splitlines()), "unknown")
