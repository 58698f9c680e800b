"""What a gateway writes: Wireshark's key file and its status."""

from __future__ import annotations

import json
import os
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from gateways.export import append_private, check_writable, esp_sa_record, write_status
from gateways.gateway import log
from gateways.keys import SaKeys
from topo.errors import InputError


def test_esp_sa_record() -> None:
    keys = SaKeys(bytes(range(16)), b"\xde\xad\xbe\xef")
    record = esp_sa_record(IPv4Address("10.0.1.1"), IPv4Address("10.0.1.2"), 0x1001, keys)
    assert record == (
        '"IPv4","10.0.1.1","10.0.1.2","0x00001001","AES-GCM with 16 octet ICV [RFC4106]",'
        '"0x000102030405060708090a0b0c0d0e0fdeadbeef","NULL",""\n'
    )


def test_key_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "esp_sa"
    append_private(path, "one\n")
    append_private(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_status_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"rekeys": 1, "note": "x" * 5000})
    write_status(path, {"rekeys": 2})
    assert json.loads(path.read_text()) == {"rekeys": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "file"
    with pytest.raises(InputError, match="none/file"):
        append_private(path, "one\n")
    with pytest.raises(InputError, match="none/file"):
        write_status(path, {})


def test_log_lines_have_a_clock_an_event_and_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    log("Failed", gateway="EG-U", reason="no answer to 6 × PROPOSE")
    clock, event, *pairs = capsys.readouterr().err.strip().split(" ", 3)
    assert clock.isdigit()
    assert (event, pairs) == (
        "Failed",
        ["gateway=EG-U", 'reason="no answer to 6 \\u00d7 PROPOSE"'],
    )


def test_log_line_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    log("Failed", reason="a\nb")
    assert capsys.readouterr().err.count("\n") == 1


def test_only_a_regular_file_is_written(tmp_path: Path) -> None:
    """As root a status file named /dev/null would take the place of the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(InputError, match=f"^status: {path}: no regular file; take a file"):
            check_writable("status", path)
    check_writable("status", tmp_path / "status.json")
    assert list(tmp_path.iterdir()) == [pipe]
