"""The KMS asked by other people's ETSI GS QKD 014 clients from PyPI: etsi-qkd-014-client and qkdsec."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kms_process import KmsProcess, make_sites, start

etsi_qkd_014_client = pytest.importorskip("etsi_qkd_014_client")
qkdsec = pytest.importorskip("qkdsec.client")
errors = pytest.importorskip("qkdsec.client.errors")

pytestmark = pytest.mark.interop
Sites = tuple[KmsProcess, KmsProcess]
UNSUPPORTED = "not all extension_mandatory parameters are supported"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folders = make_sites(tmp_path_factory.mktemp("sites"))
    both = start(folders[0]), start(folders[1])
    yield both
    for kms in both:
        kms.stop()


class TestEtsiQkd014Client:
    """Version 0.9.0: POST for all but the bare GET."""

    @staticmethod
    def client(kms: KmsProcess, sae_id: str) -> etsi_qkd_014_client.QKD014Client:
        authority, certificate, key = kms.files(sae_id)
        return etsi_qkd_014_client.QKD014Client(
            f"localhost:{kms.port}", certificate, key, authority
        )

    def test_status(self, sites: Sites) -> None:
        code, status = self.client(sites[0], "EG-U").get_status("EG-N")
        assert code == 200
        assert (status.source_kme_id, status.target_kme_id) == ("KME-U", "KME-N")
        assert (status.master_sae_id, status.slave_sae_id) == ("EG-U", "EG-N")
        assert (status.key_size, status.max_sae_id_count) == (256, 3)

    @pytest.mark.parametrize("asked", [{}, {"number": 3}, {"number": 2, "size": 512}])
    def test_keys_cross(self, sites: Sites, asked: dict[str, int]) -> None:
        code, got = self.client(sites[0], "EG-U").get_key("EG-N", **asked)
        assert code == 200
        assert len(got.keys) == asked.get("number", 1)
        names = [key.key_id for key in got.keys]
        code, fetched = self.client(sites[1], "EG-N").get_key_with_key_IDs("EG-U", names)
        assert code == 200
        assert [(k.key_id, k.key) for k in fetched.keys] == [(k.key_id, k.key) for k in got.keys]

    def test_multicast(self, sites: Sites) -> None:
        master = self.client(sites[0], "EG-U")
        code, got = master.get_key("EG-N", additional_slave_sae_ids=["EH-N"])
        assert code == 200
        for slave in ("EG-N", "EH-N"):
            code, fetched = self.client(sites[1], slave).get_key_with_key_IDs(
                "EG-U", [got.keys[0].key_id]
            )
            assert code == 200
            assert fetched.keys[0].key == got.keys[0].key

    def test_refusals_are_read_as_errors(self, sites: Sites) -> None:
        master, slave = self.client(sites[0], "EG-U"), self.client(sites[1], "EG-N")
        code, error = master.get_key("EG-N", extension_mandatory=[{"abc_x": 1}])
        assert (code, error.message) == (400, UNSUPPORTED)
        code, error = slave.get_key_with_key_IDs("EG-U", ["0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10"])
        assert (code, error.message) == (400, "one or more keys specified are not found on KME")
        code, _ = self.client(sites[0], "EH-U").get_key("EG-N")
        assert code == 401  # the client reads JSON of every answer
        code, _ = master.get_key("EG-N", number=129)
        assert code == 400


class TestQkdsec:
    """Version 0.3.0, its synchronous client class."""

    @staticmethod
    def client(kms: KmsProcess, sae_id: str) -> qkdsec.ETSI014Client:
        authority, certificate, key = kms.files(sae_id)
        return qkdsec.ETSI014Client(kms.url, client_cert=(certificate, key), verify=authority)

    def test_status(self, sites: Sites) -> None:
        with self.client(sites[0], "EG-U") as client:
            status = client.status("EG-N")
        assert (status.source_kme_id, status.slave_sae_id) == ("KME-U", "EG-N")
        assert status.stored_key_count > 0

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_keys_cross(self, sites: Sites, method: str) -> None:
        with self.client(sites[0], "EG-U") as master, self.client(sites[1], "EG-N") as slave:
            got = master.get_enc_keys("EG-N", number=3, size=128, method=method)
            assert [len(key.key) for key in got] == [16] * 3
            fetched = slave.get_dec_keys("EG-U", key_ids=[key.key_id for key in got])
            assert [(k.key_id, k.key) for k in fetched] == [(k.key_id, k.key) for k in got]
            with pytest.raises(errors.KMEHTTPError) as refused:
                slave.get_dec_keys("EG-U", key_ids=[got[0].key_id])
        assert refused.value.status_code == 400
        assert "not found on KME" in refused.value.message

    def test_multicast_and_extensions(self, sites: Sites) -> None:
        with self.client(sites[0], "EG-U") as master, self.client(sites[1], "EH-N") as slave:
            [key] = master.get_enc_keys(
                "EG-N",
                additional_slave_sae_ids=["EH-N"],
                extension_mandatory=[{"qntn_max_age_s": 3600}],
                extension_optional=[{"abc_x": 1}],
            )
            [fetched] = slave.get_dec_keys("EG-U", key_ids=[key.key_id])
            assert fetched.key == key.key
            with pytest.raises(errors.KMEHTTPError, match="extension_mandatory"):
                master.get_enc_keys("EG-N", extension_mandatory=[{"abc_x": 1}])
