"""The folder that a command writes into, new or empty; and of a run of a scenario, what is where in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from topo.errors import InputError
from topo.substrates.job import check_guest_path

if TYPE_CHECKING:
    from topo.scenario import Scenario


def new_folder(name: str, out: Path | None) -> Path:
    """Make `out`, or runs/<UTC time>-NAME/. Raises `InputError` unless it is new or empty and can be made."""
    folder = out or _default(name)
    _make(folder)
    return folder


def _default(name: str, now: datetime | None = None) -> Path:
    return Path("runs") / f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"


def _make(folder: Path, *inside: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose another folder with --out")
        for path in (folder, *inside):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be the run folder: {error.strerror}; choose another with --out"
        ) from error


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, one place for all of them; `root` is absolute."""

    root: Path

    @classmethod
    def create(cls, name: str, out: Path | None, now: datetime | None = None) -> RunFolder:
        """Make it as `new_folder` does, with its subfolders; `InputError` also for a path that no guest can be told."""
        folder = cls((out or _default(name, now)).absolute())
        check_guest_path(folder.root)
        _make(folder.root, folder.captures, folder.ledgers, folder.logs, folder.private)
        folder.private.chmod(0o700)
        return folder

    @property
    def scenario(self) -> Path:
        return self.root / "scenario.toml"

    def write_scenario(self, scenario: Scenario) -> None:
        """Keep the scenario as it is run, complete with what the file left to defaults."""
        table = scenario.model_dump(exclude_none=True)
        self.scenario.write_text(tomli_w.dumps(table), encoding="utf-8")

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def samples(self) -> Path:
        return self.root / "samples.csv"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def esp_sa(self) -> Path:
        """Wireshark's key file: the session keys of this run, for looking inside its captures."""
        return self.root / "esp_sa"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def captures(self) -> Path:
        return self.root / "captures"

    @property
    def ledgers(self) -> Path:
        return self.root / "ledgers"

    @property
    def logs(self) -> Path:
        """Standard error, configuration and counters of every process, a folder an arm."""
        return self.root / "logs"

    @property
    def private(self) -> Path:
        """Certificates and keys of the two key management sites."""
        return self.root / "pki"

    def capture(self, arm: str, point: str) -> Path:
        return self.captures / f"{arm}-{point}.pcapng"

    def arm(self, arm: str) -> Path:
        return self.logs / arm

    def ledger(self, kms: str) -> Path:
        return self.ledgers / f"{kms.lower()}.sqlite"
