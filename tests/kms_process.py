"""KMS sites on free ports of the loopback, as processes of their own or in a thread, for tests."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from kms.client import Kms014Client
from kms.configuration import KmsConfiguration
from kms.ledger import Ledger
from kms.pki import sae_files
from kms.server import Clock, serve_until
from kms.site import CONFIGURATION, HERE, SitePlan, load_block, make_site

TIMEOUT_S = 60
PAIRS = (("EG-U", "EG-N"), ("EG-U", "EH-N"), ("EH-U", "EH-N"))


@dataclass
class KmsProcess:
    """One site: `folder` as `qntn kms init` makes it, its process, its port."""

    folder: Path
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def files(self, sae_id: str) -> tuple[str, str, str]:
        """Authority, certificate and key: what an SAE of this site has."""
        sae = sae_files(self.folder, sae_id)
        return str(self.folder / "ca.pem"), str(sae.certificate), str(sae.key)

    def client(self, sae_id: str) -> Kms014Client:
        return Kms014Client(
            self.url, *self.files(sae_id), kme_id=self.configuration.kme_id, timeout_s=TIMEOUT_S
        )

    def context(self, sae_id: str) -> ssl.SSLContext:
        authority, certificate, key = self.files(sae_id)
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return context

    @property
    def configuration(self) -> KmsConfiguration:
        return KmsConfiguration.load(self.folder / CONFIGURATION)

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def stop(self) -> None:
        """End it as its runner does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(TIMEOUT_S) == 0
        assert "Traceback" not in self.log


def make_sites(folder: Path, key_bytes: int = 100_000, **changes: Any) -> tuple[Path, Path]:
    """Two sites that share a block, not yet served."""
    material = Random(8).randbytes(key_bytes)
    folders = []
    for site, other in (("U", "N"), ("N", "U")):
        pairs = [pair if site == "U" else pair[::-1] for pair in PAIRS]
        plan = SitePlan("U" if site == "U" else "N", f"KME-{site}", f"KME-{other}", HERE, 0, pairs)
        path = make_site(folder / site.lower(), plan, datetime.now(UTC))
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        load_block(KmsConfiguration.load(path), 1, material, "test", now=datetime.now(UTC))
        folders.append(path.parent)
    return folders[0], folders[1]


def start(folder: Path) -> KmsProcess:
    """Serve a site and wait until it does."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kms.server", str(folder / CONFIGURATION)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "READY\n", (folder / "log").read_text()
    port = re.search(r"at https://127.0.0.1:(\d+)$", (folder / "log").read_text(), re.MULTILINE)
    assert port is not None
    return KmsProcess(folder, process, int(port[1]))


@contextmanager
def served(ledger: Ledger, configuration: KmsConfiguration, clock: Clock) -> Iterator[int]:
    """Serve an open ledger from a thread of this process; the port."""
    ports: queue.Queue[int] = queue.Queue()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    serving = serve_until(ledger, configuration, stop, ports.put, clock)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    try:
        yield ports.get(timeout=TIMEOUT_S)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
