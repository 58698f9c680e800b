"""strongSwan's user-space IPsec (kernel-libipsec) as the peer of the gateway benchmark.

`aesni` comes before `gcm` and `openssl` in the plugin order: a wrong order takes table-driven AES and makes it ten
times slower. Everything it writes lies in the benchmark's scratch folder; the routing rule 220 that a charon leaves
behind goes with its namespace.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from experiments.bench.gateway_chain import (
    GATEWAYS,
    INSIDE,
    OUTSIDE,
    PATIENCE_S,
    Chain,
    missing,
    until,
)
from topo.errors import MeasurementError

PLUGINS = "random nonce aesni aes sha1 sha2 hmac kdf gcm openssl socket-default kernel-libipsec kernel-netlink vici"
REMEDY = "apt install charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins"
_PATH = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

_STRONGSWAN = """\
charon-systemd {{
  load = {plugins}
  install_virtual_ip = no
  piddir = {folder}
  filelog {{ f {{ path = {folder}/charon.log
    default = 1 }} }}
  journal {{ default = -1 }}
  plugins {{ kernel-libipsec {{ load = yes }}
            vici {{ socket = unix://{folder}/vici }} }}
}}
swanctl {{ load = random openssl pem }}
"""
_SWANCTL = """\
connections {{
  bench {{
    version = 2
    encap = yes
    mobike = no
    proposals = aes128-sha256-ecp256
    local_addrs = {local}
    remote_addrs = {remote}
    local {{ auth = psk
      id = {local} }}
    remote {{ auth = psk
      id = {remote} }}
    children {{
      bench {{
        local_ts = {local_ts}
        remote_ts = {remote_ts}
        esp_proposals = aes128gcm16
        replay_window = 128
      }}
    }}
  }}
}}
secrets {{ ike-1 {{ id-1 = {local}
    id-2 = {remote}
    secret = "the benchmark's own" }} }}
"""


def lacking() -> str | None:
    """Why strongSwan cannot take part, and the remedy; None if it can."""
    gone = missing("charon-systemd", "swanctl")
    return f"no {' and '.join(gone)} here: {REMEDY}" if gone else None


def start(chain: Chain, folder: Path) -> dict[str, Any]:
    """Start strongSwan on both gateways of a chain and set the tunnel up; its version, plugins and algorithms."""
    for site in GATEWAYS:
        other = "b" if site == "a" else "a"
        home = folder / site
        (home / "swanctl").mkdir(parents=True)
        (home / "strongswan.conf").write_text(_STRONGSWAN.format(plugins=PLUGINS, folder=home))
        (home / "swanctl" / "swanctl.conf").write_text(
            _SWANCTL.format(
                local=OUTSIDE[site],
                remote=OUTSIDE[other],
                local_ts=INSIDE[site],
                remote_ts=INSIDE[other],
            )
        )
        argv = ["charon-systemd"]
        chain.gateways.append(chain.start(site, argv, home / "charon.out", _environment(home)))
        until((home / "vici").exists, f"charon of gateway {site} to listen")
        swanctl(chain, site, folder, "--load-all")
    swanctl(chain, "a", folder, "--initiate", "--child", "bench")
    algorithms = swanctl(chain, "a", folder, "--list-algs")
    if "installed" not in swanctl(chain, "a", folder, "--list-sas").lower():
        raise MeasurementError(f"strongSwan set up no SA: {folder}")
    return {
        "version": _version(swanctl(chain, "a", folder, "--version")),
        "plugins": PLUGINS.split(),
        "esp_aead": [line.strip() for line in algorithms.splitlines() if "AES_GCM" in line],
    }


def swanctl(chain: Chain, site: str, folder: Path, *arguments: str) -> str:
    """What `swanctl` says to a gateway's charon."""
    home = folder / site
    argv = ["swanctl", *arguments, "--uri", f"unix://{home}/vici"]
    return chain.run(site, argv, PATIENCE_S, _environment(home))


def _environment(home: Path) -> dict[str, str]:
    return {"STRONGSWAN_CONF": f"{home}/strongswan.conf", "SWANCTL_DIR": f"{home}/swanctl"} | _PATH


def _version(text: str) -> str:
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found[0] if found else text.strip()
