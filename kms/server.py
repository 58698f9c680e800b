"""A KMS site as a process: ETSI GS QKD 014 over HTTPS with mutual TLS.

Run `python -m kms.server CONFIG.json`.

A thin shell: TLS gives the caller's SAE ID, `kms.api` the answer, `kms.commit` one durable
transaction for all requests that wait together, `kms.listener` the connections. Without a
certificate of the site's authority that is made for clients, the TLS handshake fails; with one that
is revoked or has run out, the request is answered 401. Logs (standard error) hold callers, paths
and codes, never bodies.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from cryptography import x509

from kms import api, inner
from kms.certificates import Caller
from kms.commit import GroupCommit
from kms.configuration import KmsConfiguration
from kms.identity import Role
from kms.kme import Kme
from kms.ledger import Ledger
from kms.listener import Connection, Listener
from kms.messages import Error, JsonObject
from kms.metrics import CONTENT_TYPE, Tally, exposition
from kms.peer import Peer
from kms.revocation import RevocationList, load_authorities
from kms.steady_clock import SteadyClock
from topo.errors import InputError, LedgerError, ProtocolError, QntnError

_LOG = logging.getLogger("kms.server")
_CLOSING_TIMEOUT_S = 1.0
_SPARE_FILES = 64
"""File descriptors beside those of connections."""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Handler(web.RequestHandler):
    """aiohttp's connection, with our bookkeeping and our words for what is not HTTP."""

    __slots__ = ("caller", "connection", "listener")

    def __init__(self, manager: web.Server, connection: Connection, listener: Listener) -> None:
        limits = listener.limits
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_s,  # counts from the start of the connection on
            access_log=None,  # type: ignore[arg-type]
            max_line_size=limits.head_line_bytes,
            max_field_size=limits.head_line_bytes,
            max_headers=limits.headers,
            lingering_time=_CLOSING_TIMEOUT_S,
            auto_decompress=False,  # the API knows no Content-Encoding
        )
        self.connection, self.listener = connection, listener
        self.caller: Caller | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.listener.forget(self.connection)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP is 400; what fails here is 503, and only the log says how."""
        if status == 400:
            _LOG.info("%s: not HTTP", self.connection.address)
            response = _json(400, Error(message="bad request format: not HTTP/1.1").to_json())
        else:
            _LOG.error("%s: request failed", self.connection.address, exc_info=exc)
            response = _json(503, Error(message="internal error").to_json())
        response.force_close()
        return response


class KmeServer:
    """One KME over an open ledger: its application and everything around it."""

    def __init__(
        self, ledger: Ledger, configuration: KmsConfiguration, clock: Clock = utc_now
    ) -> None:
        self.configuration, self.clock = configuration, clock
        self.now = SteadyClock(clock)  # of keys and limits; `clock` is for certificates
        self.kme = Kme.start(ledger, configuration, self.now())
        self.kme.watch(refused=False, now=self.now())
        self.tally = Tally()
        self.commits: GroupCommit[api.Answer] = GroupCommit(self._transaction)
        self.authorities = load_authorities(configuration.ca_path)
        self.peer: Peer | None = None
        if configuration.peer is not None:
            self.peer = Peer(self.kme, configuration.peer, self.now)
        self.revocations: RevocationList | None = None
        if configuration.crl_path is not None:
            self.revocations = RevocationList(configuration.crl_path, self.authorities)
            self.revocations.is_revoked(b"", 0, clock())  # say now what is wrong with the file

    def application(self) -> web.Application:
        """The HTTP side."""
        app = web.Application()
        keys = "/api/v1/keys/{sae_id}"
        status = self._shell("status", api.get_status)
        enc_keys = self._shell("enc_keys", api.get_key)
        dec_keys = self._shell("dec_keys", api.get_key_with_key_ids)
        for method, path, serve_request in (  # no HEAD: it would consume keys and show none
            ("GET", f"{keys}/status", status),
            ("GET", f"{keys}/enc_keys", enc_keys),
            ("POST", f"{keys}/enc_keys", enc_keys),
            ("GET", f"{keys}/dec_keys", dec_keys),
            ("POST", f"{keys}/dec_keys", dec_keys),
        ):
            app.router.add_route(method, path, serve_request, expect_handler=_any_expectation)
        inner.add_routes(app, self)
        return app

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What one group of requests happens in; keys whose time is over go first."""
        with self.kme.ledger.batch():
            self.expire()
            yield

    def expire(self) -> None:
        """Destroy the keys whose time is over, and say so if few are left."""
        now = self.now()
        if self.kme.ledger.expire(now):
            self.kme.watch(refused=False, now=now)

    def _shell(
        self, name: str, handler: api.Handler
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        # With a peer, TLS trusts its authority too; then who made a certificate is looked at again.
        sae_authorities = self.authorities if self.peer is not None else ()

        async def serve_request(request: web.Request) -> web.Response:
            loop = asyncio.get_running_loop()
            begin_s = loop.time()
            protocol = request.protocol
            if isinstance(protocol, _Handler):
                protocol.listener.touch(protocol.connection)
            sae_id, close = "-", False
            try:
                sae_id = self.authenticate(request, "sae", sae_authorities).name
                most_bytes = self.configuration.limits.body_bytes
                posted = request.method == "POST"
                asked = api.Request(
                    method="POST" if posted else "GET",
                    sae_id=request.match_info["sae_id"],
                    query=tuple(request.query.items()),
                    body=await self.body(request, most_bytes) if posted else b"",
                )
                status, body = await self.commits.run(
                    partial(handler, self.kme, sae_id, asked, self.now())
                )
            except BadBody as error:
                status, body, close = 400, Error(message=str(error)).to_json(), True
            except ProtocolError as error:
                _LOG.warning("%s: %s", request.remote, error)
                self.tally.refused_certificates += 1
                status, body, close = 401, Error(message=str(error)).to_json(), True
            except InputError as error:
                _LOG.error("%s", error)
                status, body = 503, Error(message="certificates cannot be checked").to_json()
            except LedgerError as error:
                _LOG.error("%s", error)
                status, body = 503, Error(message="key store failure").to_json()
            _LOG.info("%s %s %s %d", sae_id, request.method, request.raw_path, status)
            delivered = len(body["keys"]) if status == 200 and "keys" in body else 0
            self.tally.count(name, sae_id, status, delivered, loop.time() - begin_s)
            if delivered and self.peer is not None:
                self.peer.used()
            response = _json(status, body)
            if close:
                response.force_close()
            if isinstance(protocol, _Handler):
                protocol.listener.touch(protocol.connection)
            return response

        return serve_request

    def authenticate(
        self, request: web.Request, role: Role, authorities: Sequence[x509.Certificate]
    ) -> Caller:
        """Whose request this is (clause 4: each request, not each connection)."""
        protocol: Any = request.protocol
        caller: Caller | None = protocol.caller if role == "sae" else None
        if caller is None:
            tls: ssl.SSLObject | None = request.get_extra_info("ssl_object")
            der = None if tls is None else tls.getpeercert(binary_form=True)
            if tls is None or der is None:
                raise ProtocolError("no certificate")
            caller = Caller.of(tls.getpeercert() or {}, der, role, authorities)
            if role == "sae":
                protocol.caller = caller
        caller.check(self.revocations, self.clock())
        return caller

    async def body(self, request: web.Request, most_bytes: int) -> bytes:
        """A request's whole body; `BadBody` says why there is none."""
        too_long = f"bad request format: body over {most_bytes} bytes"
        if (request.content_length or 0) > most_bytes:
            raise BadBody(too_long)
        try:
            async with asyncio.timeout(self.configuration.limits.body_s):
                return await request.clone(client_max_size=most_bytes).read()
        except web.HTTPRequestEntityTooLarge:
            raise BadBody(too_long) from None
        except TimeoutError:
            raise BadBody("bad request format: body incomplete") from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
            raise BadBody("bad request format: body not as its headers say") from None


class BadBody(ProtocolError):
    """A body that cannot be read to its end; becomes the answer."""


def _json(status: int, body: JsonObject) -> web.Response:
    headers = {"Cache-Control": "no-store", "Server": "qntn"}
    return web.json_response(body, status=status, headers=headers)


async def _any_expectation(request: web.Request) -> None:
    """`Expect: 100-continue` waits for nothing here; any other expectation is passed over."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def tls_context(configuration: KmsConfiguration) -> ssl.SSLContext:
    """TLS 1.2 or 1.3, and a client certificate of the site's authority or no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # SAEs keep their connections; a ticket would be wasted on most
    try:
        context.load_verify_locations(configuration.ca_path)
        if (peer := configuration.peer) is not None:
            if not peer.ca_path.exists():
                raise InputError(
                    f"{peer.ca_path}: no such file: tell this site whom to trust (`qntn kms trust`)"
                )
            context.load_verify_locations(peer.ca_path)
        context.load_cert_chain(configuration.certificate_path, configuration.key_path)
    except OSError as error:
        files = (configuration.ca_path, configuration.certificate_path, configuration.key_path)
        raise InputError(f"TLS files {', '.join(map(str, files))}: {error}") from error
    return context


async def serve_until(
    ledger: Ledger,
    configuration: KmsConfiguration,
    stop: asyncio.Event,
    ready: Callable[[int], None],
    clock: Clock = utc_now,
) -> None:
    """Serve until `stop` is set; `ready` is called with the port once connections are accepted."""
    context = tls_context(configuration)
    server = KmeServer(ledger, configuration, clock)
    runner = web.AppRunner(
        server.application(), access_log=None, shutdown_timeout=_CLOSING_TIMEOUT_S
    )
    await runner.setup()
    manager = runner.server
    assert manager is not None
    listener = Listener(
        context,
        configuration.limits,
        lambda connection: _Handler(manager, connection, listener),
    )
    # Before a key is given out that was given out before.
    met = server.peer is not None and await server.peer.meet()
    in_touch: asyncio.Task[None] | None = None
    metrics = web.AppRunner(_metrics_application(server, listener), access_log=None)
    try:
        port = await listener.start(configuration.listen_host, configuration.listen_port)
        if configuration.metrics_port is not None:
            await metrics.setup()
            site = web.TCPSite(metrics, configuration.metrics_host, configuration.metrics_port)
            try:
                await site.start()
            except OSError as error:
                at = f"{configuration.metrics_host} port {configuration.metrics_port}"
                raise InputError(f"metrics: cannot listen on {at}: {error.strerror}") from error
            _LOG.info("metrics at http://%s:%d/metrics", *metrics.addresses[0][:2])
        if server.peer is not None:
            in_touch = asyncio.create_task(server.peer.keep_in_touch(met))
        ready(port)
        await stop.wait()
    finally:
        if in_touch is not None:
            in_touch.cancel()
            await asyncio.gather(in_touch, return_exceptions=True)
        await listener.close()
        await metrics.cleanup()
        await runner.cleanup()
        await listener.abort()
        if server.peer is not None:
            await server.peer.close()


def _metrics_application(server: KmeServer, listener: Listener) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        try:
            server.expire()
        except LedgerError as error:  # what is known of the pools is told all the same
            _LOG.error("%s", error)
        text = exposition(server.kme, server.tally, listener, server.commits.counters, server.now())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    return app


def serve(configuration: KmsConfiguration) -> None:
    """Run one KMS site in this process until SIGTERM or SIGINT; writes READY on standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no key material in a core file
    _allow_files(configuration.limits.connections + _SPARE_FILES)

    def ready(port: int) -> None:
        _LOG.info("%s at https://%s:%d", configuration.kme_id, configuration.listen_host, port)
        print("READY", flush=True)

    async def run(ledger: Ledger) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(ledger, configuration, stop, ready)

    peer = configuration.peer
    with Ledger(
        configuration.ledger_path,
        configuration.ledger_secret(),
        wait_for_peer=peer is not None and peer.hear_first,
    ) as ledger:
        asyncio.run(run(ledger))


def _allow_files(number: int) -> None:
    """Raise the limit of open files as far as may be and is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main(arguments: list[str]) -> int:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m kms.server CONFIG.json")
        serve(KmsConfiguration.load(arguments[0]))
    except QntnError as error:
        print(f"kms.server: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
