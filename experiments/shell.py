"""`qntn shell`: Mininet's prompt inside the running network of an arm.

`python -m experiments.shell FOLDER ARM` is the program inside the substrate; `prepared_shell` starts it there. The
waits run, and the tunnel of an arm that has one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from experiments.arm import ArmOptions, ArmRun
from experiments.folder import RunFolder
from experiments.progress import Reporter
from experiments.services import prepare_forks
from topo.errors import InputError, QntnError
from topo.planner import build_plan
from topo.scenario import Scenario, load
from topo.substrates import Clock, Job, choose
from topo.substrates.uml import UmlSubstrate


@contextmanager
def prepared_shell(
    scenario: Scenario,
    arm: str,
    name: Literal["auto", "host", "uml"],
    clock: Clock,
    reporter: Reporter,
) -> Iterator[Callable[[], int]]:
    """All that the prompt needs, keys included; call what it yields to open it, and get its exit status."""
    from experiments.key_supply import issued_at, provide_for  # outside alone: seconds in a guest

    build_plan(scenario, arm)
    substrate, clock = choose(name, clock)
    if isinstance(substrate, UmlSubstrate) and not sys.stdin.isatty():
        raise InputError("the prompt in a guest needs a terminal as its standard input")
    with tempfile.TemporaryDirectory(prefix="qntn-shell-") as scratch:
        folder = RunFolder.create("shell", Path(scratch))
        folder.write_scenario(scenario)
        provide_for(scenario, [arm], folder, reporter, issued_at(scenario, clock))
        argv = (sys.executable, "-m", "experiments.shell", scratch, arm)

        def open_prompt() -> int:
            if isinstance(substrate, UmlSubstrate):
                return substrate.run_interactive(Job(argv=argv, folder=folder.root, clock=clock))
            return subprocess.run(argv, check=False).returncode

        yield open_prompt


def main() -> int:
    """Inside: build the network, start its waits, and hand over to Mininet's prompt."""
    from topo.mininet_parts import Prompt

    folder, arm = RunFolder(Path(sys.argv[1])), sys.argv[2]
    prepare_forks("experiments.arm")
    try:
        scenario = load(folder.scenario)
        run = ArmRun(scenario, arm, folder, ArmOptions(), lambda event, **fields: None)
        with run.up() as (network, _):
            print(f"{scenario.title}: {' - '.join(host.name for host in run.plan.hosts)}")
            Prompt(network.net)
    except QntnError as error:
        print(f"qntn: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
