"""tshark, given the keys, reads every one of our IKE messages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from gateways.encapsulation import NON_ESP_MARKER
from gateways.ike.config import Keying
from gateways.ike.crypto import IKE_SUITES, IkeSuite
from gateways.ike.numbers import Exchange
from tests.interop.ike_conversation import ADDRESSES, Conversation, whole

pytestmark = pytest.mark.interop

NAMES = {
    "AES-128-GCM": ("AES-GCM-128 with 16 octet ICV [RFC5282]", "NONE [RFC4306]"),
    "AES-256-GCM": ("AES-GCM-256 with 16 octet ICV [RFC5282]", "NONE [RFC4306]"),
    "AES-128-CBC+HMAC-SHA-256-128": ("AES-CBC-128 [RFC3602]", "HMAC_SHA2_256_128 [RFC4868]"),
}


def read(conversation: Conversation, suite: IkeSuite, folder: Path) -> list[dict[str, str]]:
    """What tshark says of each message."""
    encryption, integrity = NAMES[suite.name]
    table = ""
    for (spi_i, spi_r), keys in conversation.known.items():
        row = [part.hex() for part in (spi_i, spi_r, keys.ei, keys.er, keys.ai, keys.ar)]
        row[4:4], row[7:] = [f'"{encryption}"'], [f'"{integrity}"']
        table += ",".join(row) + "\n"
    (folder / "ikev2_decryption_table").write_text(table)
    frames = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=str(ADDRESSES[end]), dst=str(ADDRESSES[1 - end]))
        / UDP(sport=4500, dport=4500)
        / Raw(NON_ESP_MARKER + message)
        for end, message in conversation.messages
    ]
    wrpcap(str(folder / "ike.pcap"), frames)
    fields = ("isakmp.exchangetype", "isakmp.typepayload", "isakmp.notify.msgtype", "_ws.malformed")
    command = ["tshark", "-r", str(folder / "ike.pcap"), "-T", "fields", "-E", "separator=;"]
    for name in fields:
        command += ["-e", name]
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [dict(zip(fields, line.split(";"), strict=True)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("suite", IKE_SUITES, ids=lambda suite: suite.name)
def test_every_message(suite: IkeSuite, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    conversation = whole(keying=Keying.NONE, ike_suites=(suite,), child_groups=(31,))
    rows = read(conversation, suite, tmp_path)
    assert len(rows) == len(conversation.messages) >= 16
    kinds = [int(row["isakmp.exchangetype"]) for row in rows]
    assert kinds == [message[18] for _, message in conversation.messages]
    payloads = [set(row["isakmp.typepayload"].split(",")) for row in rows]
    assert not any(row["_ws.malformed"] for row in rows)
    for kind, inside in zip(kinds, payloads, strict=True):
        if kind == Exchange.IKE_SA_INIT:
            assert {"33", "34", "40"} <= inside
        elif kind == Exchange.IKE_AUTH:
            assert {"46", "33", "36", "39", "44", "45"} <= inside  # decrypted: SA, ID, AUTH, TS
        elif kind == Exchange.CREATE_CHILD_SA:
            assert {"46", "33", "34", "40"} <= inside
    deletes = [inside for inside in payloads if "42" in inside]
    assert len(deletes) >= 5


def test_private_and_recent_notifications_are_well_formed(tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    conversation = whole(keying=Keying.PPK, ike_suites=IKE_SUITES[:1])
    rows = read(conversation, IKE_SUITES[0], tmp_path)
    # The keys are those after the PPK: what they were in IKE_INTERMEDIATE, tshark is not told.
    rows = [row for row in rows if int(row["isakmp.exchangetype"]) != Exchange.IKE_INTERMEDIATE]
    assert not any(row["_ws.malformed"] for row in rows)
    said = {number for row in rows for number in row["isakmp.notify.msgtype"].split(",")}
    assert {"16445", "16446", "16436", "16438"} <= said
