"""Debian's strongSwan (charon-systemd, kernel-libipsec) as the peer of one of our gateways, in two namespaces.

Run as a script, this file is our gateway, its keys out of a seed instead of a KMS.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = "the seed of every key in these tests"
PSK = "5ec2e7" * 8
PPK_ID = "0b5c4a6e-3f1d-4b8e-9c55-d6a1f0e2b734"
PATIENCE_S = 20.0
OURS, THEIRS = "192.0.2.1", "192.0.2.2"
OUR_PREFIX, THEIR_PREFIX = "10.91.1.0/24", "10.91.2.0/24"
OUR_USER, THEIR_USER = "10.91.1.1", "10.91.2.1"
CHARON = shutil.which("charon-systemd", path="/usr/sbin:/usr/bin")
SWANCTL = shutil.which("swanctl", path="/usr/sbin:/usr/bin")


def key_of(key_id: str) -> bytes:
    """The key of a name, at both ends."""
    return hashlib.sha256(f"{SEED} {key_id}".encode()).digest()


class SeededKeys:
    """A KMS that always has the same key next."""

    def fetch(self) -> tuple[str, bytes]:
        return PPK_ID, key_of(PPK_ID)

    def fetch_by_id(self, key_id: str) -> bytes:
        return key_of(key_id)


STRONGSWAN_CONF = """
charon-systemd {{
  load = random nonce aesni aes sha1 sha2 hmac kdf gcm pem pkcs1 x509 pubkey openssl curve25519 \
socket-default kernel-libipsec kernel-netlink vici
  install_virtual_ip = no
  retransmit_timeout = 1.0
  piddir = {folder}
  filelog {{ f {{ path = {folder}/log
    default = 1
    ike = 2
    chd = 2
    flush_line = yes }} }}
  journal {{ default = -1 }}
  plugins {{ kernel-libipsec {{ load = yes }}
            vici {{ socket = unix://{folder}/vici }} }}
}}
swanctl {{ load = random openssl pem pkcs1 x509 pubkey }}
"""

SWANCTL_CONF = """
connections {{
  qntn {{
    version = 2
    local_addrs = {theirs}
    remote_addrs = {ours}
    local_port = 4500
    remote_port = 4500
    encap = yes
    mobike = no
    fragmentation = no
    proposals = {ike}
    {extra}
    local {{
      {local_auth}
      id = EG-N
    }}
    remote {{
      {remote_auth}
      id = EG-U
    }}
    children {{
      net {{
        local_ts = {their_prefix}
        remote_ts = {our_prefix}
        esp_proposals = {esp}
        replay_window = 128
        rekey_time = 0
      }}
    }}
  }}
}}
secrets {{
  ike-qntn {{
    id-1 = EG-U
    id-2 = EG-N
    secret = 0x{psk}
  }}
  ppk-qntn {{
    id-1 = {ppk_id}
    secret = 0x{ppk}
  }}
}}
"""


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s: {what()}"
        time.sleep(0.02)


@dataclass
class Peers:
    """Our gateway in one namespace, strongSwan in another, a veth pair between them."""

    directory: Path
    tag: str = field(default_factory=lambda: f"qss{uuid.uuid4().hex[:6]}")
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def inside(self, site: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.tag}{site}", *command]

    def build(self) -> None:
        for site in "us":
            run("ip", "netns", "add", f"{self.tag}{site}")
        ends = ("veth", "netns", f"{self.tag}u"), ("peer", "name", "veth", "netns", f"{self.tag}s")
        run("ip", "link", "add", "name", *ends[0], "type", "veth", *ends[1])
        sites = (("u", OURS, OUR_USER), ("s", THEIRS, THEIR_USER))
        for site, outer, user in sites:
            ip = ["ip", "-n", f"{self.tag}{site}"]
            run(*ip, "link", "set", "lo", "up")
            run(*ip, "address", "add", f"{user}/32", "dev", "lo")
            run(*ip, "address", "add", f"{outer}/24", "dev", "veth")
            run(*ip, "link", "set", "veth", "up")

    def destroy(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for site in "us":
            subprocess.run(["ip", "netns", "del", f"{self.tag}{site}"], check=False)

    # strongSwan

    def start_strongswan(
        self,
        *,
        ike: str = "aes128gcm16-prfsha256-x25519",
        esp: str = "aes128gcm16",
        ppk: bool = True,
        wrong_ppk: bool = False,
        certificates: bool = False,
        extra: str = "",
    ) -> None:
        folder = self.directory / "swan"
        folder.mkdir(exist_ok=True)
        (folder / "strongswan.conf").write_text(STRONGSWAN_CONF.format(folder=folder))
        key = bytes(32) if wrong_ppk else key_of(PPK_ID)
        ppk_lines = f"ppk_id = {PPK_ID}\n    ppk_required = yes" if ppk else ""
        (folder / "swanctl.conf").write_text(
            SWANCTL_CONF.format(
                ours=OURS,
                theirs=THEIRS,
                our_prefix=OUR_PREFIX,
                their_prefix=THEIR_PREFIX,
                ike=ike,
                esp=esp,
                extra=f"{ppk_lines}\n    {extra}",
                local_auth="auth = pubkey\n      certs = peer.pem"
                if certificates
                else "auth = psk",
                remote_auth="auth = pubkey" if certificates else "auth = psk",
                psk=PSK,
                ppk_id=PPK_ID,
                ppk=key.hex(),
            )
        )
        environment = os.environ | {"STRONGSWAN_CONF": str(folder / "strongswan.conf")}
        assert CHARON is not None
        with (folder / "out").open("wb") as out:
            self.processes["charon"] = subprocess.Popen(
                self.inside("s", CHARON), env=environment, stdout=out, stderr=out
            )
        until((folder / "vici").exists, lambda: "charon: " + (folder / "out").read_text())
        self.swanctl("--load-all")

    def swanctl(self, *arguments: str, fails: bool = False) -> str:
        folder = self.directory / "swan"
        environment = os.environ | {
            "STRONGSWAN_CONF": str(folder / "strongswan.conf"),
            "SWANCTL_DIR": str(folder),
        }
        assert SWANCTL is not None
        done = subprocess.run(
            self.inside("s", SWANCTL, *arguments, "-u", f"unix://{folder}/vici"),
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr + self.swan_log()
        return done.stdout

    def swan_log(self) -> str:
        path = self.directory / "swan" / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # our gateway

    def start_gateway(self, role: str, **changes: Any) -> None:
        config = {
            "name": "EG-U",
            "role": role,
            "outer_local": OURS,
            "outer_peer": THEIRS,
            "tun_address": "10.91.9.1/30",
            "local": [OUR_PREFIX],
            "remote": [THEIR_PREFIX],
            "psk": PSK,
            "own_sae": "EG-U",
            "peer_sae": "EG-N",
            "kms": dict.fromkeys(("base_url", "ca", "cert", "key", "kme_id"), "unused"),
            "rekey_after_s": 600.0,
            "grace_s": 0.5,
            "retransmit_s": 0.5,
            "status": str(self.directory / "status.json"),
        }
        path = self.directory / "gateway.json"
        path.write_text(json.dumps(config | changes))
        with (
            (self.directory / "gateway.out").open("wb") as out,
            (self.directory / "gateway.err").open("wb") as err,
        ):
            self.processes["gateway"] = subprocess.Popen(
                self.inside("u", sys.executable, str(Path(__file__)), str(path)),
                stdout=out,
                stderr=err,
                env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            )
        self.wait_for_us("LISTENING")

    def says(self) -> list[str]:
        return (self.directory / "gateway.out").read_text().split()

    def log(self) -> str:
        return (self.directory / "gateway.err").read_text()

    def wait_for_us(self, word: str) -> None:
        until(lambda: word in self.says(), lambda: f"{word}\n{self.log()}\n{self.swan_log()}")

    def wait_for_log(self, pattern: str, count: int = 1) -> None:
        until(
            lambda: len(re.findall(pattern, self.log())) >= count,
            lambda: f"{pattern}\n{self.log()}\n{self.swan_log()}",
        )

    def signal_us(self, number: int) -> None:
        self.processes["gateway"].send_signal(number)

    def stop_gateway(self) -> dict[str, Any]:
        process = self.processes.pop("gateway")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, self.log()
        status: dict[str, Any] = json.loads((self.directory / "status.json").read_text())
        return status

    def ping(self, site: str = "u", count: int = 5, interval_s: float = 0.02) -> int:
        """How many of `count` echoes come back, from the users of one side to those of the other."""
        source, target = (OUR_USER, THEIR_USER) if site == "u" else (THEIR_USER, OUR_USER)
        command = ["ping", "-q", "-c", str(count), "-i", str(interval_s), "-W", "3"]
        done = subprocess.run(
            self.inside(site, *command, "-I", source, target),
            check=False,
            capture_output=True,
            text=True,
        )
        received = re.search(r"(\d+) received", done.stdout)
        assert received, done.stdout + done.stderr
        return int(received[1])


def main() -> int:
    from gateways.config import load_config
    from gateways.gateway import Gateway, harden

    harden()
    config = load_config(Path(sys.argv[1]))
    Gateway(config, SeededKeys(), offloads=config.fast == "auto").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
