"""K9: 100 keys delivered at both sites, looked for in the memory of the two KMEs and in their files.

Nothing is promised for base64: the answers' text is Python's, aiohttp's and OpenSSL's to free.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.kms_process import KmsProcess, make_sites, start

pytestmark = pytest.mark.interop

KEYS = 100
SPELLINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "raw": lambda key: key,
    "base64": lambda key: base64.b64encode(key).rstrip(b"="),
    "hex": lambda key: key.hex().encode(),
}
SURELY_THERE = b"/api/v1/keys/"


def memory(pid: int) -> Iterator[bytes]:
    """Every writable mapping of a process that is running."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as content:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if (mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)) is not None:
                at, end = (int(address, 16) for address in mapping.groups())
                content.seek(at)
                pieces = []
                while at < end and (piece := content.read(end - at)):
                    pieces.append(piece)
                    at += len(piece)
                yield b"".join(pieces)


def occurring(content: bytes, traces: set[bytes]) -> set[bytes]:
    """Which of the traces, of 4 bytes or more, occur at any place. Looks for their heads with NumPy first."""
    heads = np.zeros((2, 1 << 16), bool)
    for trace in traces:
        heads[(0, 1), np.frombuffer(trace[:4], "<u2")] = True
    of_head: dict[bytes, list[bytes]] = {}
    for trace in traces:
        of_head.setdefault(trace[:4], []).append(trace)
    found = set()
    for odd in (0, 1):
        words = np.frombuffer(content, "<u2", count=max(0, len(content) - odd) // 2, offset=odd)
        for at in np.flatnonzero(heads[0][words[:-1]] & heads[1][words[1:]]).tolist():
            place = 2 * at + odd
            for trace in of_head.get(content[place : place + 4], ()):
                if content.startswith(trace, place):
                    found.add(trace)
    return found


def hits(contents: Iterator[bytes], keys: list[bytes]) -> dict[str, int]:
    """How many keys there are in each spelling; the search finds what is surely there."""
    traces = {name: {spell(key) for key in keys} for name, spell in SPELLINGS.items()}
    wanted = set().union(*traces.values(), {SURELY_THERE})
    found = set().union(*(occurring(content, wanted) for content in contents))
    assert SURELY_THERE in found
    return {name: len(found & those) for name, those in traces.items()}


@pytest.mark.parametrize("at", [0, 1, 2, 7])
def test_the_search_finds_every_spelling_at_every_place(at: int) -> None:
    keys = [Random(number).randbytes(32) for number in range(3)]
    for name, spell in SPELLINGS.items():
        content = bytes(at) + spell(keys[1]) + SURELY_THERE
        assert hits(iter([content]), keys) == {each: int(each == name) for each in SPELLINGS}
        assert hits(iter([content[:at] + content[at + 1 :]]), keys)[name] == 0  # a byte is missing


def test_k9_no_raw_key_stays_in_memory_and_none_in_files(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    sites: list[KmsProcess] = []
    try:
        for folder in make_sites(tmp_path):
            sites.append(start(folder))
        at_u, at_n = sites
        master, slave = at_u.client("EG-U"), at_n.client("EG-N")
        keys: list[bytes] = []
        while len(keys) < KEYS:
            delivered = master.get_key("EG-N", 10)
            names = [key.key_id for key in delivered]
            assert slave.get_key_with_ids("EG-U", names) == delivered
            keys += [key.key for key in delivered]
        for site in sites:
            found = hits(memory(site.process.pid), keys)
            record_property(f"keys in memory of {site.configuration.kme_id}", found)
            print(f"{site.configuration.kme_id}: of {KEYS} delivered keys in memory: {found}")
            assert (found["raw"], found["hex"]) == (0, 0)
            files = (file.read_bytes() for file in site.folder.rglob("*") if file.is_file())
            assert hits(files, keys) == dict.fromkeys(SPELLINGS, 0)  # its log names the path
        master.close()
        slave.close()
    finally:
        for site in sites:
            site.stop()
