"""Making KMS sites: a folder with all that `python -m kms.server FOLDER/kms.json` needs.

::

    FOLDER/ca.pem, ca.key             the site's authority            (kms.pki)
           server.pem, server.key     its KME's certificate
           sae-<ID>.pem, sae-<ID>.key one for each SAE; these go to the SAE, with ca.pem
           crl.pem                    revoked certificates
           peer.pem, peer.key         its KME's certificate as a client of the other site's KME
           peer-ca.pem                the other site's authority, once it is trusted
           ledger.sqlite              the keys                        (kms.ledger)
           ledger.secret              what they are encrypted under at rest
           kms.json                   the configuration               (kms.configuration)
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kms.configuration import KmsConfiguration, most_additional_slaves
from kms.ledger import Ledger
from kms.ledger_store import Site
from kms.pki import init_site
from kms.revocation import load_authorities, replace_file
from kms.vault import create_secret

CONFIGURATION = "kms.json"
PEER_CA = "peer-ca.pem"
HERE = ("127.0.0.1", "localhost")
"""How the KMEs of a pair on one machine are reached."""


@dataclass(frozen=True)
class SitePlan:
    """What one site is to be. `pairs` are (SAE here, SAE there); `hosts` how the KME is reached."""

    site: Site
    kme_id: str
    peer_kme_id: str
    hosts: Sequence[str]
    port: int
    pairs: Sequence[tuple[str, str]]
    metrics_port: int | None = None
    peer_url: str | None = None
    """Where the other KME is, to reconcile the ledgers with; it must be trusted first (`trust`)."""

    @property
    def most_partners(self) -> int:
        """How many SAEs one SAE shares keys with, at most."""
        return max(
            (
                *Counter(a for a, _ in self.pairs).values(),
                *Counter(b for _, b in self.pairs).values(),
            ),
            default=0,
        )


def make_site(folder: Path, plan: SitePlan, now: datetime) -> Path:
    """Make a site with an empty ledger in `folder` and return its configuration file.

    Listens on the first of `hosts`. Nothing that exists is replaced: `InputError`.
    """
    path = folder / CONFIGURATION
    text = json.dumps(
        {
            "kme_id": plan.kme_id,
            "peer_kme_id": plan.peer_kme_id,
            "site": plan.site,
            "listen_host": plan.hosts[0],
            "listen_port": plan.port,
            "ca_path": "ca.pem",
            "certificate_path": "server.pem",
            "key_path": "server.key",
            "crl_path": "crl.pem",
            "ledger_path": "ledger.sqlite",
            "ledger_secret_path": "ledger.secret",
            "sae_pairs": [{"local": local, "remote": remote} for local, remote in plan.pairs],
            "max_additional_slaves": most_additional_slaves(plan.most_partners),
            "metrics_port": plan.metrics_port,
            "peer": None
            if plan.peer_url is None
            else {
                "url": plan.peer_url,
                "ca_path": PEER_CA,
                "certificate_path": "peer.pem",
                "key_path": "peer.key",
            },
        },
        indent=2,
    )
    configuration = KmsConfiguration.parse(text, path)  # before anything is made
    init_site(folder, plan.kme_id, plan.hosts, sorted({local for local, _ in plan.pairs}), now)
    secret = create_secret(folder / "ledger.secret")
    Ledger.create(configuration.ledger_path, plan.site, secret).close()
    with path.open("x") as file:
        file.write(text + "\n")
    return path


def make_pair(
    folder: Path, key_bytes: int, port: int, metrics_port: int, now: datetime
) -> list[Path]:
    """Two sites on this machine, U and N, that hold the same `key_bytes` of key already.

    They serve SAEs `EG-U` and `EG-N` on `port` and the next one, with metrics on `metrics_port` and
    the next one. The key stands for what quantum satellites would deliver: it is random, and made
    here. Returns the two configuration files.
    """
    material = secrets.token_bytes(key_bytes)
    paths = []
    for at, (here, there) in enumerate((("U", "N"), ("N", "U"))):
        plan = SitePlan(
            site="U" if here == "U" else "N",
            kme_id=f"KME-{here}",
            peer_kme_id=f"KME-{there}",
            hosts=HERE,
            port=port and port + at,  # 0 is any free one, which the other KME cannot know
            pairs=[(f"EG-{here}", f"EG-{there}")],
            metrics_port=metrics_port and metrics_port + at,
            peer_url=f"https://{HERE[0]}:{port + 1 - at}" if port else None,
        )
        paths.append(make_site(folder / here.lower(), plan, now))
        load_block(KmsConfiguration.load(paths[-1]), 1, material, "made by qntn kms init", now=now)
    for site, other in (("u", "n"), ("n", "u")):
        trust(folder / site, folder / other / "ca.pem")
    return paths


def trust(folder: Path, authority: Path) -> Path:
    """Let the KME whose authority's certificate is the PEM file `authority` be this site's peer."""
    load_authorities(authority)
    path = folder / PEER_CA
    replace_file(path, authority.read_bytes())
    return path


def load_block(
    configuration: KmsConfiguration,
    number: int,
    material: bytes,
    label: str,
    *,
    now: datetime,
    expires: datetime | None = None,
) -> None:
    """Put a block of key, which the other site gets too, into a ledger that is not being served.

    `LedgerError` if it is; `KeySupplyError` for a block that fails its health test.
    """
    from kms.health import require_healthy  # SciPy's: a KME that serves shall not wait for it

    with Ledger(configuration.ledger_path, configuration.ledger_secret()) as ledger:
        require_healthy(material, f"block {number}")
        ledger.add_block(number, material, label, now, expires)
