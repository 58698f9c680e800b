"""How fast a KMS hands out keys durably, beside a bare aiohttp handler that returns a constant.

`qntn bench kms` makes a site in a scratch folder and serves it as it would be served, in a process of its own; this
process is its clients. The bare peer has the same TLS, the same routes' answer as a constant, and no ledger. The two
take turns in each round:

* `enc_keys`: so many clients on kept connections, each asking for one 256-bit key after the other; every key is
  durable (fsync) before it is answered;
* `connections`: new mutual-TLS connections, each for one request.

`python -m experiments.bench.kms FOLDER` is the bare peer.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.progress import Reporter
from kms.configuration import KmsConfiguration
from kms.pki import sae_files
from kms.server import tls_context
from kms.site import CONFIGURATION, make_pair
from topo.errors import MeasurementError

KEY_BYTES = 64_000_000
CONNECTING = 8
"""Clients that make new connections at a time."""
_ANSWER = (
    b'{"keys": [{"key_ID": "00010000-0020-8020-9835-c37a7b3c72f2",'
    b' "key": "Rl2kB14U4cKYR9DkPPoYnmg2JyA0i5X9KURhsXZUk2U="}]}'
)
_ASK = b"GET /api/v1/keys/EG-N/%s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
_END_S = 10.0


@dataclass(frozen=True)
class Peer:
    """A server under test."""

    name: str
    port: int
    context: ssl.SSLContext


@dataclass(frozen=True)
class Load:
    """What came of one load: a second's answers and how long they took."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: bytes) -> int:
    """One request on an open connection; its code."""
    writer.write(_ASK % method)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length is None:
        raise MeasurementError(f"no Content-Length in {head!r}")
    await reader.readexactly(int(length[1]))
    return int(head[9:12])


async def _connect(peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", peer.port, ssl=peer.context)


async def _keep_asking(peer: Peer, end_s: float, taken_s: list[float], codes: list[int]) -> None:
    """One client on one connection."""
    reader, writer = await _connect(peer)
    while (begin_s := time.perf_counter()) < end_s:
        codes.append(await _ask(reader, writer, b"enc_keys"))
        taken_s.append(time.perf_counter() - begin_s)
    writer.transport.abort()


async def _keep_connecting(
    peer: Peer, end_s: float, taken_s: list[float], codes: list[int]
) -> None:
    """One client that makes a new connection for each request."""
    while (begin_s := time.perf_counter()) < end_s:
        reader, writer = await _connect(peer)
        codes.append(await _ask(reader, writer, b"status"))
        taken_s.append(time.perf_counter() - begin_s)
        writer.transport.abort()


_Client = Callable[[Peer, float, list[float], list[int]], Awaitable[None]]


def _load(peer: Peer, client: _Client, clients: int, seconds: float) -> Load:
    """So many clients for so long."""
    taken_s: list[float] = []
    codes: list[int] = []

    async def all_of_them() -> float:
        begin_s = time.perf_counter()
        await asyncio.gather(
            *(client(peer, begin_s + seconds, taken_s, codes) for _ in range(clients))
        )
        return time.perf_counter() - begin_s

    elapsed_s = asyncio.run(all_of_them())
    percentiles = statistics.quantiles(taken_s, n=100)
    return Load(
        per_s=len(taken_s) / elapsed_s,
        p50_ms=1e3 * percentiles[49],
        p99_ms=1e3 * percentiles[98],
        refused=sum(code != 200 for code in codes),
    )


@contextmanager
def _served(name: str, argv: list[str], folder: Path) -> Iterator[Peer]:
    """A server process; it says its port in its log and READY on its output."""
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "READY\n":
            raise MeasurementError(f"{name} did not start: {log.read_text().strip()}")
        port = re.search(r"https://127.0.0.1:(\d+)$", log.read_text(), re.MULTILINE)
        assert port is not None
        context = ssl.create_default_context(cafile=folder / "u" / "ca.pem")
        sae = sae_files(folder / "u", "EG-U")
        context.load_cert_chain(sae.certificate, sae.key)
        yield Peer(name, int(port[1]), context)
    finally:
        process.terminate()
        process.wait(_END_S)


def measure(clients: int, seconds: float, rounds: int, reporter: Reporter) -> dict[str, Any]:
    """Medians over the rounds of each load on each server, and the ratios to the bare one, JSON-able."""
    folder = Path(tempfile.mkdtemp(prefix="qntn-bench-", dir=Path.cwd()))
    try:
        configuration, _ = make_pair(folder, KEY_BYTES, 0, 0, datetime.now(UTC))
        with (
            _served("kms", [sys.executable, "-m", "kms.server", str(configuration)], folder) as kms,
            _served("bare", [sys.executable, "-m", __name__, str(folder / "u")], folder) as bare,
        ):
            return _take_turns((kms, bare), clients, seconds, rounds, reporter)
    finally:
        shutil.rmtree(folder)


def _take_turns(
    peers: tuple[Peer, Peer], clients: int, seconds: float, rounds: int, reporter: Reporter
) -> dict[str, Any]:
    loads: dict[str, tuple[_Client, int]] = {
        "enc_keys": (_keep_asking, clients),
        "connections": (_keep_connecting, CONNECTING),
    }
    reporter.stage(f"{clients} clients, {rounds} rounds", rounds * len(loads) * len(peers))
    taken: dict[tuple[str, str], list[Load]] = {}
    done = 0
    for number in range(rounds):
        for what, (client, how_many) in loads.items():
            for peer in peers:
                found = _load(peer, client, how_many, seconds)
                if found.refused:
                    raise MeasurementError(f"{peer.name}: {found.refused} {what} refused")
                taken.setdefault((what, peer.name), []).append(found)
                done += 1
                reporter.advance(
                    done, f"round {number + 1}: {peer.name} {what}: {found.per_s:.0f}/s"
                )
    medians = {
        what: {
            peer.name: {
                key: statistics.median(getattr(load, key) for load in taken[what, peer.name])
                for key in ("per_s", "p50_ms", "p99_ms")
            }
            for peer in peers
        }
        for what in loads
    }
    return {
        "clients": clients,
        "seconds": seconds,
        "rounds": rounds,
        "medians": medians,
        "ratios_to_bare": {
            what: {key: of["kms"][key] / of["bare"][key] for key in of["kms"]}
            for what, of in medians.items()
        },
    }


def described(found: dict[str, Any]) -> str:
    """What `measure` found, as a table."""
    lines = [f"{'':14}{'':8}{'a second':>10}{'p50 ms':>10}{'p99 ms':>10}"]
    for what, of in found["medians"].items():
        for name, row in of.items():
            numbers = f"{row['per_s']:10.0f}{row['p50_ms']:10.2f}{row['p99_ms']:10.2f}"
            lines.append(f"{what:14}{name:8}{numbers}")
        ratio = found["ratios_to_bare"][what]
        lines.append(
            f"{'':14}{'ratio':8}{ratio['per_s']:10.2f}{ratio['p50_ms']:10.2f}{ratio['p99_ms']:10.2f}"
        )
    return "\n".join(lines)


async def _serve_bare(folder: Path) -> None:
    """The bare peer: the site's TLS, one handler, one constant."""
    from aiohttp import web

    async def constant(request: web.Request) -> web.Response:
        return web.Response(body=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_get("/api/v1/keys/{sae_id}/{method}", constant)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = tls_context(KmsConfiguration.load(folder / CONFIGURATION))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print(f"https://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    print("READY", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_bare(Path(sys.argv[1])))
