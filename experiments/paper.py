"""The paper's experiment as a script: `sudo python -m experiments.paper`, with the options of `qntn reproduce`."""

from __future__ import annotations

import sys

from experiments.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["reproduce"]
    main()
