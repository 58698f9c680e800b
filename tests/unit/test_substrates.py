"""Substrates without a guest: the choice, a guest's command line, its life and its ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topo.errors import FeatureMissing, GuestFailed, InputError
from topo.substrates import Clock, Job, choose, features, host, uml
from topo.substrates.features import NETEM_REMEDY, Feature
from topo.substrates.host import HostSubstrate
from topo.substrates.uml import UmlSubstrate, boot_command

NOW_NS = 1_732_939_200_000_000_000


# -- the choice ------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what this machine has: netem in its own kernel, the guest kernel, a clock that is virtual already."""

    def has(netem: bool = False, guest_kernel: bool = False, virtual: bool = False) -> None:
        found = [Feature("root", True, ""), Feature("sch_netem", netem, NETEM_REMEDY)]
        monkeypatch.setattr(features, "probe", lambda: found)
        monkeypatch.setattr(host, "already_virtual", lambda: virtual)

        def find_kernel() -> Path:
            if not guest_kernel:
                raise FeatureMissing("the User Mode Linux kernel", "Build it once.")
            return Path("/linux")

        monkeypatch.setattr(uml, "find_kernel", find_kernel)

    return has


@pytest.mark.parametrize(
    ("has", "asked", "chosen"),
    [
        ({"netem": True, "guest_kernel": True}, ("auto", "auto"), ("host", "real")),
        ({"netem": True, "guest_kernel": True}, ("auto", "real"), ("host", "real")),
        ({"netem": True, "guest_kernel": True}, ("auto", "virtual"), ("uml", "virtual")),
        ({"netem": True, "guest_kernel": True}, ("uml", "auto"), ("uml", "virtual")),
        ({"netem": True, "guest_kernel": True}, ("uml", "real"), ("uml", "real")),
        ({"netem": True}, ("host", "auto"), ("host", "real")),
        ({"guest_kernel": True}, ("auto", "auto"), ("uml", "virtual")),
        ({"guest_kernel": True}, ("auto", "real"), ("uml", "real")),
        ({"netem": True, "virtual": True}, ("host", "auto"), ("host", "virtual")),
        ({"netem": True, "virtual": True}, ("host", "virtual"), ("host", "virtual")),
        ({"netem": True, "virtual": True}, ("auto", "auto"), ("host", "virtual")),
    ],
)
def test_the_choice(
    machine: Callable[..., None],
    has: dict[str, bool],
    asked: tuple[str, str],
    chosen: tuple[str, str],
) -> None:
    machine(**has)
    substrate, clock = choose(*asked)  # type: ignore[arg-type]
    assert (substrate.name, clock) == chosen


