"""K11: mutated requests and TLS hellos against a KMS process: no 5xx but 503, no traceback, no growth, service."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.kms_process import KmsProcess, make_sites, start
from topo.errors import KmsRefused

CONNECTIONS = 8
WARM_UP = 2000
ID = "0b9b1f3c-55e3-4a6f-9f4e-3f8f3c8f1f10"
METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "get", "BREW")
PATHS = (
    "/api/v1/keys/EG-N/status",
    "/api/v1/keys/EG-N/enc_keys",
    "/api/v1/keys/EG-N/dec_keys",
    "/api/v1/keys/EG%2FN/enc_keys",
    "/api/v1/keys//status",
    "/api/v1/keys/%00/enc_keys",
    "/api/v1/keys/EG-N/enc_keys/",
    "/",
    "*",
)
QUERIES = ("", "?number=1", "?size=64", "?number=1&size=128", f"?key_ID={ID}", "?a=%zz", "?=&&=")
VALUES: tuple[object, ...] = (
    *(None, True, 0, 1, -1, 3, 64, 2**31, 2**63, 10**40, 1.5, "", "1", "EG-N", "\ud800", ID),
    *([], {}, [None], [{}], ["EH-N"], [{"abc_x": 1}], [{"qntn_max_age_s": 60}], [{"key_ID": ID}]),
)
NAMES = (
    *("number", "size", "additional_slave_SAE_IDs", "extension_mandatory", "extension_optional"),
    *("key_IDs", "key_IDs_extension", "x"),
)
HEADERS = (
    *(b"Content-Type: text/plain", b"Content-Encoding: gzip", b"Expect: 100-continue"),
    *(b"Expect: miracle", b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Range: bytes=0-"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Connection: close", b"Cookie: \xff\xfe"),
    *(
        b"Transfer-Encoding: gzip, chunked",
        b"X: " + b"y" * 9000,
        b"Host: a\r\nHost: b",
        b":",
        b"\x00",
    ),
)


def body(rng: Random) -> bytes:
    """A JSON body of the API's names with any values, often damaged."""
    chosen = {name: rng.choice(VALUES) for name in rng.sample(NAMES, rng.randrange(4))}
    text = json.dumps(chosen).encode()
    match rng.randrange(8):
        case 0:
            return damaged(rng, text)
        case 1:
            return rng.randbytes(rng.randrange(40))
        case 2:
            return text * rng.randrange(3)
        case 3:
            return b"[" * rng.randrange(2000)
        case _:
            return text


def damaged(rng: Random, data: bytes) -> bytes:
    """Bytes changed, dropped and doubled in a few places."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(3):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.randrange(8)]
            case _:
                changed[at:at] = changed[at : at + rng.randrange(8)]
    return bytes(changed)


def request(rng: Random) -> tuple[bytes, bool]:
    """A request, one in thirty with a damaged head or odd headers; whether its end is certain."""
    method = rng.choice(METHODS) if rng.random() < 0.1 else rng.choice(METHODS[:2])
    path = rng.choice(PATHS[:3]) if rng.random() < 0.8 else rng.choice(PATHS)
    content = body(rng) if method == "POST" or rng.random() < 0.05 else b""
    head = f"{method} {path}{rng.choice(QUERIES)} HTTP/1.1\r\nHost: localhost".encode()
    if content or method == "POST":
        head += b"\r\nContent-Length: %d" % len(content)
    match rng.randrange(60):
        case 0:
            return head + b"\r\n" + rng.choice(HEADERS) + b"\r\n\r\n" + content, False
        case 1:
            return damaged(rng, head) + b"\r\n\r\n" + content, False
        case _:
            return head + b"\r\n\r\n" + content, method in METHODS[:2]


async def fuzz_connection(
    kms: KmsProcess, context: ssl.SSLContext, rng: Random, requests: int
) -> Counter[int]:
    """Send mutated requests and count the codes; 0 is a connection closed, or left, without one."""
    codes: Counter[int] = Counter()
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for _ in range(requests):
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("localhost", kms.port, ssl=context)
        sent, framed = request(rng)
        try:
            writer.write(sent)
            code, keep = await asyncio.wait_for(answer(reader, sent), 0.5)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            code, keep = 0, False  # an incomplete request waits for its rest
        codes[code] += 1
        if not (keep and framed):
            writer.transport.abort()
            reader = writer = None
    if writer is not None:
        writer.transport.abort()
    return codes


async def answer(reader: asyncio.StreamReader, sent: bytes) -> tuple[int, bool]:
    """An answer's code and whether the connection goes on; it never shows a traceback."""
    head = await reader.readuntil(b"\r\n\r\n")
    code = int(head[9:12])
    if code == 100:
        return await answer(reader, sent)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    text = b""
    if length is not None and not sent.startswith(b"HEAD"):
        text = await reader.readexactly(int(length[1]))
    assert b"Traceback" not in text
    assert b'File "' not in text
    return code, head.startswith(b"HTTP/1.1") and b"connection: close" not in head.lower()


