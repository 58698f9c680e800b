"""Two KMEs in this process, asked as pure functions: what the tests by clause of ETSI GS QKD 014 share.

Site U serves EG-U (paired with EG-N and EH-N) and EH-U (paired with EH-N); site N the other ends.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kms import api
from kms.api import Request
from kms.configuration import KmsConfiguration, SaePair
from kms.kme import Kme
from kms.ledger import Ledger

NOW = datetime(2024, 11, 29, 22, 40, tzinfo=UTC)
MATERIAL = bytes(range(256)) * 40
ANY_ID = "0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10"
KNOWN = "KNOWN"  # in a request: the key_ID of a key that EG-U got for EG-N
PAIRS = (("EG-U", "EG-N"), ("EG-U", "EH-N"), ("EH-U", "EH-N"), ("a/b ü", "EH-N"))
Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Site:
    """One KME, at a clock that stands still unless told otherwise."""

    kme: Kme
    now: datetime = NOW

    @property
    def ledger(self) -> Ledger:
        return self.kme.ledger

    def call(self, handler: api.Handler, caller: str, request: Request) -> Answer:
        return handler(self.kme, caller, request, self.now)

    def at(self, now: datetime) -> Site:
        return replace(self, now=now)


def make_site(folder: Path, site: Literal["U", "N"], **changes: Any) -> Site:
    here, there = ("U", "N") if site == "U" else ("N", "U")
    pairs = [pair if site == "U" else pair[::-1] for pair in PAIRS]
    configuration = KmsConfiguration(
        kme_id=f"KME-{here}",
        peer_kme_id=f"KME-{there}",
        site=site,
        listen_host="127.0.0.1",
        listen_port=0,
        ca_path=folder / "unused",
        certificate_path=folder / "unused",
        key_path=folder / "unused",
        ledger_path=folder / f"{here}.ledger",
        sae_pairs=tuple(SaePair(local=local, remote=remote) for local, remote in pairs),
        max_key_per_request=16,
        max_additional_slaves=2,
    ).model_copy(update=changes)
    ledger = Ledger.create(configuration.ledger_path, site)
    ledger.add_block(1, MATERIAL, "test", NOW)
    return Site(Kme.start(ledger, configuration, NOW))


def get(sae_id: str, **query: object) -> Request:
    return Request("GET", sae_id, tuple((name, str(value)) for name, value in query.items()))


def post(sae_id: str, body: object) -> Request:
    return Request("POST", sae_id, body=json.dumps(body).encode())


def raw(body: bytes, sae_id: str = "EG-N") -> Request:
    return Request("POST", sae_id, body=body)


def ids(*key_ids: object) -> dict[str, object]:
    return {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}


def key_lengths(answer: Answer) -> list[int]:
    """The lengths of delivered keys, in bits."""
    code, body = answer
    assert code == 200, body
    return [8 * len(base64.b64decode(key["key"], validate=True)) for key in body["keys"]]


def taken(site: Site, number: int = 1, slave: str = "EG-N") -> list[dict[str, str]]:
    """Keys that EG-U gets for a slave."""
    code, body = site.call(api.get_key, "EG-U", get(slave, number=number))
    assert code == 200, body
    keys: list[dict[str, str]] = body["keys"]
    return keys
