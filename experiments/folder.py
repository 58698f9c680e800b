"""The folder of one run: what is where in it. One place for every path."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tomli_w

from topo.errors import InputError
from topo.scenario import Scenario
from topo.substrates.job import check_guest_path


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; `root` is absolute."""

    root: Path

    @classmethod
    def create(cls, name: str, out: Path | None, now: datetime | None = None) -> RunFolder:
        """Make `runs/<UTC time>-<name>/`, or `out`.

        Raises `InputError` unless it is new or empty and can be made.
        """
        stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        root = (out or Path("runs") / f"{stamp}-{name}").absolute()
        check_guest_path(root)
        folder = cls(root)
        try:
            if root.exists() and any(root.iterdir()):
                raise InputError(f"{root} is not empty; choose another folder with --out")
            for path in (root, folder.captures, folder.ledgers, folder.logs, folder.private):
                path.mkdir(parents=True, exist_ok=True)
            folder.private.chmod(0o700)
        except OSError as error:
            raise InputError(
                f"{root} cannot be the run folder: {error.strerror}; choose another with --out"
            ) from error
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
