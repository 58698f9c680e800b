"""Fetching keys in a worker thread, from a stand-in for the ETSI client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateways.events import FetchKey, FetchKeyById
from gateways.keysource import EtsiKeySource, Fetched, KeyFetcher, Refused, WrongKeys
from kms.client import DeliveredKey
from topo.errors import KmsRefused, ProtocolError, QntnError

KEY = bytes(range(32))


class Client:
    """Answers like `Kms014Client`; `error` is raised instead, if set."""

    def __init__(self, error: Exception | None = None, key_id: str = "id-1") -> None:
        self.error = error
        self.key_id = key_id
        self.calls: list[tuple[Any, ...]] = []

    def get_key(self, slave: str, number: int, size: int) -> list[DeliveredKey]:
        self.calls.append((slave, number, size))
        if self.error:
            raise self.error
        return [DeliveredKey(self.key_id, KEY)]

    def get_key_with_ids(self, master: str, key_ids: list[str]) -> list[DeliveredKey]:
        self.calls.append((master, *key_ids))
        if self.error:
            raise self.error
        return [DeliveredKey(key_ids[0], KEY)]


def source(client: Client) -> EtsiKeySource:
    return EtsiKeySource(client, "SAE-N")  # type: ignore[arg-type]


def fetched(keys: Any, *requests: FetchKey | FetchKeyById) -> list[Fetched | Refused]:
    woken = threading.Semaphore(0)
    fetcher = KeyFetcher(keys, woken.release)
    for request in requests:
        fetcher.submit(request)
    for _ in requests:
        assert woken.acquire(timeout=30)
    try:
        return fetcher.results()
    finally:
        fetcher.close()


def test_the_calls_of_master_and_slave() -> None:
    client = Client()
    results = fetched(source(client), FetchKey(b"1"), FetchKeyById(b"2", "id-7"))
    assert results == [Fetched(b"1", "id-1", KEY), Fetched(b"2", "id-7", KEY)]
    assert client.calls == [("SAE-N", 1, 256), ("SAE-N", "id-7")]


@pytest.mark.parametrize("error", [KmsRefused(503, "no keys"), ProtocolError("not JSON")])
def test_refusals_come_back_as_such(error: QntnError) -> None:
    results = fetched(source(Client(error)), FetchKey(b"1"), FetchKeyById(b"2", "id"))
    assert results == [Refused(b"1", str(error)), Refused(b"2", str(error))]


def test_a_key_id_that_no_message_can_carry_is_refused() -> None:
    (result,) = fetched(source(Client(key_id="x" * 256)), FetchKey(b"1"))
    assert isinstance(result, Refused)


def test_a_bug_is_raised_where_it_is_seen() -> None:
    with pytest.raises(ZeroDivisionError):
        fetched(source(Client(ZeroDivisionError("bug"))), FetchKey(b"1"))


def test_wrong_keys_differ_in_one_bit() -> None:
    wrong = WrongKeys(source(Client()))
    calls: list[Callable[[], bytes]] = [lambda: wrong.fetch()[1], lambda: wrong.fetch_by_id("id")]
    for call in calls:
        assert (int.from_bytes(call()) ^ int.from_bytes(KEY)).bit_count() == 1


def test_repr_hides_keys() -> None:
    assert repr(KEY)[2:-1] not in repr(Fetched(b"1", "id", KEY))
