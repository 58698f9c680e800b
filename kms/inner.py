"""What a KME takes from KMEs, not from SAEs: the other site's summary, and new blocks of key.

Not part of ETSI GS QKD 014, which leaves both open; on the same port, under the same mutual TLS.

POST /qntn/v1/summary   by the other site's KME (its authority, its KME ID): `kms.peer`
POST /qntn/v1/version   likewise
POST /qntn/v1/blocks    by this site's own KME, that is whoever has its `peer.key`: a block of key for
                        the ledger that is being served. `{"number", "label", "material" (base64),
                        "expires" (ISO 8601 or null)}`; answers 200 and `{}`

A refusal is 400 with an Error body; why stands in the log, and is told to this site's own KME alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from kms.alarms import AlarmKind
from kms.certificates import Caller
from kms.client import Kms014Client
from kms.configuration import KmsConfiguration
from kms.messages import Base64, Error
from kms.peer import MAX_SUMMARY_BYTES, VERSION_PATH
from kms.peer import PATH as SUMMARY_PATH
from topo.errors import InputError, KeySupplyError, ProtocolError, QntnError

if TYPE_CHECKING:
    from kms.peer import Peer
    from kms.server import KmeServer

BLOCKS_PATH = "/qntn/v1/blocks"
MAX_BLOCK_BODY_BYTES = 128 << 20
_MAX_ANNOUNCEMENT_BYTES = 1024
_LOG = logging.getLogger("kms.server")
_TIMEOUT_S = 60.0


class NewBlock(BaseModel):
    """A block of key on its way to the ledger of a running KME."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    number: int
    label: str
    material: Base64 = Field(repr=False)
    expires: AwareDatetime | None = None


class _Client(Kms014Client):
    def load(self, block: NewBlock) -> None:
        self._call("POST", BLOCKS_PATH, block.model_dump(mode="json"))


_Handler = Callable[["KmeServer", web.Request], Awaitable[tuple[str, str]]]


def add_routes(app: web.Application, server: KmeServer) -> None:
    """Add to a KME's application what KMEs may ask."""

    async def summary(request: web.Request) -> web.Response:
        return await _answered(server, request, _hear_peer)

    async def version(request: web.Request) -> web.Response:
        return await _answered(server, request, _heed_peer)

    async def blocks(request: web.Request) -> web.Response:
        return await _answered(server, request, _take_block, tells=KeySupplyError)

    app.router.add_post(SUMMARY_PATH, summary)
    app.router.add_post(VERSION_PATH, version)
    app.router.add_post(BLOCKS_PATH, blocks)


async def _answered(
    server: KmeServer,
    request: web.Request,
    handler: _Handler,
    tells: type[QntnError] | tuple[()] = (),
) -> web.Response:
    try:
        name, text = await handler(server, request)
    except (ProtocolError, KeySupplyError, InputError) as error:
        _LOG.warning("%s: %s", request.path, error)
        why = str(error) if isinstance(error, tells) else "refused; the KME's log says why"
        text = Error(message=why).model_dump_json(exclude_none=True)
        return web.Response(status=400, text=text, content_type="application/json")
    _LOG.info("%s POST %s 200", name, request.path)
    return web.Response(text=text, content_type="application/json")


async def _hear_peer(server: KmeServer, request: web.Request) -> tuple[str, str]:
    peer = _peer(server, request)
    text = peer.hear(await server.body(request, MAX_SUMMARY_BYTES))
    return server.configuration.peer_kme_id, text


async def _heed_peer(server: KmeServer, request: web.Request) -> tuple[str, str]:
    peer = _peer(server, request)
    peer.heed(await server.body(request, _MAX_ANNOUNCEMENT_BYTES))
    return server.configuration.peer_kme_id, "{}"


def _peer(server: KmeServer, request: web.Request) -> Peer:
    """The other site, which asks."""
    if server.peer is None:
        raise ProtocolError("no peer is configured here")
    caller = server.authenticate(request, "kme", server.peer.authorities)
    _check_name(caller, server.configuration.peer_kme_id)
    return server.peer


async def _take_block(server: KmeServer, request: web.Request) -> tuple[str, str]:
    caller = server.authenticate(request, "kme", server.authorities)
    _check_name(caller, server.configuration.kme_id)
    try:
        block = NewBlock.model_validate_json(await server.body(request, MAX_BLOCK_BODY_BYTES))
    except ValidationError as error:
        raise ProtocolError(f"not a block: {error.error_count()} members are wrong") from error
    now: datetime = server.now()
    if (why := await asyncio.to_thread(_complaint, block.material)) is not None:
        kme_id = server.configuration.kme_id
        detail = f"block {block.number}: {why}"
        server.kme.alarms.sound(AlarmKind.UNHEALTHY_KEY, kme_id, detail, now)
        raise KeySupplyError(f"block {block.number} fails its health test: {why}")
    server.kme.ledger.add_block(block.number, block.material, block.label, now, block.expires)
    server.kme.watch(refused=False, now=now)
    return caller.name, "{}"


def _complaint(material: bytes) -> str | None:
    from kms.health import complaint  # SciPy's: not before it is needed

    return complaint(material)


def _check_name(caller: Caller, kme_id: str) -> None:
    if caller.name != kme_id:
        raise ProtocolError(f"KME {caller.name} asks for what is KME {kme_id}'s")


def load_into_running(configuration: KmsConfiguration, block: NewBlock) -> None:
    """Hand a block to the KME that runs on this configuration; raises what `Kms014Client` does."""
    folder = configuration.certificate_path.parent
    client = _Client(
        configuration.local_url,
        configuration.ca_path,
        folder / "peer.pem",
        folder / "peer.key",
        kme_id=configuration.kme_id,
        timeout_s=_TIMEOUT_S,
    )
    try:
        client.load(block)
    finally:
        client.close()
