"""Runs the paper's plain arm on this guest's own kernel, as its root, with the command line."""

import os
import subprocess
import sys
from pathlib import Path

folder = Path(os.environ["QNTN_DIR"])
command = [
    Path(sys.executable).parent / "qntn",
    "run",
    "paper",
    "--arm",
    "plain",
    "--substrate",
    "host",
]
command += ["--probes", "3", "--no-goodput", "--no-plots", "--no-captures", "--out", folder / "run"]
sys.exit(subprocess.run(command, check=False).returncode)
