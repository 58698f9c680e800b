"""What of the kernel's news concerns a gateway, and that no message makes it stumble."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from gateways.watch import Watch

INDEX = 7
NEWLINK, DELLINK, DELADDR, NEWROUTE, DELROUTE, NEWRULE, DELRULE = 16, 17, 21, 24, 25, 32, 33


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch(INDEX)
    yield watch
    watch.close()


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def number(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def link(index: int, flags: int) -> bytes:
    return message(NEWLINK, struct.pack("=BxHiII", 0, 0, index, flags, 0))


def address(index: int) -> bytes:
    return message(DELADDR, struct.pack("=BBBBI", 2, 24, 0, 0, index))


def route(kind: int, table: int, device: int) -> bytes:
    header = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, min(table, 252), 4, 0, 1, 0)
    return message(kind, header + number(15, table) + number(4, device))


def rule(kind: int, protocol: int) -> bytes:
    header = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 252, 0, 0, 1, 0)
    return message(kind, header + struct.pack("=HHBxxx", 5, 21, protocol))


@pytest.mark.parametrize(
    ("news", "ours"),
    [
        (link(INDEX, 1), True),
        (link(INDEX, 0), False),
        (link(8, 1), False),
        (address(INDEX), True),
        (address(8), False),
        (route(DELROUTE, 4500, INDEX), True),
        (route(NEWROUTE, 4500, INDEX), False),
        (route(NEWROUTE, 4500, 8), True),
        (route(NEWROUTE, 254, 8), False),
        (route(DELROUTE, 1000, INDEX), False),
        (rule(DELRULE, 145), True),
        (rule(DELRULE, 0), False),
        (rule(NEWRULE, 0), True),
        (rule(NEWRULE, 145), False),
        (link(8, 1) + route(NEWROUTE, 254, 8) + address(INDEX), True),
        (message(NEWLINK, b""), False),
        (message(DELADDR, bytes(3)), False),
        (b"", False),
        (bytes(15), False),
    ],
)
def test_what_is_ours(watch: Watch, news: bytes, ours: bool) -> None:
    assert watch.are_ours(news) is ours


def test_a_message_that_says_it_is_shorter_than_its_header_ends_the_reading(watch: Watch) -> None:
    assert watch.are_ours(struct.pack("=IHHII", 3, DELLINK, 0, 0, 0)) is True  # to be looked into


def test_links_and_addresses_cut_anywhere_make_nothing_stumble(watch: Watch) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        body = rng.randbytes(rng.randrange(40))
        kind = rng.choice((NEWLINK, DELLINK, DELADDR))
        whole = message(kind, body)
        watch.are_ours(whole[: rng.randrange(len(whole) + 1)])
