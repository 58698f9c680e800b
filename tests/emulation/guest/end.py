"""Ends in the way that its argument names."""

import os
import sys
import time
from pathlib import Path

print("begun", flush=True)
match sys.argv[1]:
    case "well":
        print("uid", os.getuid(), flush=True)
    case "badly":
        print("this went wrong", file=sys.stderr)
        sys.exit(3)
    case "panic":
        Path("/proc/sysrq-trigger").write_text("c")
        time.sleep(60)
    case "hang":
        while True:  # a virtual clock stands still while anything computes
            pass
    case "write":
        Path("/etc/qntn-was-here").write_text("no")