@pytest.mark.parametrize(
    ("has", "asked", "missing"),
    [
        ({}, ("auto", "auto"), "the User Mode Linux kernel"),
        ({"netem": True}, ("auto", "virtual"), "the User Mode Linux kernel"),
        ({"netem": True}, ("uml", "auto"), "the User Mode Linux kernel"),
        ({"guest_kernel": True}, ("host", "auto"), "sch_netem"),
        ({"guest_kernel": True}, ("host", "real"), "sch_netem"),
        ({"netem": True, "guest_kernel": True}, ("host", "virtual"), "a virtual clock"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    machine: Callable[..., None], has: dict[str, bool], asked: tuple[str, str], missing: str
) -> None:
    machine(**has)
    with pytest.raises(FeatureMissing) as refused:
        choose(*asked)  # type: ignore[arg-type]
    assert missing in refused.value.feature
    assert refused.value.remedy
    assert refused.value.exit_code == 2


def test_the_first_missing_feature_is_the_one_to_name() -> None:
    features.require([Feature("veth", True, "a")])
    with pytest.raises(FeatureMissing, match=r"missing: tun\. Load tun\."):
        features.require(
            [
                Feature("veth", True, "a"),
                Feature("tun", False, "Load tun."),
                Feature("x", False, "b"),
            ]
        )


def test_no_root_is_found_before_anything_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = {feature.name: feature for feature in features.probe()}
    assert list(found) == ["root", "tun"]
    assert not found["root"].present
    assert "uml" in found["root"].remedy


# -- the guest's command line ----------------------------------------------------------------------


def job(folder: Path, script: str = "exit 0", clock: Clock = "real", **changes: float) -> Job:
    argv = ("/bin/sh", "-c", script)
    return Job(argv=argv, folder=folder, clock=clock, start_unix_ns=NOW_NS, **changes)  # type: ignore[arg-type]


def test_the_command_line_of_a_guest() -> None:
    command = boot_command(Path("/k/linux"), job(Path("/r")), Path("/r/guest/init"), Path("/s"))
    assert command[:4] == ["setpriv", "--pdeathsig", "KILL", "/k/linux"]
    assert {"mem=1024M", "rootfstype=hostfs", "rootflags=/", "ro", "panic=-1"} <= set(command)
    assert {"init=/r/guest/init", "uml_dir=/s", "QNTN_DIR=/r"} <= set(command)
    assert {"con0=null,fd:1", "QNTN_INTERACTIVE=0"} <= set(command)
    assert not any(character.isspace() for word in command for character in word)


def test_a_virtual_clock_starts_where_the_job_says() -> None:
    at, line = Path("/r"), ("time-travel=inf-cpu", f"time-travel-start={NOW_NS}")
    command = boot_command(at, job(at, clock="virtual"), at, at)
    assert tuple(word for word in command if word.startswith("time-travel")) == line
    assert not any("time-travel" in word for word in boot_command(at, job(at), at, at))


def test_a_virtual_clock_starts_now_where_the_job_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 42)
    unset = Job(argv=("true",), folder=Path("/r"), clock="virtual")
    assert "time-travel-start=42" in boot_command(Path("/k"), unset, Path("/i"), Path("/s"))


def test_a_prompt_has_the_terminal() -> None:
    at = Path("/r")
    command = boot_command(at, job(at), at, at, interactive=True)
    assert {"con0=fd:0,fd:1", "QNTN_INTERACTIVE=1"} <= set(command)


@pytest.mark.parametrize(
    "folder",
    ["relative", "/run 1", "/run,1", '/run"1', "/run'1", "/run\\1", "/run\n1", "/run\t1"],
)
def test_a_folder_that_would_break_the_command_line(
    folder: str, machine: Callable[..., None]
) -> None:
    machine(guest_kernel=True)
    with pytest.raises(InputError, match="choose another with --out"):
        UmlSubstrate().run(job(Path(folder)), print)


# -- a guest's life, with a shell script for a kernel ----------------------------------------------

BOOT = """\
#!/bin/sh
# As guest-init.sh: run the job with its output on files, leave its status.
for word; do case $word in QNTN_DIR=*) dir=${word#QNTN_DIR=} ;; esac; done
cd "$dir/guest" || exit
sh job.sh > stdout 2> stderr
echo $? > exit
"""
PANIC = "#!/bin/sh\necho 'Booting'\necho 'Kernel panic - not syncing: no init'\nexit 134\n"
FADE = "#!/bin/sh\necho 'reboot: System halted'\n"
HANG = "#!/bin/sh\nexec sleep 60\n"


@pytest.fixture
def boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], UmlSubstrate]:
    """A substrate whose kernel is a script."""

    def substrate(script: str) -> UmlSubstrate:
        path = tmp_path / "linux"
        path.write_text(script)
        path.chmod(0o755)
        monkeypatch.setattr(uml, "find_kernel", lambda: path)
        monkeypatch.setattr(uml, "POLL_S", 0.005)
        return UmlSubstrate()

    return substrate


