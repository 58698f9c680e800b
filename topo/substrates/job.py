"""What a substrate is asked to do: run one program in a kernel that can carry the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from topo.errors import InputError

Clock = Literal["real", "virtual"]
SubstrateName = Literal["host", "uml"]
OnLine = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One program to run inside a substrate."""

    argv: tuple[str, ...]
    """The program and its arguments, as the guest sees them (it sees this machine's own file system)."""
    folder: Path
    """The run folder: the one place that the program may write. Absolute; no spaces or commas in it."""
    clock: Clock = "real"
    """`virtual`: time passes only while every process sleeps, then jumps to the next timer."""
    start_unix_ns: int | None = None
    """Where a virtual clock starts, Unix time in ns; None: at this machine's present time."""
    time_limit_s: float = 900.0
    """Wall-clock bound on the whole job, seconds."""
    silence_limit_s: float = 240.0
    """Wall-clock bound between two lines of output, seconds: longer is a hang."""
    memory_mb: int = 1024
    """Memory of the guest in MiB (`uml` only; taken as it is used)."""


def check_guest_path(folder: Path) -> None:
    """Raise `InputError` for a run folder that a guest's kernel command line cannot carry."""
    if not folder.is_absolute() or any(c.isspace() or c in ",\"'\\" for c in str(folder)):
        raise InputError(
            f"{folder}: the run folder's path must be absolute, without spaces, commas or quotes "
            "(it is passed on a kernel command line); choose another with --out"
        )


class Substrate(Protocol):
    """A kernel that runs the network."""

    name: SubstrateName

    def check(self, clock: Clock) -> None:
        """Raise `FeatureMissing` unless jobs with this clock can run here."""

    def run(self, job: Job, on_line: OnLine) -> int:
        """Run the job, hand each line of its standard output to `on_line`, return its exit status.

        Raises `GuestFailed` where the kernel panics, the job outlives a limit, or no status comes back.
        """
