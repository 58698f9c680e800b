"""`qntn kms`: a key management site on its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from experiments.options import JsonOption
from topo.errors import InputError, KeySupplyError, KmsRefused, LedgerError

if TYPE_CHECKING:
    from kms.client import Kms014Client
    from kms.ledger import Ledger

# ruff: noqa: PLR0917  (the many parameters are the options of one command)

app = typer.Typer(help="A key management site on its own.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="The site's folder, as `init` made it.")]
SaeArgument = Annotated[str, typer.Argument(help="SAE ID.")]


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    kme_id: Annotated[
        str | None, typer.Option(help="Make this one site; without, a pair on this machine.")
    ] = None,
    peer_kme_id: Annotated[str | None, typer.Option(help="KME ID of the other site.")] = None,
    site: Annotated[
        Literal["U", "N"], typer.Option(help="Which half of the common key is this site's.")
    ] = "U",
    server: Annotated[
        list[str] | None, typer.Option(help="IP address or DNS name of the KME; may be repeated.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="HERE=THERE", help="SAE IDs that share keys; may be repeated."),
    ] = None,
    peer_url: Annotated[
        str | None,
        typer.Option(help="https://HOST:PORT of the other KME, to reconcile the ledgers with."),
    ] = None,
    port: Annotated[int, typer.Option(help="TCP port; a pair takes the next one too.")] = 8443,
    metrics_port: Annotated[int, typer.Option(help="For Prometheus; likewise.")] = 9443,
    key_bytes: Annotated[
        int, typer.Option(min=96, help="Random key that a pair on this machine starts with.")
    ] = 1_000_000,
) -> None:
    """Make a site: authority, certificates, ledger, configuration. Or a pair of sites to try out.

    Without --kme-id: FOLDER/u and FOLDER/n, SAEs EG-U and EG-N, with common key in store. With it:
    one site in FOLDER, its ledger empty (`qntn kms load` fills it); the other site is made likewise,
    on its own machine.
    """
    from kms.site import SitePlan, make_pair, make_site

    now = datetime.now(UTC)
    if kme_id is None:
        if server or pair or peer_kme_id:
            raise InputError("one site needs --kme-id; a pair on this machine takes none of these")
        paths = make_pair(folder, key_bytes, port, metrics_port, now)
    else:
        if not (peer_kme_id and server and pair):
            raise InputError("one site needs --kme-id, --peer-kme-id, --server and --pair")
        pairs = [_pair(text) for text in pair]
        plan = SitePlan(site, kme_id, peer_kme_id, server, port, pairs, metrics_port, peer_url)
        paths = [make_site(folder, plan, now)]
    for path in paths:
        typer.echo(path)


def _pair(text: str) -> tuple[str, str]:
    here, sign, there = text.partition("=")
    if not (here and sign and there):
        raise InputError(f"--pair {text}: HERE=THERE, two SAE IDs")
    return here, there


@app.command("serve")
def serve(
    config: Annotated[Path, typer.Argument(help="Its configuration, kms.json, or its folder.")],
) -> None:
    """Serve ETSI GS QKD 014 over mutual TLS, until SIGTERM."""
    from kms.server import main as run_server
    from kms.site import CONFIGURATION

    path = config / CONFIGURATION if config.is_dir() else config
    raise typer.Exit(run_server([str(path)]))


@app.command("load")
def load(
    folder: FolderArgument,
    number: Annotated[int, typer.Argument(help="Block number, the same at both sites.")],
    key: Annotated[Path, typer.Argument(help="File of key bytes, the same at both sites.")],
    label: Annotated[str, typer.Option(help="Where it comes from, for the audit trail.")] = "",
    lifetime_h: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, help="Hours until what is left of it is destroyed."),
    ] = None,
) -> None:
    """Put a block of key into a site's ledger: by its KME if it is running, else directly."""
    from kms.configuration import KmsConfiguration
    from kms.inner import NewBlock, load_into_running
    from kms.site import CONFIGURATION, load_block

    now = datetime.now(UTC)
    try:
        material = key.read_bytes()
    except OSError as error:
        raise InputError(f"{key}: {error.strerror}") from error
    expires = None if lifetime_h is None else now + timedelta(hours=lifetime_h)
    configuration = KmsConfiguration.load(folder / CONFIGURATION)
    try:
        load_block(configuration, number, material, label, now=now, expires=expires)
    except LedgerError as refused:  # perhaps because its KME has it
        block = NewBlock(number=number, label=label, material=material, expires=expires)
        try:
            load_into_running(configuration, block)
        except KmsRefused:
            raise
        except KeySupplyError:
            raise refused from None
    typer.echo(f"block {number}: {len(material)} bytes in {configuration.ledger_path}")


@app.command("audit")
def audit(folder: FolderArgument) -> None:
    """Print what a site's ledger has done, a line of JSON each, its chain checked; not while it is served."""
    from dataclasses import asdict

    with _ledger(folder) as ledger:
        for entry in ledger.audit_trail():
            typer.echo(json.dumps(asdict(entry)))


