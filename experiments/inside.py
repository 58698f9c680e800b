"""The program that a substrate runs: every arm of a run, one after the other.

`python -m experiments.inside FOLDER ARM...` reads `FOLDER/scenario.toml` and speaks JSON, one event a line, on
standard output. It needs root in a kernel with netem; `experiments.run` starts it in one.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.arm import ArmOptions, ArmRun
from experiments.control import CONTROL, control_of
from experiments.folder import RunFolder
from experiments.services import prepare_forks
from experiments.timetable import slot_s
from topo.errors import QntnError
from topo.network import require_root
from topo.scenario import load
from topo.substrates.host import already_virtual


def emit(event: str, **fields: Any) -> None:
    """Say one thing to the person outside."""
    print(json.dumps({"event": event, **fields}), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the arms; the exit code of the error that ended them, if one did."""
    parser = argparse.ArgumentParser(prog="experiments.inside")
    parser.add_argument("folder", type=Path)
    parser.add_argument("arms", nargs="+", help="control is the arm that measures the run itself")
    parser.add_argument("--no-captures", action="store_true")
    parser.add_argument("--no-goodput", action="store_true")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    folder = RunFolder(options.folder)
    prepare_forks("experiments.arm", "experiments.control")
    try:
        require_root()
        scenario = load(folder.scenario)
        at_s = math.ceil(time.time())
        for name in options.arms:
            is_control = name == CONTROL
            of_arm = control_of(scenario) if is_control else scenario
            what = ArmOptions(
                captures=not options.no_captures and not is_control,
                goodput=not options.no_goodput,
                stock_ping=is_control,
            )
            if already_virtual():
                time.sleep(max(0.0, at_s - time.time()))
                at_s += slot_s(of_arm)
            emit("arm", arm=name, probes=of_arm.probe.count)
            ArmRun(of_arm, name, folder, what, emit).run()
            emit("arm-done", arm=name)
    except QntnError as error:
        emit("error", message=str(error), exit_code=error.exit_code)
        return error.exit_code
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """End in order: the contexts on the stack take the network down."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
