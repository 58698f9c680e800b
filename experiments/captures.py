"""What an independent decoder finds in a capture: tshark as a subprocess.

tshark runs without the user's own profile: its configuration directory is a temporary one that
holds nothing but the `esp_sa` table. Each line of the table is one SA in the eight fields of
Wireshark 4.0, as the gateways write them::

    "IPv4","10.0.1.1","10.0.1.2","0x1001","AES-GCM with 16 octet ICV [RFC4106]","0x...","NULL",""

The key is followed by the 4-byte salt. The algorithm's name must carry the ICV length: plain
`AES-GCM [RFC4106]` decrypts without checking the tag, and takes the tag for payload.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from experiments.summary import CaptureVerdict
from topo.errors import FeatureMissing, MeasurementError

ECHO_REPLY, ECHO_REQUEST = "0", "8"
_TRUE = {"1", "True"}  # tshark 4.0 and later versions
_DECRYPT = ("esp.enable_encryption_decode:TRUE", "esp.enable_authentication_check:TRUE")
_SPI_COLUMN = 3
_SEALED = (
    "esp.enable_encryption_decode:FALSE",
    "esp.enable_null_encryption_decode_heuristic:FALSE",
)


def analyse(
    capture: Path, esp_sa: Iterable[str], protected: Collection[IPv4Address]
) -> CaptureVerdict:
    """Count the ESP packets of a capture, how many verify, and what went unprotected.

    `esp_sa` are the lines of Wireshark's table, `protected` the addresses of UE and DN. A packet is
    plaintext when one of these shows in any IP header of it without decryption: bare, inside
    unprotected GTP-U, or quoted by an ICMP error. ESP of an SA that is not in the table counts as
    neither good nor bad. Raises `FeatureMissing` without tshark, `MeasurementError` when it fails.
    """
    hidden = {str(address) for address in protected}
    esp_packets = plaintext = good = bad = inner_icmp = 0
    for source, destination, spi in _fields(capture, ["ip.src", "ip.dst", "esp.spi"], _SEALED):
        esp_packets += bool(spi)
        plaintext += not hidden.isdisjoint(source.split(",") + destination.split(","))
    for _, verified, icmp_type in _esp_packets(capture, list(esp_sa)):
        good += verified is True
        bad += verified is False
        inner_icmp += verified is True and icmp_type in {ECHO_REPLY, ECHO_REQUEST}
    return CaptureVerdict(
        esp_packets=esp_packets,
        icv_good=good,
        icv_bad=bad,
        inner_icmp=inner_icmp,
        plaintext_packets=plaintext,
    )


def icv_by_spi(capture: Path, esp_sa: Iterable[str]) -> dict[int, tuple[int, int]]:
    """How many ESP packets of each SPI verify in tshark, and how many do not; only of SPIs that are in the table.

    Raises `FeatureMissing` without tshark, `MeasurementError` when it fails.
    """
    found: dict[int, tuple[int, int]] = {}
    for spi, verified, _ in _esp_packets(capture, list(esp_sa)):
        if verified is not None:
            good, bad = found.get(spi, (0, 0))
            found[spi] = (good + verified, bad + (not verified))
    return found


def _esp_packets(capture: Path, table: Sequence[str]) -> Iterator[tuple[int, bool | None, str]]:
    """SPI, whether it verifies (None: its SA is not in the table), and the ICMP type inside, of each ESP packet.

    None at all, and no tshark, for a table of comments alone: it decrypts nothing.
    """
    if all(line.startswith("#") for line in table):
        return
    known = {spi for line in table if (spi := _spi(line)) is not None}
    wanted = ["esp.spi", "esp.icv_good", "icmp.type"]
    for spis, icv_good, icmp_type in _fields(capture, wanted, _DECRYPT, table):
        if not spis:
            continue
        # The outermost ESP's: what a wrong key makes of a packet may look like ESP once more, by chance. Or like
        # something else, in whose midst tshark gives up before it says that the packet is bad.
        spi, verified = int(spis.split(",")[0], 0), icv_good.split(",")[0] in _TRUE
        yield spi, verified if verified or spi in known else None, icmp_type


def _spi(line: str) -> int | None:
    """The SPI of a line of Wireshark's table; None for a comment, or where there is none, of which tshark complains."""
    columns = line.split(",")
    if line.startswith("#") or len(columns) <= _SPI_COLUMN:
        return None
    return int(columns[_SPI_COLUMN].strip('" '), 0)


def rtts_from_capture(capture: Path, identifier: int | None = None) -> dict[int, int | None]:
    """Recompute the RTT of every ICMP echo in a capture: sequence number -> ns, `None` if lost.

    RTT is the time of the first reply minus that of the first request of the same sequence number.
    `identifier` picks one prober among several; without it the capture must hold one only. Sequence
    numbers are those on the wire: warm-up probes are the ones just below 65536. Raises
    `FeatureMissing` without tshark, `MeasurementError` when it fails or several probers are mixed.
    """
    wanted = ["frame.time_epoch", "icmp.type", "icmp.ident", "icmp.seq"]
    requests: dict[tuple[int, int], int] = {}
    replies: dict[tuple[int, int], int] = {}
    for at, kind, ident, sequence in _fields(capture, wanted, _SEALED):
        if kind not in {ECHO_REPLY, ECHO_REQUEST}:
            continue
        # tshark prints the identifier in both byte orders, network order first.
        echo = int(ident.split(",")[0], 0), int(sequence.split(",")[0])
        if identifier in {None, echo[0]}:
            (requests if kind == ECHO_REQUEST else replies).setdefault(echo, _nanoseconds(at))
    identifiers = {ident for ident, _ in requests}
    if len(identifiers) > 1:
        found = ", ".join(f"{i:#06x}" for i in sorted(identifiers))
        raise MeasurementError(f"{capture}: several probers ({found}): say which identifier")
    return {
        echo[1]: replies[echo] - sent_ns if echo in replies else None
        for echo, sent_ns in requests.items()
    }


def _nanoseconds(epoch: str) -> int:
    """tshark's decimal seconds as integer nanoseconds; a float would keep only 200 ns."""
    seconds, _, fraction = epoch.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))


def _fields(
    capture: Path, fields: Sequence[str], preferences: Iterable[str], esp_sa: Iterable[str] = ()
) -> Iterator[list[str]]:
    """One row per frame of the capture with the values of `fields`, empty where absent."""
    command = ["tshark", "-n", "-r", f"{capture}", "-T", "fields", "-E", "separator=/t"]
    for preference in preferences:
        command += ["-o", preference]
    for field in fields:
        command += ["-e", field]
    with tempfile.TemporaryDirectory(prefix="qntn-tshark-") as profile:
        table = "".join(f"{line.rstrip()}\n" for line in esp_sa)
        Path(profile, "esp_sa").write_text(table, encoding="ascii")
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": profile,
            "WIRESHARK_CONFIG_DIR": profile,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
        except FileNotFoundError as error:
            raise FeatureMissing("tshark", "apt install tshark") from error
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Running as")]
    if done.returncode != 0 or complaints:
        reason = complaints[0] if complaints else f"exit code {done.returncode}"
        raise MeasurementError(f"tshark on {capture}: {reason}")
    for line in done.stdout.splitlines():
        row = line.split("\t")
        if len(row) != len(fields):
            raise MeasurementError(
                f"tshark on {capture}: {len(row)} fields instead of {len(fields)}"
            )
        yield row