Boots = Callable[[str], UmlSubstrate]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the processes that are started, as they are."""
    ids: list[int] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            ids.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return ids


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_jobs_lines_and_status_reach_the_person_outside(boots: Boots, tmp_path: Path) -> None:
    heard: list[str] = []
    script = "echo one; echo 'two  words'; echo complaint >&2; exit 3"
    assert boots(BOOT).run(job(tmp_path / "run", script), heard.append) == 3
    assert heard == ["one", "two  words"]
    assert (tmp_path / "run/guest/stderr").read_text() == "complaint\n"


def test_a_line_is_heard_once_it_is_whole(boots: Boots, tmp_path: Path) -> None:
    """Also where the file ended amid a character, and where a byte is no character at all."""
    heard: list[str] = []
    script = "printf 'caf\\303'; sleep 0.1; printf '\\251 au'; sleep 0.1; printf ' lait\\n\\377\\n'"
    boots(BOOT).run(job(tmp_path / "run", script), heard.append)
    assert heard == ["café au lait", "\ufffd"]


def test_a_job_gets_its_arguments_its_folder_and_its_clock(boots: Boots, tmp_path: Path) -> None:
    heard: list[str] = []
    argv = ("/bin/sh", "-c", 'echo "$0|$1|$QNTN_CLOCK|$QNTN_SUBSTRATE|$PWD"', "it's", "a b")
    boots(BOOT).run(Job(argv=argv, folder=tmp_path / "run", clock="virtual"), heard.append)
    assert heard == [f"it's|a b|virtual|uml|{Path.cwd()}"]


def test_what_an_earlier_guest_left_is_not_taken_for_this_ones(
    boots: Boots, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert boots(BOOT).run(job(run, "exit 0"), print) == 0
    with pytest.raises(GuestFailed, match="ended before its job did"):
        boots(FADE).run(job(run), print)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (PANIC, "Kernel panic - not syncing: no init"),
        (FADE, "reboot: System halted"),
        ("#!/bin/sh\n", "no word on the console"),
    ],
)
def test_a_panic_is_a_failure_outside_with_the_console(
    boots: Boots, tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, said: str
) -> None:
    with pytest.raises(GuestFailed, match=f"ended before its job did: {said}") as failed:
        boots(script).run(job(tmp_path / "run"), print)
    assert failed.value.console == tmp_path / "run/guest/console"
    assert failed.value.console.exists()
    assert capfd.readouterr() == ("", "")


def test_a_silent_guest_is_ended(boots: Boots, started: list[int], tmp_path: Path) -> None:
    with pytest.raises(GuestFailed, match="silent for 0 s: it hangs"):
        boots(HANG).run(job(tmp_path / "run", silence_limit_s=0.3), print)
    assert [is_running(pid) for pid in started] == [False]


def test_a_guest_that_talks_for_ever_is_ended(
    boots: Boots, started: list[int], tmp_path: Path
) -> None:
    talk = "while :; do echo talk; sleep 0.01; done"
    heard: list[str] = []
    with pytest.raises(GuestFailed, match="outlived its limit of 0 s"):
        boots(BOOT).run(job(tmp_path / "run", talk, time_limit_s=0.3), heard.append)
    assert set(heard) <= {"talk"}
    assert [is_running(pid) for pid in started] == [False]


def test_a_guest_ends_with_whoever_listens(
    boots: Boots, started: list[int], tmp_path: Path
) -> None:
    def hang_up(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        boots(BOOT).run(job(tmp_path / "run", "echo hello; sleep 60"), hang_up)
    assert [is_running(pid) for pid in started] == [False]


# -- the host --------------------------------------------------------------------------------------


def test_a_job_on_the_host(tmp_path: Path) -> None:
    heard: list[str] = []
    script = "echo one; echo complaint >&2; exit 3"
    assert HostSubstrate().run(job(tmp_path, script), heard.append) == 3
    assert heard == ["one"]
    assert (tmp_path / "guest/stderr").read_text() == "complaint\n"


def test_a_job_on_the_host_that_outlives_its_limit(tmp_path: Path) -> None:
    with pytest.raises(GuestFailed, match="outlived its limit"):
        HostSubstrate().run(job(tmp_path, "exec sleep 60", time_limit_s=0.1), print)
