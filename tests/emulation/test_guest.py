"""The guest kernel as a substrate: what happens inside is known outside, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulation.conftest import GUEST_SCRIPTS, GuestRun
from topo.errors import GuestFailed
from topo.substrates import Job
from topo.substrates.kernel import cache_dir, kernel_path
from topo.substrates.uml import UmlSubstrate

pytestmark = pytest.mark.emulation

InGuest = Callable[..., GuestRun]


def test_output_and_status_come_out(in_guest: InGuest) -> None:
    well = in_guest("end.py", "well")
    assert (well.status, well.lines) == (0, ["begun", "uid 0"])


def test_a_failed_step_inside_is_a_failure_outside(in_guest: InGuest) -> None:
    badly = in_guest("end.py", "badly")
    assert badly.status == 3
    assert badly.errors == "this went wrong\n"


def test_nothing_but_the_run_folder_can_be_written(in_guest: InGuest) -> None:
    assert "Read-only file system: '/etc/qntn-was-here'" in in_guest("end.py", "write").errors


def test_a_panic_inside_is_a_failure_with_the_console_log(tmp_path: Path) -> None:
    argv = (sys.executable, str(GUEST_SCRIPTS / "end.py"), "panic")
    with pytest.raises(GuestFailed, match=r"ended before its job did: .*panic") as failure:
        UmlSubstrate().run(Job(argv=argv, folder=tmp_path, clock="virtual"), lambda line: None)
    console = failure.value.console
    assert console is not None and "sysrq: Trigger a crash" in console.read_text()


def test_a_hang_inside_is_ended_from_outside(tmp_path: Path) -> None:
    argv = (sys.executable, str(GUEST_SCRIPTS / "end.py"), "hang")
    job = Job(argv=argv, folder=tmp_path, clock="virtual", silence_limit_s=5.0)
    heard: list[str] = []
    with pytest.raises(GuestFailed, match="silent for 5 s: it hangs"):
        UmlSubstrate().run(job, heard.append)
    assert heard == ["begun"]
    left = subprocess.run(["pgrep", "-f", f"QNTN_DIR={tmp_path}"], capture_output=True, check=False)
    assert left.stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs all of these tests as one")
def test_an_ordinary_user_boots_a_guest() -> None:
    """The whole of it as `nobody`: no root, no KVM, no container."""
    # Not under pytest's own folder, which every other run of pytest closes to other users.
    with tempfile.TemporaryDirectory(prefix="qntn-nobody-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        _run_as_nobody(folder)


def _run_as_nobody(folder: Path) -> None:
    cache = folder / "cache"
    kernel = cache / kernel_path().relative_to(cache_dir().parent.parent)
    kernel.parent.mkdir(parents=True)
    shutil.copy(kernel_path(), kernel)
    out = folder / "out"
    out.mkdir()
    shutil.chown(out, "nobody")
    command = [Path(sys.executable).parent / "qntn", "run", "paper", "--arm", "plain"]
    command += ["--clock", "virtual", "--probes", "3", "--no-goodput", "--no-plots"]
    command += ["--out", out / "run"]
    done = subprocess.run(
        command,
        user="nobody",
        group="nogroup",
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": str(out), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    samples = out / "run" / "samples.csv"
    assert samples.owner() == "nobody"
    assert len(samples.read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guest_goes_with_the_command_that_started_it(tmp_path: Path, number: int) -> None:
    command = [Path(sys.executable).parent / "qntn", "run", "paper", "--arm", "plain"]
    command += ["--substrate", "uml", "--clock", "real", "--out", tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        guest = f"QNTN_DIR={tmp_path / 'run'}"
        await_that(lambda: running(guest))
        process.send_signal(number)
        process.wait(30)
    await_that(lambda: not running(guest))


def running(what: str) -> bool:
    """Whether a process with this in its command line is running."""
    found = subprocess.run(
        ["pgrep", "-f", f"linux .*{what}"], stdout=subprocess.DEVNULL, check=False
    )
    return found.returncode == 0


def await_that(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)