async def fuzz(kms: KmsProcess, seed: int, requests: int) -> Counter[int]:
    context = kms.context("EG-U")
    found = await asyncio.gather(
        *(
            fuzz_connection(kms, context, Random(f"{seed}/{number}"), requests // CONNECTIONS)
            for number in range(CONNECTIONS)
        )
    )
    return sum(found, Counter())


@pytest.fixture
def kms(tmp_path: Path) -> Iterator[KmsProcess]:
    site, _ = make_sites(tmp_path, key_bytes=2_000_000)
    process = start(site)
    yield process
    process.stop()  # no traceback in its log


def still_serves(kms: KmsProcess) -> None:
    client = kms.client("EG-U")
    if client.status("EG-N").stored_key_count >= 2:
        assert len(client.get_key("EG-N", 2)) == 2
    else:  # a million requests, many of them good ones, have drained the pool
        with pytest.raises(KmsRefused, match="503: not enough keys"):
            client.get_key("EG-N", 2)
    client.close()


@pytest.mark.parametrize("requests", [8_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_k11_mutated_requests(kms: KmsProcess, requests: int) -> None:
    codes = asyncio.run(fuzz(kms, 1, WARM_UP))
    before = kms.resident_bytes()
    codes += asyncio.run(fuzz(kms, 2, requests))
    assert set(codes) <= {0, 200, 400, 401, 404, 405, 417, 503}, (
        codes
    )  # 4xx but 400, 401: no such method
    assert codes[200] > requests // 50
    assert codes[400] > requests // 10
    assert codes[0] < requests // 50, codes  # nearly everything is answered
    assert kms.resident_bytes() < 1.10 * before
    still_serves(kms)


def client_hello() -> bytes:
    """What OpenSSL sends first."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = client_hello()


async def hellos(kms: KmsProcess, rng: Random, number: int) -> None:
    """Malformed TLS: each on a connection of its own, then the end of the stream."""
    for _ in range(number):
        reader, writer = await asyncio.open_connection("localhost", kms.port)
        writer.write(
            damaged(rng, HELLO) if rng.random() < 0.8 else rng.randbytes(rng.randrange(300))
        )
        writer.write_eof()
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        writer.transport.abort()


@pytest.mark.parametrize("number", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_k11_malformed_hellos(kms: KmsProcess, number: int) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(
            *(hellos(kms, Random(seed), number // CONNECTIONS) for seed in range(CONNECTIONS))
        )

    asyncio.run(all_of_them())
    sizes = [kms.resident_bytes()]
    while len(sizes) == 1 or sizes[-1] >= 1.10 * sizes[-2]:
        assert len(sizes) <= 3, f"grows with every round: {sizes}"  # a new peak alone is no leak
        asyncio.run(all_of_them())
        sizes.append(kms.resident_bytes())
    still_serves(kms)
