"""Two real gateway processes in two network namespaces, for tests.

Run as a script, this file is a gateway whose keys come from a seed instead of a KMS, with super-packets if its second
argument is `fast`; `make_kms` makes a real KMS.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateways.config import load_config
from gateways.gateway import Gateway, harden
from kms.ledger import Ledger
from kms.pki import init_site

SEED = "the seed of every key in this test"
PSK = "5ec2e7" * 8
PATIENCE_S = 30.0
SITES = ("u", "n")
OUTER = {"u": "192.0.2.1", "n": "192.0.2.2"}
INNER = {"u": "10.81.1.1", "n": "10.81.2.1"}
PREFIX = {"u": "10.81.1.0/24", "n": "10.81.2.0/24"}
INNER6 = {"u": "fd00:81:1::1", "n": "fd00:81:2::1"}
PREFIX6 = {"u": "fd00:81:1::/64", "n": "fd00:81:2::/64"}


class SeededKeys:
    """The same key for the same name at both ends."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def fetch(self) -> tuple[str, bytes]:
        key_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{os.getpid()} {next(self._numbers)}"))
        return key_id, self.fetch_by_id(key_id)

    def fetch_by_id(self, key_id: str) -> bytes:
        return hashlib.sha256(f"{SEED} {key_id}".encode()).digest()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


