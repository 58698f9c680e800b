"""`qntn doctor`: what this machine can run, how exact its clock is, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.environment import NoiseFloor
from experiments.progress import Reporter
from experiments.run import run_control
from gateways.suites import sm4_backend
from topo.errors import FeatureMissing
from topo.scenario import find, load
from topo.substrates import Clock, Substrate, features
from topo.substrates.host import HostSubstrate
from topo.substrates.kernel import find_kernel
from topo.substrates.uml import UmlSubstrate

SLEEP_S = 0.01
SLEEPS = 100
PROGRAMS = {
    "tshark": "tshark",
    "dumpcap": "tshark",
    "iperf": "iperf",
    "ping": "iputils-ping",
    "mnexec": "mininet",
}
"""Programs that a run starts, and Debian's packages of them."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `remedy` is empty where all is well."""

    subject: str
    found: str
    ok: bool
    remedy: str = ""


def examine() -> dict[str, Any]:
    """Look at the substrates, the programs and the clock; JSON-able."""
    host = [
        Finding(f.name, "present" if f.present else "missing", f.present, f.remedy)
        for f in features.probe()
    ]
    uml = [_kernel()]
    programs = [_program(name, package) for name, package in PROGRAMS.items()]
    programs.append(Finding("SM4-GCM", sm4_backend(), True))
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "substrates": {
            "host": {"usable": all(f.ok for f in host), "findings": [vars(f) for f in host]},
            "uml": {"usable": all(f.ok for f in uml), "findings": [vars(f) for f in uml]},
        },
        "programs": [vars(f) for f in programs],
        "sleep_error_us": sleep_error_us(),
    }


def _kernel() -> Finding:
    try:
        path = find_kernel()
    except FeatureMissing as error:
        return Finding("guest kernel", "missing", False, error.remedy)
    return Finding("guest kernel", str(path), True)


def _program(name: str, package: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, "missing", False, f"Install it with `apt-get install {package}`.")
    return Finding(name, path, True)


def sleep_error_us() -> dict[str, float]:
    """How late this machine wakes from a sleep of 10 ms, in µs: a real-time run is no more exact than this."""
    late = []
    for _ in range(SLEEPS):
        begin = time.perf_counter()
        time.sleep(SLEEP_S)
        late.append((time.perf_counter() - begin - SLEEP_S) * 1e6)
    return {
        "median": round(float(np.median(late)), 1),
        "p99": round(float(np.percentile(late, 99)), 1),
        "worst": round(max(late), 1),
    }


def noise_floors(found: dict[str, Any], reporter: Reporter) -> dict[str, NoiseFloor]:
    """Run the control arm of the paper's scenario in each usable substrate and clock: name -> noise floor."""
    scenario = load(find("paper"))
    ways: list[tuple[str, Substrate, Clock]] = []
    if found["substrates"]["host"]["usable"]:
        ways.append(("host, real clock", HostSubstrate(), "real"))
    if found["substrates"]["uml"]["usable"]:
        ways.append(("uml, virtual clock", UmlSubstrate(), "virtual"))
        ways.append(("uml, real clock", UmlSubstrate(), "real"))
    floors = {}
    for name, substrate, clock in ways:
        reporter.note(f"noise floor of {name}")
        with tempfile.TemporaryDirectory(prefix="qntn-doctor-") as scratch:
            floors[name] = run_control(scenario, substrate, clock, Path(scratch), reporter)
    return floors
