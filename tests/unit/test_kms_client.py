"""The client and the server over loopback TLS, and the client against servers that misbehave."""

from __future__ import annotations

import base64
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from kms.client import Kms014Client
from kms.configuration import KmsConfiguration, SaePair
from kms.ledger import Ledger
from kms.pki import Credentials, SiteFiles, init_site
from kms.server import KmeServer, tls_context
from tests.kms_process import served
from topo.errors import InputError, KeySupplyError, KmsRefused, LedgerError, ProtocolError

NOW = datetime.now(UTC)
SAE_IDS = {"U": "EG-U/ü 1", "N": "EG-N"}  # one that needs percent-encoding
TIMEOUT_S = 20.0


class Site:
    """A KMS site served from a thread of this process."""

    def __init__(self, folder: Path, here: str, there: str) -> None:
        self.files = init_site(
            folder / here, f"KME-{here}", ["127.0.0.1", "localhost"], [SAE_IDS[here], "EX"], NOW
        )
        self.ledger = Ledger.create(folder / f"{here}.ledger", "U" if here == "U" else "N")
        self.ledger.add_block(1, Random(5).randbytes(2000), "test", NOW)
        self.configuration = KmsConfiguration(
            kme_id=f"KME-{here}",
            peer_kme_id=f"KME-{there}",
            site=self.ledger.site,
            listen_host="127.0.0.1",
            listen_port=0,
            ca_path=self.files.ca.certificate,
            certificate_path=self.files.server.certificate,
            key_path=self.files.server.key,
            ledger_path=self.ledger.path,
            sae_pairs=(SaePair(local=SAE_IDS[here], remote=SAE_IDS[there]),),
        )
        self.port = 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        configuration = self.configuration.model_copy(update={"listen_port": self.port})
        with served(self.ledger, configuration, lambda: NOW) as self.port:
            yield

    def client(
        self,
        sae: Credentials | None = None,
        kme_id: str | None = None,
        files: SiteFiles | None = None,
        host: str = "127.0.0.1",
    ) -> Kms014Client:
        sae = sae or next(iter(self.files.saes.values()))
        return Kms014Client(
            f"https://{host}:{self.port}",
            (files or self.files).ca.certificate,
            sae.certificate,
            sae.key,
            kme_id=kme_id or self.configuration.kme_id,
            timeout_s=TIMEOUT_S,
        )


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Site, Site]:
    return Site(tmp_path, "U", "N"), Site(tmp_path, "N", "U")


def test_both_sites_give_the_same_keys(sites: tuple[Site, Site]) -> None:
    site_u, site_n = sites
    with site_u.serving(), site_n.serving():
        at_u, at_n = site_u.client(), site_n.client()
        keys = at_u.get_key(SAE_IDS["N"], number=5, size_bits=128)
        assert [len(key.key) for key in keys] == [16] * 5
        got = at_n.get_key_with_ids(SAE_IDS["U"], [key.key_id for key in reversed(keys)])
        assert got == keys[::-1]
        [back] = at_n.get_key(SAE_IDS["U"])
        assert at_u.get_key_with_ids(SAE_IDS["N"], [back.key_id.upper()]) == [back]
        assert repr(back.key) not in repr(back)

        status = at_u.status(SAE_IDS["N"])
        assert status.source_KME_ID == "KME-U"
        assert status.master_SAE_ID == SAE_IDS["U"]
        assert status.stored_key_count == site_u.ledger.stored_key_count(256)

        with pytest.raises(KmsRefused, match="not found on KME") as refused:
            at_n.get_key_with_ids(SAE_IDS["U"], [keys[0].key_id])
        assert refused.value.status == 400
        with pytest.raises(KmsRefused) as refused:
            at_u.get_key(SAE_IDS["N"], number=100)
        assert refused.value.status == 503
        at_u.close()
        at_n.close()


def test_strangers_get_nothing(sites: tuple[Site, Site]) -> None:
    site_u, site_n = sites
    with site_u.serving():
        known_but_unpaired = site_u.client(site_u.files.saes["EX"])
        with pytest.raises(KmsRefused) as refused:
            known_but_unpaired.get_key(SAE_IDS["N"])
        assert refused.value.status == 401
        for foreign in (site_n.files.saes["EG-N"], site_u.files.server):
            with pytest.raises(KeySupplyError) as failed:
                site_u.client(foreign).get_key(SAE_IDS["N"])
            assert not isinstance(failed.value, KmsRefused)
    assert site_u.ledger.counts().own_free_bytes == site_u.ledger.counts().own_bytes