@dataclass
class Pair:
    """Two namespaces on one veth pair, a gateway in each."""

    directory: Path
    program: tuple[str, ...] = (__file__,)
    arguments: tuple[str, ...] = ()
    tag: str = field(default_factory=lambda: f"qgw{uuid.uuid4().hex[:6]}")
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def namespace(self, site: str) -> str:
        return f"{self.tag}{site}"

    def inside(self, site: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace(site), *command]

    def build(self) -> None:
        for site in SITES:
            run("ip", "netns", "add", self.namespace(site))
        ends = [
            ("veth", "netns", self.namespace("u")),
            ("peer", "name", "veth", "netns", self.namespace("n")),
        ]
        run("ip", "link", "add", "name", *ends[0], "type", "veth", *ends[1])
        for site in SITES:
            ip = ["ip", "-n", self.namespace(site)]
            run(*ip, "link", "set", "lo", "up")
            run(*ip, "address", "add", f"{INNER[site]}/32", "dev", "lo")
            run(*ip, "address", "add", f"{OUTER[site]}/24", "dev", "veth")
            run(*ip, "link", "set", "veth", "up")
            # Without a tunnel the other side's users would be reached in the clear.
            other = "n" if site == "u" else "u"
            run(*ip, "route", "add", PREFIX[other], "via", OUTER[other], "dev", "veth")

    def destroy(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for site in SITES:
            subprocess.run(["ip", "netns", "del", self.namespace(site)], check=False)

    def configure(self, site: str, **changes: Any) -> None:
        other = "n" if site == "u" else "u"
        config = {
            "name": f"EG-{site.upper()}",
            "role": "initiator" if site == "u" else "responder",
            "outer_local": OUTER[site],
            "outer_peer": OUTER[other],
            "tun_address": f"10.81.9.{SITES.index(site) + 1}/30",
            "local": [PREFIX[site]],
            "remote": [PREFIX[other]],
            "psk": PSK,
            "own_sae": f"SAE-{site}",
            "peer_sae": f"SAE-{other}",
            "kms": dict.fromkeys(("base_url", "ca", "cert", "key", "kme_id"), "unused"),
            "rekey_after_s": 0.5,
            "grace_s": 0.2,
            "retransmit_s": 0.3,
            "esp_sa": str(self.directory / "esp_sa"),
            "status": str(self.directory / f"{site}.json"),
        }
        (self.directory / f"config-{site}.json").write_text(json.dumps(config | changes))

    def start(self, site: str) -> None:
        with (
            (self.directory / f"{site}.out").open("wb") as out,
            (self.directory / f"{site}.err").open("wb") as err,
        ):
            config = str(self.directory / f"config-{site}.json")
            self.processes[site] = subprocess.Popen(
                self.inside(site, sys.executable, *self.program, config, *self.arguments),
                stdout=out,
                stderr=err,
            )

    def says(self, site: str) -> list[str]:
        return (self.directory / f"{site}.out").read_text().split()

    def log(self, site: str) -> str:
        return (self.directory / f"{site}.err").read_text()

    def stop(self, site: str) -> dict[str, Any]:
        process = self.processes.pop(site)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, self.log(site)
        status: dict[str, Any] = json.loads((self.directory / f"{site}.json").read_text())
        return status

    def up(self) -> None:
        for site in reversed(SITES):
            self.start(site)
            self.wait_for(site, "LISTENING")
        for site in SITES:
            self.wait_for(site, "READY")
            assert self.says(site) == ["LISTENING", "READY"]

    def wait_for(self, site: str, word: str) -> None:
        until(lambda: word in self.says(site), f"{word} of {site}")

    def start_kms(self, site: str) -> None:
        config = str(self.directory / f"kms-{site}" / "kms.json")
        process = self.processes[f"kms-{site}"] = subprocess.Popen(
            self.inside(site, sys.executable, "-m", "kms.server", config),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"READY\n"

    def ping(self, count: int = 5, interval_s: float = 0.05, *options: str) -> tuple[int, int]:
        """Sent and received, from the users of one side to those of the other."""
        command = ["ping", "-q", "-c", str(count), "-i", str(interval_s), "-W", "1", *options]
        done = subprocess.run(
            self.inside("u", *command, "-I", INNER["u"], INNER["n"]),
            check=False,
            capture_output=True,
            text=True,
        )
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
        assert counts, done.stdout + done.stderr
        return int(counts[1]), int(counts[2])

    def capture(self, path: Path) -> None:
        process = subprocess.Popen(
            self.inside("u", "dumpcap", "-q", "-P", "-i", "veth", "-w", str(path)),
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        # It names its file once it has opened the interface.
        assert any(line.startswith(b"File: ") for line in process.stderr), "dumpcap ended"
        self.processes["dumpcap"] = process

    def end_capture(self, path: Path) -> None:
        """Ended once nothing more came for a second.

        dumpcap has packets from the kernel in blocks, four a second, and drops the last if it is ended at once.
        """
        size, since = -1, time.monotonic()
        while time.monotonic() < since + 1.0:
            if path.stat().st_size != size:
                size, since = path.stat().st_size, time.monotonic()
            time.sleep(0.1)
        process = self.processes.pop("dumpcap")
        process.terminate()
        process.wait(PATIENCE_S)


def give_ipv6(pair: Pair, **changes: Any) -> None:
    """Prefixes of both IP versions behind each gateway; without a tunnel, the way there would be in clear."""
    for site, other in (SITES, SITES[::-1]):
        ip = ["ip", "-n", pair.namespace(site), "-6"]
        run(*ip, "address", "add", f"{INNER6[site]}/128", "dev", "lo")
        run(*ip, "address", "add", f"fd00:81::{SITES.index(site) + 1}/64", "dev", "veth", "nodad")
        gate = f"fd00:81::{SITES.index(other) + 1}"
        run(*ip, "route", "add", PREFIX6[other], "via", gate, "dev", "veth")
        pair.configure(
            site,
            local=[PREFIX[site], PREFIX6[site]],
            remote=[PREFIX[other], PREFIX6[other]],
            tun_address6=f"fd00:81:9::{SITES.index(site) + 1}/126",
            **changes,
        )


def ping6(pair: Pair, count: int, *options: str) -> int:
    command = ["ping", "-6", "-q", "-c", str(count), "-i", "0.02", "-W", "1", *options]
    done = subprocess.run(
        pair.inside("u", *command, "-I", INNER6["u"], INNER6["n"]),
        check=False,
        capture_output=True,
        text=True,
    )
    counts = re.search(r"(\d+) received", done.stdout)
    assert counts, done.stdout + done.stderr
    return int(counts[1])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")
    for program in ("ip", "ping", "dumpcap", "tshark"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pair = Pair(tmp_path)
    try:
        pair.build()
        for site in SITES:
            pair.configure(site)
        yield pair
    finally:
        pair.destroy()


def dissected(capture: Path, profile: Path, *fields: str) -> list[list[str]]:
    command = ["tshark", "-r", str(capture), "-T", "fields"]
    for option in ("esp.enable_encryption_decode", "esp.enable_authentication_check"):
        command += ["-o", f"{option}:TRUE"]
    for name in fields:
        command += ["-e", name]
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(profile)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def make_kms(folder: Path, site: str, other: str, key_octets: int = 40_000) -> dict[str, str]:
    """A KMS site with so much key; the `kms` section of the gateway beside it."""
    now = datetime.now(UTC)
    files = init_site(folder, f"KME-{site}", ["127.0.0.1"], [f"SAE-{site}"], now)
    with Ledger.create(folder / "ledger", "U" if site == "u" else "N") as ledger:
        ledger.add_block(1, random.Random(SEED).randbytes(key_octets), "test", now)
    config = {
        "kme_id": f"KME-{site}",
        "peer_kme_id": f"KME-{other}",
        "site": site.upper(),
        "listen_host": "127.0.0.1",
        "listen_port": 8443,
        "ca_path": "ca.pem",
        "certificate_path": "server.pem",
        "key_path": "server.key",
        "ledger_path": "ledger",
        "sae_pairs": [{"local": f"SAE-{site}", "remote": f"SAE-{other}"}],
    }
    (folder / "kms.json").write_text(json.dumps(config))
    return {
        "base_url": "https://127.0.0.1:8443",
        "ca": str(files.ca.certificate),
        "cert": str(files.saes[f"SAE-{site}"].certificate),
        "key": str(files.saes[f"SAE-{site}"].key),
        "kme_id": f"KME-{site}",
    }


def main(path: str, *fast: str) -> int:
    from topo.errors import QntnError

    try:
        harden()
        Gateway(load_config(Path(path)), SeededKeys(), offloads=bool(fast)).run()
    except QntnError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
