"""What a gateway writes to files: its counters, and, only when asked, keys for Wireshark."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from gateways.keys import SaKeys
from topo.errors import InputError


def esp_sa_record(source: IPv4Address, destination: IPv4Address, spi: int, keys: SaKeys) -> str:
    """One line of Wireshark's `esp_sa` table (8 fields, Wireshark 4.0 and later) for an SA.

    Wireshark knows no SM4: such an SA is a remark in the table, with our name of its suite, for `qntn decrypt`.
    """
    encryption, authentication = keys.suite.wireshark or (keys.suite.name, "NULL")
    fields = (
        "IPv4",
        str(source),
        str(destination),
        f"{spi:#010x}",
        encryption,
        f"0x{(keys.key + keys.salt).hex()}",
        authentication,
        f"0x{keys.integrity_key.hex()}" if keys.integrity_key else "",
    )
    remark = "" if keys.suite.wireshark else "# "
    return remark + ",".join(f'"{field}"' for field in fields) + "\n"


def check_writable(key: str, path: Path) -> None:
    """Find out before anything is touched whether a file can be written, which stays as it is.

    Raises `InputError` naming `key`, the configuration's name of the file.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # as a device, which would be replaced
            raise OSError(errno.EINVAL, "no regular file")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{key}: {path}: {error.strerror}; take a file in a folder that is there and can be written to"
        ) from None


def append_private(path: Path, text: str) -> None:
    """Append to a file that only its owner may read; one write, so that two writers do not mix.

    Raises `InputError` if the file cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, whole.

    Raises `InputError` if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(status, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
