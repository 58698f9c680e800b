"""K7, K14: two KME processes that were apart settle their ledgers when they meet; a rolled-back one is found out."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments import cli
from kms.client import Kms014Client
from kms.ledger import Ledger
from kms.reconcile import disagreements, summarise
from kms.site import make_pair
from tests.kms_process import TIMEOUT_S, KmsProcess, start
from topo.errors import KmsRefused

pytestmark = pytest.mark.interop
Pair = tuple[Path, Path]


def two_free_ports() -> int:
    """The first of two neighbouring TCP ports that nobody has at the moment."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if two.connect_ex(("127.0.0.1", port + 1)) != 0:
                return port


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two sites of `qntn kms init` on free ports, in touch every fifth of a second."""
    paths = make_pair(tmp_path, 100_000, two_free_ports(), 0, datetime.now(UTC))
    for path in paths:
        content = json.loads(path.read_text())
        content["peer"]["reconcile_every_s"] = 0.2
        path.write_text(json.dumps(content))
    return paths[0].parent, paths[1].parent


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def taken(kms: KmsProcess, master: str, slave: str, number: int) -> list[str]:
    client: Kms014Client = kms.client(master)
    names = [key.key_id for key in client.get_key(slave, number)]
    client.close()
    return names


def fetched(kms: KmsProcess, slave: str, master: str, names: list[str]) -> None:
    client = kms.client(slave)
    assert len(client.get_key_with_ids(master, names)) == len(names)
    client.close()


def left_to_settle(pair: Pair) -> list[str]:
    """Of two sites that are not being served."""
    summaries = []
    for folder in pair:
        with Ledger(folder / "ledger.sqlite", (folder / "ledger.secret").read_bytes()) as ledger:
            summaries.append(summarise(ledger))
    return disagreements(*summaries)


def test_k14_traffic_at_both_sites_while_apart(pair: Pair) -> None:
    at_u = start(pair[0])
    outward = taken(at_u, "EG-U", "EG-N", 20)
    until(lambda: "not reconciled" in at_u.log)  # site N is not there
    at_u.stop()
    at_n = start(pair[1])
    fetched(at_n, "EG-N", "EG-U", outward[:12])
    inward = taken(at_n, "EG-N", "EG-U", 5)
    at_n.stop()
    assert left_to_settle(pair)

    both = start(pair[0]), start(pair[1])
    fetched(both[0], "EG-U", "EG-N", inward)
    fetched(both[1], "EG-N", "EG-U", outward[12:])
    until(lambda: all("destroyed" in kms.log for kms in both))
    rounds = [kms.log.count("/qntn/") for kms in both]
    until(
        lambda: all(kms.log.count("/qntn/") > at + 2 for kms, at in zip(both, rounds, strict=True))
    )
    for kms in both:
        kms.stop()
    assert left_to_settle(pair) == []


def test_k7_a_site_put_back_to_an_old_state_refuses(pair: Pair, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(pair[0], backup)
    both = start(pair[0]), start(pair[1])
    fetched(both[1], "EG-N", "EG-U", taken(both[0], "EG-U", "EG-N", 8))
    until(lambda: "reconciled:" in both[0].log)
    both[0].stop()
    shutil.rmtree(pair[0])
    shutil.copytree(backup, pair[0])

    again = start(pair[0])
    with pytest.raises(KmsRefused, match="503"):
        taken(again, "EG-U", "EG-N", 1)  # from the first request on
    assert "rolled back" in again.log
    again.stop()
    both[1].stop()


def test_k7_a_site_that_is_to_hear_the_other_first_serves_nobody_before(pair: Pair) -> None:
    """Then a roll-back does no harm either while the other site cannot be reached."""
    path = pair[0] / "kms.json"
    content = json.loads(path.read_text())
    content["peer"]["hear_first"] = True
    path.write_text(json.dumps(content))
    at_u = start(pair[0])
    for _ in range(2):
        with pytest.raises(KmsRefused, match="503"):
            taken(at_u, "EG-U", "EG-N", 1)
    at_n = start(pair[1])
    fetched(at_n, "EG-N", "EG-U", taken(at_u, "EG-U", "EG-N", 3))
    for kms in (at_u, at_n):
        kms.stop()


def test_only_the_peer_may_reconcile(pair: Pair) -> None:
    """Neither SAEs of this site, nor anybody of the other site but its KME; and a KME is no SAE."""
    kms = start(pair[0])
    cases = (
        (pair[0] / "sae-EG-U", 400),
        (pair[0] / "peer", 400),
        (pair[1] / "sae-EG-N", 400),
        (pair[1] / "peer", 200),
    )
    with Ledger(pair[1] / "ledger.sqlite", (pair[1] / "ledger.secret").read_bytes()) as ledger:
        summary = json.loads(summarise(ledger).model_dump_json())
    for files, expected in cases:
        client = Kms014Client(
            kms.url,
            pair[0] / "ca.pem",
            files.with_suffix(".pem"),
            files.with_suffix(".key"),
            kme_id="KME-U",
            timeout_s=TIMEOUT_S,
        )
        try:
            client._call("POST", "/qntn/v1/summary", summary)
            code = 200
        except KmsRefused as refused:
            code = refused.status
        assert code == expected, files
        if files.parent == pair[1] or files.name == "peer":
            with pytest.raises(KmsRefused, match="401"):
                client.get_key("EG-N")
        client.close()
    kms.stop()


def test_k13_a_running_site_that_is_empty_serves_again_after_the_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_pair(tmp_path, 200, two_free_ports(), 0, datetime.now(UTC))
    both = [start(path.parent) for path in paths]
    client = both[0].client("EG-U")
    client.get_key("EG-N", client.status("EG-N").stored_key_count)
    with pytest.raises(KmsRefused, match="503: not enough keys"):
        client.get_key("EG-N")
    assert client.status("EG-N").stored_key_count == 0

    (tmp_path / "key").write_bytes(bytes(range(256)) * 5)
    for path in paths:
        said = qntn(monkeypatch, "kms", "load", path.parent, 2, tmp_path / "key")
        assert said == 0
    assert qntn(monkeypatch, "kms", "load", paths[0].parent, 2, tmp_path / "key") == 1  # once
    fetched(both[1], "EG-N", "EG-U", taken(both[0], "EG-U", "EG-N", 10))

    alike = {"number": 3, "label": "", "material": base64.b64encode(bytes(300)).decode()}
    own = Kms014Client(
        both[0].url,
        both[0].folder / "ca.pem",
        both[0].folder / "peer.pem",
        both[0].folder / "peer.key",
        kme_id="KME-U",
        timeout_s=TIMEOUT_S,
    )
    with pytest.raises(KmsRefused, match="400: block 3 fails its health test"):  # K16
        own._call("POST", "/qntn/v1/blocks", alike)
    own.close()
    assert "unhealthy-key at KME-U: block 3: repetition count" in both[0].log

    stranger = Kms014Client(
        both[0].url, *both[0].files("EG-U"), kme_id="KME-U", timeout_s=TIMEOUT_S
    )
    with pytest.raises(KmsRefused, match="refused"):
        stranger._call("POST", "/qntn/v1/blocks", {"number": 9, "label": "", "material": "AAAA"})
    for each in (client, stranger):
        each.close()
    for kms in both:
        kms.stop()


def qntn(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of one command."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["qntn", *map(str, arguments)])
    with pytest.raises(SystemExit) as exited:
        cli.main()
        sys.exit(0)
    return int(exited.value.code or 0)