def test_the_client_asks_only_the_right_kme(sites: tuple[Site, Site]) -> None:
    site_u, site_n = sites
    with site_u.serving():
        for client, reason in (
            (site_u.client(kme_id="KME-X"), "names KME KME-U"),
            (site_u.client(files=site_n.files), "certificate verify failed"),
            (site_u.client(host="127.0.0.2"), "127.0.0.2"),
        ):
            with pytest.raises(KeySupplyError, match=reason):
                client.get_key(SAE_IDS["N"])
    with pytest.raises(KeySupplyError, match="refused"):
        site_u.client().get_key(SAE_IDS["N"])
    assert site_u.ledger.counts().own_free_bytes == site_u.ledger.counts().own_bytes


def test_one_connection_is_kept_and_replaced_when_stale(
    sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site_u, _ = sites
    connections: list[socket.socket] = []
    connect = socket.create_connection

    def counting(*arguments: object, **options: object) -> socket.socket:
        connections.append(connect(*arguments, **options))  # type: ignore[arg-type]
        return connections[-1]

    monkeypatch.setattr(socket, "create_connection", counting)
    with site_u.serving():
        client = site_u.client()
        keys = [client.get_key(SAE_IDS["N"])[0] for _ in range(3)]
        assert len(connections) == 1
    with site_u.serving():  # a restarted KME at the same address
        keys += client.get_key(SAE_IDS["N"])
        assert len(connections) == 2
        client.close()
    assert len({key.key_id for key in keys}) == 4


@contextmanager
def answering(site: Site, answer: bytes) -> Iterator[None]:
    """The site's address and certificate, but `answer` to every request, then the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.port = listener.getsockname()[1]
        context = tls_context(site.configuration)

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(65536)
                tls.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def http(code: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)


ID = "0b9b1f3c-55e3-8a6f-9f4e-3f8f3c8f1f10"
KEY = b'{"keys": [{"key_ID": "%s", "key": "AAAA"}]}' % ID.encode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(200, b"no JSON"), ProtocolError),
        (http(200, b"[]"), ProtocolError),
        (http(200, b"{}"), ProtocolError),
        (http(200, b'{"keys": [{"key_ID": "x", "key": "#"}]}'), ProtocolError),
        (http(200, b'{"keys": []}'), ProtocolError),  # fewer than asked for
        (http(200, KEY), ProtocolError),  # 24 bits, not 256
        (http(401, b""), KmsRefused),
        (http(503, b'{"message": ["odd"]}'), KmsRefused),
        (b"SSH-2.0-nonsense\r\n", KeySupplyError),
        (b"", KeySupplyError),
        (b"HTTP/1.1 200 X\r\nContent-Length: 9999\r\n\r\n{", KeySupplyError),
    ],
)
def test_answers_that_are_not_the_api(
    sites: tuple[Site, Site], answer: bytes, error: type[Exception]
) -> None:
    with answering(sites[0], answer), pytest.raises(error):
        sites[0].client().get_key(SAE_IDS["N"], size_bits=256)


@pytest.mark.parametrize("call", ["status", "ids"])
def test_other_methods_check_their_answers(sites: tuple[Site, Site], call: str) -> None:
    calls: dict[str, Callable[[Kms014Client], object]] = {
        "status": lambda client: client.status("EG-N"),
        "ids": lambda client: client.get_key_with_ids("EG-N", [ID[:-1] + "1"]),
    }
    with answering(sites[0], http(200, KEY)), pytest.raises(ProtocolError):
        calls[call](sites[0].client())


def test_addresses_and_files_that_cannot_be(sites: tuple[Site, Site], tmp_path: Path) -> None:
    sae = sites[0].files.saes["EX"]
    for url in ("http://127.0.0.1", "127.0.0.1:8443", "https://", "https://a/api"):
        with pytest.raises(InputError):
            Kms014Client(url, sae.certificate, sae.certificate, sae.key, kme_id="K", timeout_s=1)
    with pytest.raises(InputError):
        missing = tmp_path / "missing.pem"
        Kms014Client("https://a", missing, sae.certificate, sae.key, kme_id="K", timeout_s=1)


def test_the_server_refuses_the_other_sites_ledger(sites: tuple[Site, Site]) -> None:
    with pytest.raises(LedgerError, match="belongs to site N"):
        KmeServer(sites[1].ledger, sites[0].configuration)


def test_no_key_material_in_the_logs(
    sites: tuple[Site, Site], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with sites[0].serving():
        [key] = sites[0].client().get_key(SAE_IDS["N"])
    assert "enc_keys?number=1 200" in caplog.text
    for secret in (base64.b64encode(key.key).decode(), key.key.hex(), repr(key.key)):
        assert secret not in caplog.text


def test_a_gateway_that_imports_the_client_loads_no_server() -> None:
    code = "import sys, kms.client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"aiohttp", "pydantic", "sqlite3", "cryptography", "numpy", "kms.server"}
