"""Where a gateway's keys come from, and how they are fetched without stopping its packets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from gateways.events import FetchKey, FetchKeyById
from gateways.ike.ppk import MAX_KEY_ID_OCTETS
from kms.client import Kms014Client
from topo.errors import KeySupplyError, ProtocolError

KEY_BITS = 256
"""Length of the keys asked for, unless the configuration says otherwise."""


class KeySource(Protocol):
    """What a gateway needs of a KMS. Both raise `KeySupplyError` when there is no key,
    `ProtocolError` when the KMS talks nonsense."""

    def fetch(self) -> tuple[str, bytes]:
        """A new key shared with the peer: its key_ID and its octets."""

    def fetch_by_id(self, key_id: str) -> bytes:
        """The key that the peer fetched from its own KMS as `key_id`."""


class EtsiKeySource:
    """Keys of the gateway's own KMS by ETSI GS QKD 014: `Get key` and `Get key with key IDs`."""

    def __init__(self, client: Kms014Client, peer_sae: str, key_bits: int = KEY_BITS) -> None:
        self._client = client
        self._peer_sae = peer_sae
        self._key_bits = key_bits

    def fetch(self) -> tuple[str, bytes]:
        """One new key; we are the master SAE (clause 5.2)."""
        (key,) = self._client.get_key(self._peer_sae, 1, self._key_bits)
        if len(key.key_id.encode()) > MAX_KEY_ID_OCTETS:
            raise ProtocolError(f"the KMS gave a key_ID of {len(key.key_id)} characters")
        return key.key_id, key.key

    def fetch_by_id(self, key_id: str) -> bytes:
        """The key of `key_id`; we are the slave SAE (clause 5.3)."""
        (key,) = self._client.get_key_with_ids(self._peer_sae, [key_id])
        return key.key


class WrongKeys:
    """A fault to test with: every key of `source` with one bit flipped."""

    def __init__(self, source: KeySource) -> None:
        self._source = source

    def fetch(self) -> tuple[str, bytes]:
        """A new key, wrong in one bit."""
        key_id, key = self._source.fetch()
        return key_id, _flip_bit(key)

    def fetch_by_id(self, key_id: str) -> bytes:
        """The named key, wrong in one bit."""
        return _flip_bit(self._source.fetch_by_id(key_id))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A key has come."""

    exchange: bytes
    key_id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """No key has come."""

    exchange: bytes
    reason: str


class KeyFetcher:
    """Calls a `KeySource` in a worker thread; `wake` is called from there when `results` has some.

    Any other error than `KeySource`'s is a bug: `results` raises it in the caller's thread.
    """

    def __init__(self, source: KeySource, wake: Callable[[], None]) -> None:
        self._source = source
        self._wake = wake
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kms")
        self._pending: list[Future[Fetched | Refused]] = []

    def submit(self, request: FetchKey | FetchKeyById) -> None:
        """Ask for a key; returns at once."""
        future = self._pool.submit(self._call, request)
        self._pending.append(future)
        future.add_done_callback(lambda _: self._wake())

    def results(self) -> list[Fetched | Refused]:
        """What has come since the last call."""
        done = [future for future in self._pending if future.done()]
        self._pending = [future for future in self._pending if future not in done]
        return [future.result() for future in done]

    def close(self) -> None:
        """Ask nothing more. A call under way ends by its own time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, request: FetchKey | FetchKeyById) -> Fetched | Refused:
        try:
            if isinstance(request, FetchKeyById):
                key = self._source.fetch_by_id(request.key_id)
                return Fetched(request.exchange, request.key_id, key)
            return Fetched(request.exchange, *self._source.fetch())
        except (KeySupplyError, ProtocolError) as error:
            return Refused(request.exchange, str(error))


def _flip_bit(key: bytes) -> bytes:
    return bytes((key[0] ^ 1,)) + key[1:]