@app.command("start-over")
def start_over(
    folder: FolderArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also of a site that nothing is wrong with.")
    ] = False,
) -> None:
    """Destroy all key of a site that was put back to an old state: it serves again, from new blocks."""
    with _ledger(folder) as ledger:
        if not (ledger.distrust or force):
            raise InputError(
                f"{ledger.path}: nothing is wrong with it; --force destroys its key all the same"
            )
        typer.echo(f"{ledger.start_over(datetime.now(UTC))} bytes destroyed in {ledger.path}")


def _ledger(folder: Path) -> Ledger:
    from kms.configuration import KmsConfiguration
    from kms.ledger import Ledger
    from kms.site import CONFIGURATION

    configuration = KmsConfiguration.load(folder / CONFIGURATION)
    return Ledger(configuration.ledger_path, configuration.ledger_secret())


@app.command("issue")
def issue(folder: FolderArgument, sae: SaeArgument) -> None:
    """Make a certificate for one more SAE, or a new one for an SAE whose last is revoked."""
    from kms.pki import issue_sae

    files = issue_sae(folder, sae, datetime.now(UTC))
    typer.echo(f"{files.certificate}  {files.key}")


@app.command("revoke")
def revoke(folder: FolderArgument, sae: SaeArgument) -> None:
    """Take back an SAE's certificate; the running KME refuses it from the next request on."""
    from kms.pki import revoke as revoke_certificate

    typer.echo(revoke_certificate(folder, sae, datetime.now(UTC)))


@app.command("trust")
def trust(
    folder: FolderArgument,
    authority: Annotated[Path, typer.Argument(help="The other site's ca.pem.")],
) -> None:
    """Let the other site's KME reconcile its ledger with this one's; needs `init --peer-url`."""
    from kms.site import trust as trust_authority

    typer.echo(trust_authority(folder, authority))


@app.command("status")
def status(
    folder: Annotated[
        Path, typer.Argument(help="The site's folder; what is not said below is taken from it.")
    ],
    sae: Annotated[str | None, typer.Option(help="SAE that asks; the first one's pair.")] = None,
    slave: Annotated[str | None, typer.Option(help="SAE to share keys with.")] = None,
    url: Annotated[str | None, typer.Option(help="https://HOST:PORT of the KME.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What a running KME says of its keys: pool, consumption, time to exhaustion."""
    from dataclasses import asdict

    client, found_slave = _client(folder, sae, slave, url)
    found = asdict(client.status(found_slave))
    client.close()
    typer.echo(json.dumps(found, indent=2) if as_json else _described(found))


def _client(
    folder: Path, sae: str | None, slave: str | None, url: str | None
) -> tuple[Kms014Client, str]:
    """A client with an SAE's certificate out of a site's folder, and the slave SAE to ask about."""
    from kms.client import Kms014Client
    from kms.configuration import KmsConfiguration
    from kms.pki import sae_files
    from kms.site import CONFIGURATION

    configuration = KmsConfiguration.load(folder / CONFIGURATION)
    pairs = [
        pair
        for pair in configuration.sae_pairs
        if sae in (None, pair.local) and slave in (None, pair.remote)
    ]
    if not pairs:
        raise InputError(f"{folder / CONFIGURATION}: no such pair of SAEs in sae_pairs")
    files = sae_files(folder, pairs[0].local)
    client = Kms014Client(
        url or configuration.local_url,
        configuration.ca_path,
        files.certificate,
        files.key,
        kme_id=configuration.kme_id,
        timeout_s=10.0,
    )
    return client, pairs[0].remote


def _described(found: dict[str, Any]) -> str:
    """A KME's status in a few lines."""
    extension = found["status_extension"]
    lines = [
        f"{found['source_KME_ID']} for {found['master_SAE_ID']} -> {found['slave_SAE_ID']}"
        f" at {found['target_KME_ID']}",
        f"  in store   {found['stored_key_count']} keys of {found['key_size']} bits"
        f" (shown up to {found['max_key_count']})",
        f"  a request  1 to {found['max_key_per_request']} keys of {found['min_key_size']}"
        f" to {found['max_key_size']} bits, {found['max_SAE_ID_count']} more slave SAEs",
    ]
    if "qntn_pool_bits" in extension:
        left_s = extension["qntn_exhausted_in_s"]
        low = ", LOW" if extension["qntn_low_water"] else ""
        lines += [
            f"  pool       {extension['qntn_pool_bits']} bits for the masters here{low}",
            f"  taken      {extension['qntn_rate_bits_per_s']:.1f} bit/s of late",
            f"  exhausted  {'never at that rate' if left_s is None else f'in {left_s:.0f} s'}",
        ]
    return "\n".join(lines)


def bench(
    clients: Annotated[int, typer.Option(min=1, help="On kept connections, for enc_keys.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each load.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="The servers take turns in each.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Durable enc_keys and new mutual-TLS connections a second, beside a bare aiohttp handler."""
    from experiments.bench.kms import described, measure
    from experiments.terminal import TerminalReporter

    with TerminalReporter(quiet=as_json) as reporter:
        found = measure(clients, seconds, rounds, reporter)
    typer.echo(json.dumps(found, indent=2) if as_json else described(found))
