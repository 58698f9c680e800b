"""An ETSI GS QKD 014 client: an SAE's side of HTTPS with mutual TLS, on the standard library alone.

Synchronous and light, for a gateway's own process. It knows nothing of any server but the document:
the three methods, GET where a simple request allows it, POST otherwise. One TLS connection is kept
and made anew when it has gone stale. Not for use by several threads at once.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kms.identity import identity
from topo.errors import InputError, KeySupplyError, KmsRefused, ProtocolError


@dataclass(frozen=True)
class DeliveredKey:
    """One key as a KME delivered it: `key_id` as given by the KME, `key` the raw bytes."""

    key_id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class KmeStatus:
    """ETSI GS QKD 014 Table 9; sizes in bits."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: dict[str, Any] = field(default_factory=dict)
    """What its maker says beyond the document; empty if nothing."""


def _host_and_port(base_url: str) -> tuple[str, int]:
    try:
        url = urlsplit(base_url)
        host, port = url.hostname, url.port
        # as a certificate would name it; http.client finds an impossible name only when it calls
        if host is not None and host.isascii() and host.isprintable() and " " not in host:
            rest = (url.path.strip("/"), url.query, url.fragment, url.username)
            if url.scheme == "https" and not any(rest) and port != 0:
                return host, port or 443
    except ValueError:  # a port that is none, brackets that do not close
        pass
    raise InputError(f"KME address {base_url!r}: https://HOST[:PORT]")


class Kms014Client:
    """One SAE's connection to its own KME.

    `base_url` is `https://HOST[:PORT]`; `ca` the PEM of the authority that signed the KME's
    certificate; `certificate` and `key` the SAE's own; `kme_id` what the KME's certificate must
    say; `timeout_s` the longest wait for the network, each time. Methods raise `KmsRefused` for an
    answer other than 200, `KeySupplyError` when the KME cannot be reached or is not the expected
    one, `ProtocolError` for an answer that is not the API's.
    """

    def __init__(
        self,
        base_url: str,
        ca: Path | str,
        certificate: Path | str,
        key: Path | str,
        *,
        kme_id: str,
        timeout_s: float,
    ) -> None:
        host, port = _host_and_port(base_url)
        try:
            context = ssl.create_default_context(cafile=ca)
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise InputError(f"TLS files {ca}, {certificate}, {key}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._base_url, self._kme_id = base_url, kme_id
        self._connection = http.client.HTTPSConnection(
            host, port, timeout=timeout_s, context=context
        )

    def status(self, slave: str) -> KmeStatus:
        """What this SAE, as master, can get to share with `slave`."""
        answer = self._call("GET", f"/api/v1/keys/{quote(slave, safe='')}/status")
        known = {"status_extension": {}} | answer
        try:
            status = KmeStatus(**{part.name: known[part.name] for part in fields(KmeStatus)})
        except KeyError as error:
            raise ProtocolError(f"status of {self._base_url} lacks {error}") from error
        types = {"int": int, "str": str}
        for part in fields(KmeStatus):
            value = getattr(status, part.name)
            if type(value) is not types.get(str(part.type), dict):
                raise ProtocolError(f"status of {self._base_url}: {part.name} is {value!r}")
        return status

    def get_key(
        self,
        slave: str,
        number: int = 1,
        size_bits: int | None = None,
        *,
        additional_slaves: Sequence[str] = (),
        extension_mandatory: Sequence[Mapping[str, Any]] = (),
    ) -> list[DeliveredKey]:
        """`number` fresh keys to share with `slave`; without `size_bits`, of the KME's own size.

        `additional_slaves` share them too. `extension_mandatory` are name/value pairs that the KME
        honours or refuses the request.
        """
        query = {"number": number} if size_bits is None else {"number": number, "size": size_bits}
        path = f"/api/v1/keys/{quote(slave, safe='')}/enc_keys"
        more = {
            "additional_slave_SAE_IDs": list(additional_slaves),
            "extension_mandatory": [dict(extension) for extension in extension_mandatory],
        }
        if any(more.values()):  # clause 6.2: not by GET
            present = {name: value for name, value in more.items() if value}
            keys = _keys(self._call("POST", path, query | present))
        else:
            keys = _keys(self._call("GET", f"{path}?{urlencode(query)}"))
        wrong_size = size_bits is not None and any(len(key.key) * 8 != size_bits for key in keys)
        if len(keys) != number or wrong_size:
            raise ProtocolError(f"{self._base_url} delivered other keys than were asked for")
        return keys

    def get_key_with_ids(self, master: str, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """The keys that `master` got to share with this SAE, in the order of `key_ids`."""
        path = f"/api/v1/keys/{quote(master, safe='')}/dec_keys"
        if len(key_ids) == 1:
            answer = self._call("GET", f"{path}?{urlencode({'key_ID': key_ids[0]})}")
        else:
            answer = self._call("POST", path, {"key_IDs": [{"key_ID": name} for name in key_ids]})
        keys = {key.key_id.lower(): key for key in _keys(answer)}
        if sorted(keys) != sorted(name.lower() for name in key_ids):
            raise ProtocolError(f"{self._base_url} delivered other key_IDs than were asked for")
        return [keys[name.lower()] for name in key_ids]

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            code, text = self._exchange(method, path, None if body is None else json.dumps(body))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise KeySupplyError(f"KME {self._kme_id} at {self._base_url}: {reason}") from error
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if code != 200:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise KmsRefused(code, str(message or "no message"))
        if not isinstance(answer, dict):
            raise ProtocolError(f"{self._base_url} answered something that is no JSON object")
        return answer

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        """Send and receive; a kept connection that the KME closed meanwhile is replaced, once.

        Repeating is safe: if the KME did act on the lost request, `get_key` costs one more key and
        `get_key_with_ids` is refused. No key can be delivered twice.
        """
        if self._connection.sock is not None:
            try:
                return self._exchange_once(method, path, body)
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self.close()
        return self._exchange_once(method, path, body)

    def _exchange_once(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        if self._connection.sock is None:
            self._connection.connect()
            self._check_kme()
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _check_kme(self) -> None:
        """Confirm the KME ID from its certificate before anything is asked (clause 4)."""
        connected: ssl.SSLSocket = self._connection.sock
        try:
            found = identity(connected.getpeercert(), "kme")
        except ProtocolError as error:
            raise ssl.SSLCertVerificationError(str(error)) from error
        if found != self._kme_id:
            raise ssl.SSLCertVerificationError(f"its certificate names KME {found}")


def _keys(answer: dict[str, Any]) -> list[DeliveredKey]:
    """The keys of a Key container (Table 11); `ProtocolError` if it is none."""
    try:
        return [
            DeliveredKey(str(item["key_ID"]), base64.b64decode(item["key"], validate=True))
            for item in answer["keys"]
        ]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ProtocolError("the KME's answer is no key container") from error
