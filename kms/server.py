"""A KMS site as a process: ETSI GS QKD 014 over HTTPS with mutual TLS.

Run `python -m kms.server CONFIG.json`.

A thin shell: TLS gives the caller's SAE ID, `kms.api` gives the answer. Without a certificate of
the site's authority that is made for clients, the TLS handshake fails; a request is authenticated
by the certificate of its connection. Logs (standard error) hold callers, paths and codes, never
bodies.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web

from kms import api
from kms.configuration import KmsConfiguration
from kms.identity import identity
from kms.ledger import Ledger
from kms.messages import Error
from topo.errors import InputError, LedgerError, ProtocolError, QntnError

MAX_BODY_BYTES = 64 * 1024
_LOG = logging.getLogger("kms.server")
_CLOSING_TIMEOUT_S = 1.0

Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def make_app(
    ledger: Ledger, configuration: KmsConfiguration, clock: Clock = _utc_now
) -> web.Application:
    """The HTTP side of one KME over an open ledger."""
    if ledger.site != configuration.site:
        raise LedgerError(
            f"{ledger.path}: belongs to site {ledger.site}, this KME is at {configuration.site}"
        )

    def shell(handler: api.Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve_request(request: web.Request) -> web.Response:
            caller = "-"
            try:
                caller = identity(request.get_extra_info("peercert"), "sae")
                asked = api.Request(
                    method="POST" if request.method == "POST" else "GET",
                    sae_id=request.match_info["sae_id"],
                    query=tuple(request.query.items()),
                    body=await request.read() if request.method == "POST" else b"",
                )
                status, body = handler(ledger, configuration, caller, asked, clock())
            except ProtocolError as error:
                status, body = 401, Error(message=str(error)).to_json()
            except web.HTTPRequestEntityTooLarge:
                status, body = 400, Error(message=f"body over {MAX_BODY_BYTES} bytes").to_json()
            _LOG.info("%s %s %s %d", caller, request.method, request.raw_path, status)
            return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

        return serve_request

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    keys = "/api/v1/keys/{sae_id}"
    app.add_routes(
        [  # no HEAD: it would consume keys and show none
            web.get(f"{keys}/status", shell(api.get_status), allow_head=False),
            web.get(f"{keys}/enc_keys", shell(api.get_key), allow_head=False),
            web.post(f"{keys}/enc_keys", shell(api.get_key)),
            web.get(f"{keys}/dec_keys", shell(api.get_key_with_key_ids), allow_head=False),
            web.post(f"{keys}/dec_keys", shell(api.get_key_with_key_ids)),
        ]
    )
    return app


def tls_context(configuration: KmsConfiguration) -> ssl.SSLContext:
    """TLS 1.2 or 1.3, and a client certificate of the site's authority or no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(configuration.ca_path)
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
    clock: Clock = _utc_now,
) -> None:
    """Serve until `stop` is set; `ready` is called with the port once connections are accepted."""
    runner = web.AppRunner(
        make_app(ledger, configuration, clock),
        access_log=None,
        auto_decompress=False,  # the API knows no Content-Encoding
        shutdown_timeout=_CLOSING_TIMEOUT_S,
    )
    await runner.setup()
    try:
        host, port = configuration.listen_host, configuration.listen_port
        site = web.TCPSite(runner, host, port, ssl_context=tls_context(configuration))
        try:
            await site.start()
        except OSError as error:
            raise InputError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        ready(int(runner.addresses[0][1]))
        await stop.wait()
    finally:
        await runner.cleanup()


def serve(configuration: KmsConfiguration) -> None:
    """Run one KMS site in this process until SIGTERM or SIGINT; writes READY on standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no key material in a core file

    def ready(port: int) -> None:
        _LOG.info("%s at https://%s:%d", configuration.kme_id, configuration.listen_host, port)
        print("READY", flush=True)

    async def run(ledger: Ledger) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(ledger, configuration, stop, ready)

    with Ledger(configuration.ledger_path) as ledger:
        asyncio.run(run(ledger))


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
