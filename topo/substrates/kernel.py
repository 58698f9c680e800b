"""The guest kernel of the `uml` substrate: built once from Debian's kernel source, cached per user.

`python -m topo.substrates.kernel` builds it with a progress display (about four minutes on two cores) and
prints its path; the second time it only prints the path. The cache is `$XDG_CACHE_HOME/qntn/uml/KEY/linux`,
where KEY is a digest of everything that decides the binary: source version, configuration, patches.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from topo.errors import FeatureMissing, SubstrateError

HERE = Path(__file__).parent
CONFIG = HERE / "uml.config"
PATCHES = (HERE / "uml-xstate.patch", HERE / "uml-clock.patch")
SOURCES = Path("/usr/src")
SOURCE_PACKAGE = "linux-source-6.1"
COMPILE_STEPS = 980
"""Objects that the build compiles with this configuration, for the progress display."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""


def cache_dir() -> Path:
    """The folder of this user that holds built kernels (`$XDG_CACHE_HOME/qntn/uml`)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "qntn" / "uml"


def source_tarball() -> Path:
    """Debian's kernel source; `FeatureMissing` where its package is not installed."""
    path = SOURCES / f"{SOURCE_PACKAGE}.tar.xz"
    if not path.exists():
        raise FeatureMissing(
            f"kernel source {path}",
            f"Install it with `apt-get install {SOURCE_PACKAGE} flex bison bc`, then run `make kernel`.",
        )
    return path


def _key() -> str:
    digest = hashlib.sha256(SOURCE_PACKAGE.encode())
    for part in (CONFIG, *PATCHES):
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()[:16]


def kernel_path() -> Path:
    """Where the kernel of this configuration is, or would be once built."""
    return cache_dir() / _key() / "linux"


def find_kernel() -> Path:
    """The built kernel; `FeatureMissing` where it has not been built."""
    path = kernel_path()
    if not path.exists():
        raise FeatureMissing("the User Mode Linux kernel", "Build it once with `make kernel`.")
    return path


def build(progress: Progress) -> Path:
    """Build the kernel unless it is there, and return its path.

    Two builds at once share the work: the second waits for the first. A build that fails leaves its log
    beside the cache and raises `SubstrateError`.
    """
    target = kernel_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        tarball = source_tarball()
        log = target.parent / "build.log"
        log.write_text("")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as scratch:
            tree = _unpack(tarball, Path(scratch), log, progress)
            _configure(tree, log)
            _compile(tree, log, progress)
            built = tree / "linux"
            _run(["strip", str(built)], tree, log)
            partial = target.with_suffix(".partial")
            shutil.copy2(built, partial)
            partial.rename(target)
    return target


def _unpack(tarball: Path, scratch: Path, log: Path, progress: Progress) -> Path:
    progress(0, COMPILE_STEPS, f"unpacking {tarball.name}")
    _run(["tar", "-xf", str(tarball)], scratch, log)
    (tree,) = scratch.iterdir()
    return tree


def _configure(tree: Path, log: Path) -> None:
    for patch in PATCHES:
        _run(["patch", "-p1", "-i", str(patch)], tree, log)
    shutil.copy(CONFIG, tree / ".config")
    _run(["make", "ARCH=um", "olddefconfig"], tree, log)
    configured = (tree / ".config").read_text().splitlines()
    for option in re.findall(r"^(CONFIG_\w+=\S+)$", CONFIG.read_text(), re.MULTILINE):
        if option not in configured:
            raise SubstrateError(f"the kernel source does not take {option}; see {log}")


def _compile(tree: Path, log: Path, progress: Progress) -> None:
    jobs = len(os.sched_getaffinity(0))
    command = ["make", "ARCH=um", f"-j{jobs}", "linux"]
    done = 0
    with (
        log.open("a") as out,
        subprocess.Popen(
            command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            if line.startswith("  CC "):
                done += 1
                progress(min(done, COMPILE_STEPS), COMPILE_STEPS, "compiling the guest kernel")
    if process.returncode != 0:
        raise SubstrateError(f"the kernel build failed; see {log}")
    progress(COMPILE_STEPS, COMPILE_STEPS, "guest kernel built")


def _run(command: list[str], tree: Path, log: Path) -> None:
    with log.open("a") as out:
        try:
            status = subprocess.run(command, cwd=tree, stdout=out, stderr=out, check=False)
        except FileNotFoundError as error:
            raise FeatureMissing(
                command[0], "The kernel build needs it; `make setup` installs all it needs."
            ) from error
    if status.returncode != 0:
        raise SubstrateError(f"`{' '.join(command)}` failed; see {log}")


def main() -> int:
    """Build with a progress display on standard error; print the kernel's path."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("guest kernel", total=COMPILE_STEPS)
        shown = -1

        def show(done: int, total: int, what: str) -> None:
            nonlocal shown
            bar.update(task, completed=done, total=total, description=what)
            percent = 10 * (10 * done // total)
            if not console.is_terminal and percent > shown:
                shown = percent
                print(f"{what}: {percent} %", file=sys.stderr, flush=True)

        try:
            path = build(show)
        except (SubstrateError, FeatureMissing) as error:
            print(f"qntn: {error}", file=sys.stderr)
            return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
